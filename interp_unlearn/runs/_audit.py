"""`audit`: the report of a run for two checkpoints that other tools made."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from interp_unlearn._core import ConfigError, InterpUnlearnError
from interp_unlearn.runs._config import EvidenceSpec, LatentsSpec, ModelSpec, RunConfig, TargetSpec, WorldSpec
from interp_unlearn.runs._edited import edited_name
from interp_unlearn.runs._folder import RunFolder, file_name
from interp_unlearn.runs._run import folder_state, run
from interp_unlearn.runs._workbench import Progress, Workbench, silent
from interp_unlearn.worlds import checksum, read_questions
from interp_unlearn.zoo._entries import ZOO


def audit(
    original: str | Path,
    unlearned: str | Path,
    folder: str | Path,
    *,
    target: Sequence[str] = (),
    relations: Sequence[str] = (),
    world: str | WorldSpec = "countries",
    questions: str | Path | None = None,
    gold: str | Path | None = None,
    sae: str | None = None,
    second_sae: str | None = None,
    level: str = "standard",
    relearn: bool = True,
    require_known: bool = True,
    layer_stride: int = 3,
    seed: int = 0,
    name: str | None = None,
    bench: Workbench | None = None,
    progress: Progress = silent,
) -> RunFolder:
    """Look inside two checkpoints, before and after unlearning by any tool, and save a run folder.

    The folder is like that of a run without training, so report, compare, evidence, gate and explorer read it alike.

    Args:
        original: The model before: folder, zoo name, hub id or GGUF file.
        unlearned: The model after: a folder, zoo name, hub id or GGUF file, an adapter folder over ``original``, or a
            ``.safetensors`` delta (tensors that replace the original's).
        folder: A new or empty folder, or one with an unfinished audit of the same arguments.
        target: Entities to be forgotten; with ``questions`` by default all of the file's.
        relations: Relations to be forgotten; none means all.
        world: Where facts come from, see `load_world`.
        questions: A file of your own questions in place of a world, see `read_questions`.
        gold: A model trained without the target, of the same architecture.
        sae: An SAE of the original model, see `load_sae`.
        second_sae: Another one that judges too.
        level: Evidence level.
        relearn: Run the relearning attack.
        require_known: Leave out questions that the original cannot answer; switch it off for long answers, which
            hardly any model gives word for word.
        layer_stride: Capture every so many layers.
        seed: Of splits and attacks.
        name: Name in reports; default that of the unlearned checkpoint.
        bench: Opened original and task, to share between audits.
        progress: Told what is going on.

    Raises:
        ConfigError: If an argument is wrong.
        ModelError: If a checkpoint cannot be opened, is no edit of the original, holds the same weights or is
            collapsed; or if the gold model knows the target.
        DataError: If the questions cannot be used, or there are too few unknown entities.
        NothingToForgetError: If the original does not know the target.
        FileFormatError: If a file is damaged or ``folder`` holds something else.
    """
    spec = ModelSpec(name=_absolute(original), edited=_absolute(unlearned), gold=_absolute(gold) if gold else None)
    if questions is not None:
        path = Path(questions).expanduser().resolve()
        options = {"path": str(path), "sha256": checksum(path), **({"names": list(target)} if target else {})}
        given = world.options if isinstance(world, WorldSpec) else {}
        sizes = (world.n_known, world.n_unknown) if isinstance(world, WorldSpec) else (40, 40)
        world = WorldSpec("questions", None, *sizes, options={**given, **options})
        rows = read_questions(path, list(target))
        target = list(target) or list(dict.fromkeys(row.entity for row in rows if row.role == "forget"))
    elif not target:
        raise ConfigError("name at least one entity that was to be forgotten (--target), or give --questions FILE")
    config = RunConfig(
        name=name or file_name(edited_name(spec)) or "unlearned",
        recipe={},
        target=TargetSpec(tuple(target), tuple(relations)),
        seed=seed,
        model=spec,
        world=world if isinstance(world, WorldSpec) else WorldSpec(world),
        latents=LatentsSpec(sae, second_sae),
        evidence=EvidenceSpec(layer_stride=layer_stride, relearn=relearn, require_known=require_known, level=level),
    )
    return audit_config(config, folder, bench=bench, progress=progress)


def audit_config(
    config: RunConfig, folder: str | Path, *, bench: Workbench | None = None, progress: Progress = silent
) -> RunFolder:
    """`audit` of a config; a folder that was made for it is removed again when the input is refused."""
    path = Path(folder)
    fresh = folder_state(config, path) == "new" and not path.exists()
    try:
        return run(config, path, bench=bench, progress=progress)
    except InterpUnlearnError:
        if fresh and not RunFolder(path).status().get("finished"):
            shutil.rmtree(path)
        raise


def _absolute(name: str | Path) -> str:
    """A path that exists as an absolute one, so that the run can be resumed from elsewhere; else the name."""
    path = Path(name).expanduser()
    if name in ZOO:
        return str(name)
    meant = isinstance(name, Path) or "/" in name or _is_model(path)
    return str(path.resolve()) if meant and path.exists() else str(name)


def _is_model(path: Path) -> bool:
    """Whether a bare name is a file, or a folder with a model or adapter (a zoo name may be a folder by chance)."""
    return path.is_file() or any((path / n).is_file() for n in ("config.json", "adapter_config.json"))
