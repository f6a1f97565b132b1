"""`run` and `resume`: from a config to a finished run folder, part by part.

Each part writes its files and is then marked as finished; a killed run continues with the first unfinished part,
training from its last checkpoint. On the CPU the final weights are bit for bit those of an uninterrupted run.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from torch import Tensor

from interp_unlearn._core import (
    ConfigError,
    FileFormatError,
    InterpUnlearnError,
    Labelled,
    RunsFailedError,
    locked,
    read_json,
    seed_everything,
    write_json,
)
from interp_unlearn.diff import compare_weights
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._cost import Cost, measured
from interp_unlearn.runs._edited import Staged, stage_edited, take_edited
from interp_unlearn.runs._evidence import parts_of_config, run_parts, save_verdict, saved_config
from interp_unlearn.runs._flow import Flow, flow_of, open_workbench
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._gold import measure_gold
from interp_unlearn.runs._interrupt import interrupted_between
from interp_unlearn.runs._phases import baseline_folder
from interp_unlearn.runs._workbench import Progress, Workbench, silent
from interp_unlearn.unlearn import Recipe, Unlearner
from interp_unlearn.worlds import task_to_json

CHECKPOINT_SECONDS = 60.0


def versions() -> dict[str, str]:
    """Versions of what a number depends on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("torch", "transformers", "numpy", "scikit-learn", "sae-lens", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def run(
    config: RunConfig,
    folder: str | Path,
    *,
    bench: Workbench | Callable[[], Workbench] | None = None,
    progress: Progress = silent,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> RunFolder:
    """Unlearn as ``config`` says, look inside before and after, attack, and save everything in ``folder``.

    Args:
        config: What to do.
        folder: A new or empty folder, or one with an unfinished run of the same config (which is continued).
        bench: Opened model and task to share between runs, or what opens them when they are needed; the model is given
            back with its original weights.
        progress: Told what is going on.
        checkpoint_seconds: Save the training state at least this often.

    Raises:
        FileFormatError: If ``folder`` holds something else.
        DataError: If another process is writing ``folder``.
        InterpUnlearnError: As the parts raise; the folder's status then says why.
    """
    path = Path(folder)
    folder_state(config, path)
    with locked(path, wait=False):
        out = _prepare_folder(config, path)
        return _run(config, out, bench, progress, checkpoint_seconds)


def _run(
    config: RunConfig,
    out: RunFolder,
    bench: Workbench | Callable[[], Workbench] | None,
    progress: Progress,
    checkpoint_seconds: float,
) -> RunFolder:
    if out.status()["state"] == "done":
        return out
    try:
        out.write_status("running", message="", pid=os.getpid(), host=platform.node())
        parts_of_config(config)  # a wrong name is said now, not after training
        seed_everything(config.seed)
        # The other tool's checkpoint is opened and let go before the original is: two opened models are never held.
        staged = stage_edited(config, out, progress) if config.external and not out.finished("edited") else None
        if bench is None:
            bench = open_workbench(config, progress)
        opened = bench if isinstance(bench, Workbench) else bench()
        _parts(config, out, opened, progress, checkpoint_seconds, staged)
        out.write_status("done", message="")
    except KeyboardInterrupt:
        out.write_status("stopped", message=f"interrupted; continue with: interp-unlearn resume {out.path}")
        raise
    except InterpUnlearnError as error:
        out.write_status("failed", message=str(error))
        raise
    except OSError as error:
        out.write_status("failed", message=f"{error}; free some space or choose another folder, then resume")
        raise
    except Exception as error:  # not one of ours: the folder says so too, and the traceback goes on
        out.write_status("failed", message=f"{type(error).__name__}: {error}")
        raise
    return out


def resume(folder: str | Path, *, progress: Progress = silent) -> RunFolder:
    """Continue an interrupted run; a finished one is returned as it is.

    Raises:
        FileFormatError: If ``folder`` is not a run folder.
    """
    out = RunFolder.open(folder)
    return run(saved_config(out), out.path, progress=progress)


def run_many(configs: Sequence[RunConfig], folder: str | Path, *, progress: Progress = silent) -> list[RunFolder]:
    """Run several recipes on the same model and target, each in ``folder/<name>``, with one opened model.

    Raises:
        RunsFailedError: When all were tried, if a recipe failed (it diverged, say); the others are done.
        InterpUnlearnError: If model or target cannot be opened.
    """
    folder = Path(folder)
    bench: Workbench | None = None
    done: list[RunFolder] = []
    failed: dict[str, InterpUnlearnError] = {}
    for config in configs:  # each has its folder before the first begins, so that `resume` knows them all
        if folder_state(config, folder / config.name) == "new":
            with locked(folder / config.name, wait=False):
                _prepare_folder(config, folder / config.name).write_status("stopped", message="not begun yet")
    for config in configs:
        path = folder / config.name
        if folder_state(config, path) != "done":
            bench = bench or open_workbench(config, progress)
        try:
            done.append(run(config, path, bench=bench, progress=_named(progress, config.name)))
        except InterpUnlearnError as error:
            failed[config.name] = error
    if failed:
        why = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise RunsFailedError(f"{len(failed)} of {len(configs)} recipes failed: {why}", done) from next(
            iter(failed.values())
        )
    return done


def _named(progress: Progress, name: str) -> Progress:
    """The same, with the run's name in front."""
    return lambda what, step, of: progress(f"{name}: {what}", step, of)


def folder_state(config: RunConfig, path: Path) -> str:
    """``"new"`` if ``path`` can take a new run, else the state of its run of this config.

    Raises:
        FileFormatError: If ``path`` holds something else: another run, one of another version, or other files.
    """
    if (path / "config.json").exists():
        try:
            saved = saved_config(RunFolder.open(path))
        except ConfigError as error:
            by = RunFolder(path).config().get("version", "an unknown version")
            raise FileFormatError(
                f"{path} was written by interp-unlearn {by}, whose config this version cannot read ({error}); "
                "choose another folder"
            ) from error
        if saved != config and _nothing_measured(path):
            return "new"
        if saved != config:
            level, also = config.evidence.level, config.evidence.also
            if replace(saved, evidence=replace(saved.evidence, level=level, also=also)) == config:
                wanted = f"--level {level}" if level != saved.evidence.level else f"--only {' --only '.join(also)}"
                raise FileFormatError(
                    f"{path} holds this run with evidence level {saved.evidence.level!r}; add to it, once it is "
                    f"finished, with: interp-unlearn evidence {path} {wanted}"
                )
            raise FileFormatError(f"{path} holds a run with another config; choose another folder, or resume that one")
        if (changed := _changed_models(config, path)) is not None:
            if _nothing_measured(path):
                return "new"
            raise FileFormatError(
                f"the files of {changed} are not those that {path} measured (their sizes or times differ); choose "
                f"another folder, or delete {path} and run again"
            )
        return str(RunFolder(path).status()["state"])
    # Names with a dot in front are what a process killed in its first moment leaves behind.
    if path.exists() and (not path.is_dir() or any(not p.name.startswith(".") for p in path.iterdir())):
        raise FileFormatError(f"{path} is not empty and is not a run folder; choose another folder")
    return "new"


def _nothing_measured(path: Path) -> bool:
    """Whether a run folder holds no finished part and no training state: its config may still be corrected."""
    status = RunFolder(path).status()
    begun = status["state"] == "done" or status.get("finished") or (path / "checkpoint" / "latest.json").exists()
    return not begun


def _changed_models(config: RunConfig, path: Path) -> str | None:
    """The first checkpoint whose files are not those that the folder was made with."""
    saved = RunFolder(path).config().get("models")
    if not isinstance(saved, dict):  # a folder of a version that did not note them
        return None
    now = config.model.fingerprints()
    return next((str(getattr(config.model, key)) for key in now.keys() | saved if now.get(key) != saved.get(key)), None)


def _prepare_folder(config: RunConfig, path: Path) -> RunFolder:
    out = RunFolder(path)
    if folder_state(config, path) == "new":
        out.write_config(config.to_dict(), versions(), config.model.fingerprints())
    return out


def _parts(
    config: RunConfig,
    out: RunFolder,
    bench: Workbench,
    progress: Progress,
    checkpoint_seconds: float,
    staged: Staged | None,
) -> None:
    flow = flow_of(config)

    def part(name: str, work: Callable[[], None]) -> None:
        if out.finished(name):
            return
        cost = Cost()
        try:
            with measured(cost):
                work()
        except KeyboardInterrupt:
            out.add_cost(name, cost)
            raise
        out.finish_part(name, cost)

    def before() -> None:
        write_json(out.path / "task.json", task_to_json(bench.any_task))
        out.save_evidence([flow.parity(bench)])
        out.link_phase_from(_baseline(config, out, bench, progress), "before")

    def train() -> None:
        unlearner = Unlearner(bench.model, bench.any_task, _recipe(config, out, bench), bench.saes.get("main"))
        out.save_tables(unlearner.tables())
        _train(out, unlearner, bench, flow, progress, checkpoint_seconds)

    def after() -> None:
        flow.measure(config, out, bench, "after", progress)
        out.save_tables(flow.changes(config, out))
        if bench.originals:
            out.save_tables(weight_tables(bench.originals, out.delta()))

    if staged is not None:
        part("edited", lambda: take_edited(staged, config, out, bench, progress))
    part("before", before)
    if not config.external:
        part("train", train)
    try:
        bench.load(out.delta())
        intervention = out.intervention()
        with nullcontext() if intervention is None else intervention.applied(bench.model):
            part("after", after)
            if config.evidence.relearn:
                part("relearn", lambda: out.save_tables(flow.relearn(config, bench, "after", progress)))
    finally:
        bench.restore()
    if config.evidence.gold:
        part("gold", lambda: measure_gold(config, out, bench, progress))
    part("evidence", lambda: out.save_evidence(flow.evidence(config, out, bench, progress)))
    run_parts(config, out, bench, progress)
    save_verdict(out)
    out.drop_checkpoint()


def weight_tables(originals: Mapping[str, Tensor], changed: Mapping[str, Tensor]) -> list[Labelled]:
    """How far each changed parameter moved, relative to its original size; buffers that are no numbers are left out."""
    moved = {name: tensor for name, tensor in changed.items() if tensor.is_floating_point()}
    return [replace(t, name=f"weights.{t.name}") for t in compare_weights(originals, moved)] if moved else []


def _recipe(config: RunConfig, out: RunFolder, bench: Workbench) -> Recipe:
    """The whole recipe, with the defaults of the day the run began."""
    file = out.path / "recipe.json"
    if file.exists():
        return Recipe.from_dict(read_json(file))
    given = {"seed": config.seed, **config.recipe}
    recipe = flow_of(config).recipe(config, bench, given)
    write_json(file, recipe.to_dict())
    return recipe


def _train(
    out: RunFolder, unlearner: Unlearner, bench: Workbench, flow: Flow, progress: Progress, checkpoint_seconds: float
) -> None:
    """Train to the end from the last checkpoint; save the weights, even of a failure; restore the model."""
    saved = out.checkpoint()
    out.drop_events_after(saved[0] if saved else -1)
    last_save, whole = time.monotonic(), True
    try:
        if saved is not None:
            unlearner.load_state(saved[1], saved[2])
        with interrupted_between() as check:
            while not unlearner.done:
                whole = False
                terms = unlearner.step()
                whole = True
                out.log("step", step=unlearner.step_index, **terms)
                if unlearner.eval_due:
                    with unlearner.edited():
                        out.log("eval", step=unlearner.step_index, **flow.look(bench))
                progress("forgetting", unlearner.step_index, unlearner.recipe.steps)
                if time.monotonic() - last_save >= checkpoint_seconds:
                    out.save_checkpoint(unlearner.step_index, *unlearner.state(copy=False))
                    last_save = time.monotonic()
                check()
    except KeyboardInterrupt:
        if whole:
            out.save_checkpoint(unlearner.step_index, *unlearner.state(copy=False))
        raise
    finally:
        try:
            if unlearner.intervention is not None:
                out.save_intervention(unlearner.intervention)
            if unlearner.changes_weights:
                out.save_delta(unlearner.changed(), bench.model.source)
        finally:
            unlearner.restore()


def _baseline(config: RunConfig, out: RunFolder, bench: Workbench, progress: Progress) -> RunFolder:
    """Measurements of the original model, shared by the runs beside this one; of several processes one measures."""
    shared = baseline_folder(config, out)
    with locked(shared.path):
        if not shared.finished("before"):
            with measured() as cost:
                flow = flow_of(config)
                flow.measure(config, shared, bench, "before", progress)
                if config.evidence.relearn:
                    shared.save_tables(flow.relearn(config, bench, "before", progress))
            shared.finish_part("before", cost)
    return shared
