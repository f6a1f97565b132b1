"""The registered parts of the evidence on a run: looked for one by one, saved one by one, resumed, added to later.

What is known of each part lies in ``parts.json``: also of those that were not run, so that a report can say what was
not tested. After the parts the verdict is taken from all evidence that is saved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from interp_unlearn._core import (
    ConfigError,
    Evidence,
    FileFormatError,
    InterpUnlearnError,
    locked,
    read_json,
    seed_everything,
)
from interp_unlearn.probes import LEVELS, PARTS, Found, Part, parts_of
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._cost import measured
from interp_unlearn.runs._flow import flow_of, reopen_workbench
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._phases import RunPhases
from interp_unlearn.runs._workbench import Progress, Workbench, silent
from interp_unlearn.verdict import CALIBRATED, has_calibration, ruled_folder, verdict
from interp_unlearn.worlds import Modality, Task, task_from_json


def look(part: Part, phases: RunPhases, progress: Progress = silent) -> Found:
    """Run one part; where it cannot be measured it is one evidence without a value, or an empty view, with the reason.

    Only errors that the library raises on purpose become a reason; all others are bugs and are raised.
    """
    try:
        return part.look(phases, progress)
    except InterpUnlearnError as error:
        if part.kind == "view":
            return Found(reason=str(error))
        absent = Evidence(
            name=part.name,
            question=f"{part.what[:1].upper()}{part.what[1:]}: could it be measured?",
            value=float("nan"),
            direction="near control",
            n=0,
            mask_policy="-",
            does_not_show="anything: it was not measured",
            reason=str(error),
        )
        return Found((absent,))


def run_parts(
    config: RunConfig, out: RunFolder, bench: Workbench, progress: Progress, chosen: Sequence[Part] | None = None
) -> None:
    """Run the parts of the config's level and names, or ``chosen`` ones, that are not finished; save after each.

    A part of which nothing could be measured is tried again.
    """
    modality = flow_of(config).modality
    chosen = parts_of_config(config) if chosen is None else chosen
    pending = [part for part in chosen if not _is_done(out, part)]
    note_parts(out, modality)
    if not pending:
        return
    with RunPhases(config, out, bench, progress) as phases:
        for i, part in enumerate(pending):
            progress(f"evidence {i + 1} of {len(pending)}: {part.what}", 0, 0)
            seed_everything(config.seed)
            with measured() as cost:
                found = look(part, phases, progress)
            out.drop_evidence(part.name)
            out.save_tables(replace(table, name=name) for name, table in found.tables.items())
            out.save_evidence(found.evidence)
            note_parts(out, modality, part, found, cost.seconds)
            if not out.finished(_name(part)):
                out.finish_part(_name(part), cost)


def _name(part: Part) -> str:
    return f"evidence.{part.name}"


def _is_done(out: RunFolder, part: Part) -> bool:
    return out.finished(_name(part)) and not out.parts().get(part.name, {}).get("again", False)


def note_parts(
    out: RunFolder, modality: Modality, part: Part | None = None, found: Found | None = None, seconds: float = 0.0
) -> None:
    """Write what is known of every registered part for a modality, and of one that was just run."""
    known = out.parts()
    for name in PARTS:
        if modality not in PARTS[name].modalities:
            continue
        facts = {"what": PARTS[name].what, "kind": PARTS[name].kind, "level": PARTS[name].level}
        known[name] = {**known.get(name, {}), **facts}
    if part is not None and found is not None:
        saved = {"evidence": [e.name for e in found.evidence], "tables": list(found.tables), "seconds": seconds}
        saved["again"] = any(e.name == part.name and math.isnan(e.value) for e in found.evidence)
        if found.reason:
            saved["reason"] = found.reason
        known[part.name] = {**known[part.name], **saved}
    out.write_parts(known)


def save_verdict(out: RunFolder) -> None:
    """Take the verdict from the saved evidence and tables and write ``verdict.json``.

    An installation without a calibration has no verdict, and the report then says so. Runs on models of a kind that
    calibrations are not fitted on are judged by the rules of the labels; where these cannot decide, it says why.
    """
    if flow_of(saved_config(out)).modality not in CALIBRATED:
        decided, why = ruled_folder(out.path)
        undecided = {"kind": "verdict", "label": "", "undecided": why.reason}
        out.save_verdict(undecided if decided is None else decided.to_json())
    elif has_calibration():
        out.save_verdict(verdict(out.path).to_json())


OWN = frozenset({"alignment", "lens"})
"""Parts that every run measures itself, at more layers, for its diff tables and pictures; see `measure_evidence`."""


def parts_of_config(config: RunConfig) -> tuple[Part, ...]:
    """The parts that a config names by level and by name, but those that it skips.

    Raises:
        ConfigError: If a name is unknown, a part that is asked for does not work on the run's kind of model, or one
            that every run measures is skipped.
    """
    modality, named = flow_of(config).modality, config.evidence.also
    skipped = {PARTS[name].name for name in config.evidence.skip}
    if own := sorted(OWN & skipped):
        raise ConfigError(
            f"evidence.skip names {', '.join(own)}, which every run measures itself; leave it out of the list "
            "(the lens is turned off by evidence.lens = false)"
        )
    of_level = chosen_parts(config.evidence.level, (), modality)
    all_parts = dict.fromkeys((*of_level, *(chosen_parts(None, named, modality) if named else ())))
    return tuple(part for part in all_parts if part.name not in skipped)


def chosen_parts(level: str | None, only: Sequence[str], modality: Modality | None = None) -> tuple[Part, ...]:
    """The parts of a level (default ``"standard"``) but `OWN`, or those of these names whatever their level.

    Args:
        level: One of `LEVELS`.
        only: Names, instead of a level.
        modality: What the run's model reads; None where that is not known yet: then names are only looked up.

    Raises:
        ConfigError: If a level or a name is unknown, or a part that is named does not work on such models.
    """
    if level is not None and level not in LEVELS:
        raise ConfigError(f"evidence level {level!r} is not one of {', '.join(LEVELS)}")
    if only:
        named = tuple(PARTS[name] for name in dict.fromkeys(only))
        for part in named:
            if modality is not None and modality not in part.modalities:
                raise ConfigError(
                    f"the part {part.name!r} of the evidence works on {' and '.join(part.modalities)} models, and this "
                    f"run's model is one for {modality}; leave the part out (interp-unlearn evidence --list)"
                )
        return named
    parts = parts_of(next(known for known in LEVELS if known == (level or "standard")), modality or "language")
    return tuple(part for part in parts if part.name not in OWN)


def add_evidence(
    folder: str | Path,
    level: str | None = None,
    *,
    only: Sequence[str] = (),
    bench: Workbench | None = None,
    progress: Progress = silent,
) -> RunFolder:
    """Add parts of the evidence to a finished run, also to one of an earlier version, and judge again.

    Parts that are there already are not measured again. The questions are those saved in the run.

    Args:
        folder: The run folder.
        level: Evidence level; default ``"standard"``.
        only: Names of parts, instead of a level.
        bench: Opened model and task of a run with the same ``shared_key``.
        progress: Told what is going on.

    Raises:
        FileFormatError: If it is not a run folder, or the run is not finished.
        DataError: If another process is writing the folder.
        ConfigError: If a level or part is unknown.
    """
    out = RunFolder.open(folder)
    config = saved_config(out)
    parts = chosen_parts(level, only, flow_of(config).modality)
    with locked(out.path, wait=False):
        if out.status()["state"] != "done":
            raise FileFormatError(f"{out.path} is not finished; first: interp-unlearn resume {out.path}")
        if any(not _is_done(out, part) for part in parts):
            if bench is None:
                bench = reopen_workbench(config, out, progress)
            elif isinstance(bench.any_task, Task):
                bench = replace(bench, any_task=task_from_json(read_json(out.path / "task.json")))
            run_parts(config, out, bench, progress, parts)
        save_verdict(out)
        out.write_status("done", message="")
    return out


def add_evidence_many(
    folders: Sequence[str | Path],
    level: str | None = None,
    *,
    only: Sequence[str] = (),
    progress: Progress = silent,
) -> list[RunFolder]:
    """`add_evidence` for several runs; those on one target after each other share the opened model."""
    opened: tuple[str, Workbench] | None = None
    done = []
    for folder in folders:
        out = RunFolder.open(folder)

        def tell(what: str, step: int, total: int, name: str = out.path.name) -> None:
            progress(f"{name}: {what}", step, total)

        config = saved_config(out)
        needed = out.status()["state"] == "done" and any(
            not _is_done(out, p) for p in chosen_parts(level, only, flow_of(config).modality)
        )
        if needed and (opened is None or opened[0] != config.shared_key):
            opened = None  # lets go of the old model before the new one is opened
            opened = (config.shared_key, reopen_workbench(config, out, tell))
        bench = opened[1] if opened is not None and opened[0] == config.shared_key else None
        done.append(add_evidence(folder, level, only=only, bench=bench, progress=tell))
    return done


def saved_config(out: RunFolder) -> RunConfig:
    """The config of a run folder.

    Raises:
        ConfigError: If this version cannot read it.
    """
    return RunConfig.from_dict(
        {k: v for k, v in out.config().items() if k not in ("kind", "version", "versions", "models")}
    )
