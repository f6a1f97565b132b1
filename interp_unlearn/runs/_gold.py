"""The gold model: trained without the target, where the world can make one or the user has one."""

from __future__ import annotations

from dataclasses import replace

from interp_unlearn._core import locked
from interp_unlearn.hooked import HookedModel
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._cost import measured
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._measure import can_relearn, measure_phase, measure_relearning
from interp_unlearn.runs._workbench import Progress, Workbench
from interp_unlearn.worlds import TinyWorldConfig
from interp_unlearn.zoo import open_model, tinyworld_model


def has_gold(config: RunConfig, bench: Workbench) -> bool:
    """Whether a gold model was named, or the model's training set is ours, so that it can be retrained."""
    return config.model.gold is not None or (
        bench.model.source.get("model") == "tinyworld" and bench.world.name == "tinyworld"
    )


def gold_folder(config: RunConfig, out: RunFolder) -> RunFolder:
    """Where the measurements of gold lie, shared by the runs beside this one."""
    return RunFolder(out.path.parent / f".gold-{config.shared_key}")


def open_gold(config: RunConfig, bench: Workbench, progress: Progress) -> HookedModel:
    """The gold model: the one that was named, else the world's model retrained without the target.

    Raises:
        ModelError: If the one that was named cannot be opened, or has other sites than the original.
    """
    if config.model.gold is not None:
        return open_model(config.model.gold, tokenizer=bench.model.tokenizer)
    return tinyworld_model(TinyWorldConfig(**config.world.options), bench.task.target, progress)


def measure_gold(config: RunConfig, out: RunFolder, bench: Workbench, progress: Progress) -> None:
    """Measure gold once for all runs on this target; where there is none, the run simply has no gold files.

    Of several processes one measures, and the others wait for it.
    """
    if not has_gold(config, bench):
        return
    shared = gold_folder(config, out)
    with locked(shared.path):
        if not shared.finished("gold"):
            made = config.model.gold is None
            progress("retraining without the target (gold)" if made else "opening gold", 0, 0)
            with measured() as cost:
                gold = replace(bench, model=open_gold(config, bench, progress), originals={})
                measure_phase(config, shared, gold, "gold", progress)
                if can_relearn(config, bench):
                    shared.save_tables(measure_relearning(config, gold, "gold", progress))
            shared.finish_part("gold", cost)
    out.link_phase_from(shared, "gold")
