"""Parity: the proof that looking inside does not change what the model computes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from interp_unlearn._core import SiteError, __version__
from interp_unlearn.hooked._forward import argument_names, evaluating
from interp_unlearn.hooked._model import HookedModel
from interp_unlearn.hooked._sites import Site
from interp_unlearn.hooked._tap import tap


@dataclass(frozen=True)
class ParityReport:
    """Bare module against the same module with every site hooked.

    Attributes:
        max_abs_diff: Largest difference of a logit (or of an output, for other modules).
        identical: Whether all of them are equal bit for bit.
        n_tokens: Attended tokens compared (or first-axis entries of the output).
        sites_hooked: How many sites were hooked and seen.
    """

    max_abs_diff: float
    identical: bool
    n_tokens: int
    sites_hooked: int

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary, with the library version."""
        return {"kind": "parity", **asdict(self), "version": __version__}


@torch.no_grad()
def parity(model: HookedModel, inputs: Any) -> ParityReport:
    """Compare outputs of the bare module with outputs while every site is hooked (expected: bit-identical).

    The bare pass calls the user's module directly, with token ids and attention mask (and position ids where padding
    stands before the text), not through `HookedModel`. Both run in evaluation mode.

    Args:
        model: A language model (all named sites are hooked) or any other module (all leaf modules' outputs are; its
            own, if it has no parts).
        inputs: As for `capture`.

    Raises:
        SiteError: If no output of the module is a tensor.
    """
    names = list(model.sites)
    with evaluating(model.module):
        if model.is_language_model:
            batch = model.batch(inputs)
            known = argument_names(model.module)
            kwargs: dict[str, Any] = {"attention_mask": batch.attended.long()} if "attention_mask" in known else {}
            if "position_ids" in known and batch.padded_inside_or_left():
                kwargs["position_ids"] = batch.position_ids()
            if "use_cache" in known:
                kwargs["use_cache"] = False  # attention over a cache may add up in another order
            output = model.module(batch.tokens, **kwargs)
            bare, keep = getattr(output, "logits", output), batch.attended
            hooked, seen = _hooked(model, batch, names)
            bare, hooked = bare[keep], hooked[keep]
        else:
            leaves = [path for path, child in model.module.named_modules() if path and not any(child.children())]
            bare = _tensor(model, model.forward(inputs))
            hooked, seen = _hooked(model, inputs, [f"{path}.output" for path in leaves] or ["output"])
            hooked = _tensor(model, hooked)
    gap = (bare.double() - hooked.double()).abs().max() if bare.numel() else torch.tensor(0.0)
    rows = bare.shape[0] if bare.dim() else 1
    return ParityReport(float(gap), torch.equal(bare, hooked), rows, seen)


def _hooked(model: HookedModel, inputs: Any, names: list[str]) -> tuple[Any, int]:
    """Output of one pass with every name hooked, and how many were seen."""

    def keep(_site: Site, value: Tensor) -> Tensor:
        return value.detach().clone()

    with tap(model.sites, names, keep=keep, stop=False) as taps:
        output = taps.run(lambda: model.forward(inputs))
    return output, len(taps.values)


def _tensor(model: HookedModel, output: Any) -> Tensor:
    try:
        return Site("output", "", "output").read((), {}, output)
    except SiteError as error:
        raise SiteError(f"{model.name} returns {type(output).__name__}, which holds no tensor to compare") from error
