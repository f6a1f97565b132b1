"""A checkpoint that another tool unlearned, taken into a run as a delta over the original.

The checkpoint is opened first, its tensors are put on disk, and it is let go before the original is opened: two opened
models are never held at once. Then they are compared tensor by tensor, and what cannot be an edit of the original is
refused with one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from interp_unlearn._core import ModelError, nearest, write_json, write_tensors
from interp_unlearn.hooked import saved_buffers
from interp_unlearn.runs._config import ModelSpec, RunConfig
from interp_unlearn.runs._flow import flow_of
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._workbench import Progress, Workbench
from interp_unlearn.worlds import LabelledTask, without_deleted
from interp_unlearn.zoo._load import check_safetensors


@dataclass(frozen=True)
class Staged:
    """The edited checkpoint on disk.

    Attributes:
        file: Its tensors, or those that it changes.
        whole: Whether the file holds every tensor of the model.
        shared: Further names of a tensor (tied weights) to the name under which it is in the file.
        model: Name, sizes and provenance, without weights; None where only a delta is known.
        tokenizer: Its tokenizer, where it has one.
    """

    file: Path
    whole: bool
    shared: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, Any] | None = None
    tokenizer: Any = None


def stage_edited(config: RunConfig, out: RunFolder, progress: Progress) -> Staged:
    """Open ``model.edited``, put its tensors into the folder's ``checkpoint/``, and let it go.

    Raises:
        ModelError: If there is no such checkpoint, or it cannot be opened.
        FileFormatError: If a file is damaged or a pickle.
    """
    named = Path(str(config.model.edited)).expanduser()
    if named.is_file() and named.suffix.lower() == ".safetensors":
        check_safetensors(named)
        return Staged(named, whole=False)
    if named.is_file() and named.suffix.lower() != ".gguf":
        raise ModelError(f"{named} is neither a model folder nor a .safetensors delta nor a .gguf file")
    if (named / "delta.safetensors").is_file():
        raise ModelError(f"{named} is a run folder; give its {named / 'delta.safetensors'}, or read its own report")
    progress("opening the edited model", 0, 0)
    flow = flow_of(config)
    model = flow.open_named(config, str(config.model.edited), None, progress)
    tensors = model.tensors()
    names = {id(tensor): name for name, tensor in tensors.items()}
    shared = {
        name: names[id(tensor)]
        for name, tensor in model.module.named_parameters(remove_duplicate=False)
        if names[id(tensor)] != name
    }
    file = out.path / "checkpoint" / "edited.safetensors"
    write_tensors(file, tensors)
    facts = {"name": model.name, "source": model.source, "sizes": flow.sizes(model)}
    return Staged(file, True, shared, facts, model.tokenizer)


def take_edited(staged: Staged, config: RunConfig, out: RunFolder, bench: Workbench, progress: Progress) -> None:
    """Compare with the original, save the delta, and refuse what cannot be audited.

    Raises:
        ModelError: If it is of another architecture or vocabulary, holds the same weights, or is collapsed; or if the
            gold model knows the target.
        DataError: If there are too few unknown entities to compare the target with.
    """
    flow = flow_of(config)
    flow.check_data(bench)
    if staged.model is not None:
        flow.check_fits(bench, staged.model["sizes"], staged.tokenizer, "the unlearned model")
    progress("comparing the edited model with the original, tensor by tensor", 0, 0)
    changed = changed_tensors(bench.model.module, staged)
    try:
        bench.load(changed)
        with without_deleted(bench.any_task, bench.model):
            flow.check_answers(bench)
    finally:
        bench.restore()
    if config.evidence.gold and config.model.gold is not None:
        progress("asking gold what it knows", 0, 0)
        gold = flow.open_gold(config, bench, progress)
        flow.check_fits(bench, flow.sizes(gold), gold.tokenizer, "the gold model")
        flow.check_gold(bench, gold)
    removal = bench.any_task.removal() if isinstance(bench.any_task, LabelledTask) else None
    if removal is not None:
        out.save_intervention(removal)
    out.save_delta(changed, bench.model.source)
    total = sum(1 for _ in bench.model.module.parameters())
    facts = {"edited": config.model.edited, "tensors": total, "changed": len(changed), "model": staged.model}
    write_json(out.path / "edited.json", {"kind": "edited", **facts})
    out.log("edited", edited=config.model.edited, tensors=total, changed=len(changed))


@torch.no_grad()
def changed_tensors(module: nn.Module, staged: Staged) -> dict[str, Tensor]:
    """The tensors that differ from the original's, by the original's names.

    Raises:
        ModelError: If names or shapes do not fit, a value is not finite, or nothing differs but for rounding.
    """
    parameters = dict(module.named_parameters())
    own = {id(p): name for name, p in parameters.items()}
    ties: dict[str, list[str]] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        ties.setdefault(own[id(p)], []).append(name)
    buffers = saved_buffers(module)
    changed: dict[str, Tensor] = {}
    rounded = {torch.bfloat16: True, torch.float16: True}
    with safe_open(staged.file, framework="pt", device="cpu") as file:
        held = {*file.keys(), *staged.shared}
        _check_names(held, {n for names in ties.values() for n in names} | set(buffers), staged)
        for name, names in ties.items():
            found = [n for n in names if n in held]
            if not found:
                continue
            values = [file.get_tensor(staged.shared.get(n, n)) for n in found]
            new, old = values[0], parameters[name]
            if new.shape != old.shape:
                raise ModelError(
                    f"the unlearned model has {name} with shape {tuple(new.shape)}, the original {tuple(old.shape)}: "
                    "it is not an edit of this original"
                )
            if any(not torch.equal(new, other) for other in values[1:]):
                raise ModelError(
                    f"the unlearned model unties {' and '.join(found)}, which are one tensor in the original; "
                    "save it with tied weights, or open the original untied too"
                )
            if not bool(torch.isfinite(new).all()):
                raise ModelError(f"the unlearned model is collapsed: {name} holds NaN or infinite values; it is broken")
            new = new.to(old.dtype)
            old = old.cpu()
            if not torch.equal(new, old):
                changed[name] = new
                for dtype in rounded:
                    rounded[dtype] = rounded[dtype] and torch.equal(new, old.to(dtype).to(old.dtype))
        for name, value in buffers.items():
            new = file.get_tensor(name) if name in held else value
            if new.shape != value.shape or new.dtype != value.dtype:
                raise ModelError(
                    f"the unlearned model has {name} with shape {tuple(new.shape)} ({new.dtype}), the original "
                    f"{tuple(value.shape)} ({value.dtype}): it is not an edit of this original"
                )
            if not torch.equal(new, value.cpu()):
                changed[name] = new
                rounded = dict.fromkeys(rounded, False)
    if not changed:
        raise ModelError("nothing changed: the unlearned model holds the weights of the original, bit for bit")
    for dtype, only in rounded.items():
        if only:
            raise ModelError(
                f"nothing changed: the unlearned model differs from the original by rounding to {str(dtype)[6:]} alone"
            )
    return changed


def _check_names(held: set[str], own: set[str], staged: Staged) -> None:
    strange = sorted(held - own)
    lacking = sorted(own - held) if staged.whole else []
    if strange:
        raise ModelError(
            f"the unlearned model has {strange[0]}, which the original does not have{nearest(strange[0], own, n=2)}: "
            "it is not an edit of this original"
        )
    if lacking:
        raise ModelError(
            f"the unlearned model lacks {lacking[0]}, which the original has: it is not an edit of this original"
        )


def edited_name(spec: ModelSpec) -> str:
    """A short name of the edited checkpoint, for folders and reports."""
    path = Path(str(spec.edited))
    return path.stem if path.suffix in (".safetensors", ".gguf") else path.name or str(spec.edited)
