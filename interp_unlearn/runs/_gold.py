"""The gold model: retrained without the target, where the world can make one."""

from __future__ import annotations

from dataclasses import replace

from interp_unlearn._core import locked
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._cost import measured
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._measure import measure_phase, measure_relearning
from interp_unlearn.runs._workbench import Progress, Workbench
from interp_unlearn.worlds import TinyWorldConfig
from interp_unlearn.zoo import tinyworld_model


def has_gold(bench: Workbench) -> bool:
    """Whether the model's training set is ours, so that it can be retrained without the target."""
    return bench.model.source.get("model") == "tinyworld" and bench.world.name == "tinyworld"


def measure_gold(config: RunConfig, out: RunFolder, bench: Workbench, progress: Progress) -> None:
    """Measure gold once for all runs on this target; where there is none, the run simply has no gold files.

    Of several processes one measures, and the others wait for it.
    """
    if not has_gold(bench):
        return
    shared = RunFolder(out.path.parent / f".gold-{config.shared_key}")
    with locked(shared.path):
        if not shared.finished("gold"):
            progress("retraining without the target (gold)", 0, 0)
            settings = TinyWorldConfig(**config.world.options)
            with measured() as cost:
                gold = replace(bench, model=tinyworld_model(settings, bench.task.target, progress), originals={})
                measure_phase(config, shared, gold, "gold", progress)
                if config.evidence.relearn:
                    shared.save_tables(measure_relearning(config, gold, "gold", progress))
            shared.finish_part("gold", cost)
    out.link_phase_from(shared, "gold")
