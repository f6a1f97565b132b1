"""The gold model: trained without the target, where the world can make one or the user has one."""

from __future__ import annotations

from dataclasses import replace

from interp_unlearn._core import locked
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._cost import measured
from interp_unlearn.runs._flow import flow_of
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._workbench import Progress, Workbench
from interp_unlearn.worlds import without_deleted


def gold_folder(config: RunConfig, out: RunFolder) -> RunFolder:
    """Where the measurements of gold lie, shared by the runs beside this one."""
    return RunFolder(out.path.parent / f".gold-{config.shared_key}")


def measure_gold(config: RunConfig, out: RunFolder, bench: Workbench, progress: Progress) -> None:
    """Measure gold once for all runs on this target; where there is none, the run simply has no gold files.

    Of several processes one measures, and the others wait for it.
    """
    flow = flow_of(config)
    if not flow.has_gold(config, bench):
        return
    shared = gold_folder(config, out)
    with locked(shared.path):
        if not shared.finished("gold"):
            made = config.model.gold is None
            progress("retraining without the target (gold)" if made else "opening gold", 0, 0)
            with measured() as cost:
                gold = replace(bench, model=flow.open_gold(config, bench, progress), originals={})
                with without_deleted(gold.any_task, gold.model):
                    flow.measure(config, shared, gold, "gold", progress)
                    if config.evidence.relearn:
                        shared.save_tables(flow.relearn(config, gold, "gold", progress))
            shared.finish_part("gold", cost)
    out.link_phase_from(shared, "gold")
