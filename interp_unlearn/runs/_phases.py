"""`RunPhases`: the models of one run, one at a time, with what was measured on each kept on disk.

Files: ``measured/<phase>/<name>.safetensors`` and ``.json`` beside it, which is written last and makes it exist. Those
of the edited model lie in the run folder; those of the original and of gold in the hidden folders that all runs on one
target share, where one process measures and the others wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType

import torch

from interp_unlearn._core import (
    FileFormatError,
    __version__,
    locked,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from interp_unlearn.hooked import Activations, HookedModel
from interp_unlearn.latents import SAE
from interp_unlearn.probes import Measured
from interp_unlearn.probes._phases import check_phase
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._flow import flow_of
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._gold import gold_folder
from interp_unlearn.runs._workbench import Progress, Workbench, silent
from interp_unlearn.worlds import AnyTask, Task, without_deleted

BEFORE, AFTER, GOLD = "before", "after", "gold"


def baseline_folder(config: RunConfig, out: RunFolder) -> RunFolder:
    """Where the measurements of the original model lie, shared by the runs beside this one."""
    return RunFolder(out.path.parent / f".baseline-{config.shared_key}")


class RunPhases:
    """The `Phases` of a run folder whose edited weights are saved.

    The edited weights stay in the model from one block to the next until another phase is asked for, and gold stays
    open likewise, since opening costs more than many measurements. So use it as a context manager: at its end the model
    has its original weights again.

    Args:
        config: Of the run.
        out: Its folder, with the delta or the intervention in it.
        bench: Opened model and task; not to be used otherwise meanwhile.
        progress: Told what is going on.
    """

    def __init__(self, config: RunConfig, out: RunFolder, bench: Workbench, progress: Progress = silent) -> None:
        self._config, self._out, self._bench, self._progress = config, out, bench, progress
        self._gold: HookedModel | None = None
        self._active: tuple[str, HookedModel] | None = None
        self._loaded = False
        self._names = (
            (BEFORE, AFTER, GOLD)
            if config.evidence.gold and flow_of(config).has_gold(config, bench)
            else (BEFORE, AFTER)
        )

    def __enter__(self) -> RunPhases:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the model its original weights back and let go of gold."""
        self._gold = None
        self._bench.restore()
        self._loaded = False

    @property
    def any_task(self) -> AnyTask:
        """The target's data."""
        return self._bench.any_task

    @property
    def task(self) -> Task:
        """The target's data, of a language model.

        Raises:
            ConfigError: If the model reads no text.
        """
        return self._bench.task

    @property
    def names(self) -> tuple[str, ...]:
        """Phases that exist."""
        return self._names

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self._config.seed

    @property
    def saes(self) -> Mapping[str, SAE]:
        """SAEs by role."""
        return self._bench.saes

    def mentions(self, phase: str) -> Activations | None:
        """Mention activations that the run saved of a phase, at the sites it captures, or None."""
        check_phase(phase, self.names)
        return self._out.activations(phase) if self._out.has_activations(phase) else None

    @contextmanager
    def open(self, phase: str) -> Iterator[HookedModel]:
        """The model of ``phase`` inside the block; a block of the same phase may be nested, one of another may not.

        Raises:
            ConfigError: If there is no such phase.
            RuntimeError: If a block of another phase is active.
        """
        check_phase(phase, self.names)
        if self._active is not None:
            if self._active[0] != phase:
                raise RuntimeError(f"phase {self._active[0]!r} is open: leave its block before opening {phase!r}")
            yield self._active[1]
            return
        model = self._model(phase)
        with self._as_it_runs(phase, model):
            self._active = (phase, model)
            try:
                yield model
            finally:
                self._active = None

    def _as_it_runs(self, phase: str, model: HookedModel) -> AbstractContextManager[object]:
        """What lies beside the weights: the edited model's intervention; of gold what the deletion takes away."""
        if phase == GOLD:
            return without_deleted(self.any_task, model)
        intervention = self._out.intervention() if phase == AFTER else None
        return nullcontext() if intervention is None else intervention.applied(model)

    def once(self, phase: str, name: str, measure: Callable[[HookedModel], Measured]) -> Measured:
        """What ``measure`` gives on the model of ``phase``: read from disk, else computed and saved.

        Of several processes that need the same measurement of a shared phase one makes it.

        Raises:
            ConfigError: If there is no such phase.
            FileFormatError: If a saved measurement is damaged.
        """
        check_phase(phase, self.names)
        file = self._folder(phase).measured_file(phase, name)
        with locked(file.parent / ".locks" / file.name):
            saved = read_measured(file, name)
            if saved is not None:
                return saved
            started = time.perf_counter()
            with self.open(phase) as model:
                found = {key: tensor.detach().cpu() for key, tensor in measure(model).items()}
            write_measured(file, phase, name, found, time.perf_counter() - started)
            return found

    def _folder(self, phase: str) -> RunFolder:
        if phase == BEFORE:
            return baseline_folder(self._config, self._out)
        return gold_folder(self._config, self._out) if phase == GOLD else self._out

    def _model(self, phase: str) -> HookedModel:
        if phase == GOLD:
            if self._gold is None:
                self._gold = flow_of(self._config).open_gold(self._config, self._bench, self._progress)
            return self._gold
        self._gold = None
        if phase == AFTER and not self._loaded:
            self._bench.load(self._out.delta())
            self._loaded = True
        elif phase == BEFORE and self._loaded:
            self._bench.restore()
            self._loaded = False
        return self._bench.model


def read_measured(file: Path, name: str) -> dict[str, torch.Tensor] | None:
    """A measurement written by `write_measured` in this version, in the order it was made in, or None.

    Raises:
        FileFormatError: If it is damaged, or of another name.
    """
    facts_file = file.with_name(f"{file.name}.json")
    if not facts_file.exists():
        return None
    facts = read_json(facts_file)
    if not isinstance(facts, dict) or facts.get("kind") != "measured" or facts.get("name") != name:
        raise FileFormatError(f"{facts_file} is not the measurement {name!r}; delete it and run again")
    if facts.get("version") != __version__:
        return None
    tensors = read_tensors(file.with_name(f"{file.name}.safetensors"))
    if set(facts.get("tensors", ())) != set(tensors):
        raise FileFormatError(f"{facts_file} and its tensors do not belong together; delete both and run again")
    return {key: tensors[key] for key in facts["tensors"]}  # safetensors sorts by name, which mixes up sites


def write_measured(file: Path, phase: str, name: str, found: Measured, seconds: float) -> None:
    """Write tensors, then the facts that make them exist."""
    write_tensors(file.with_name(f"{file.name}.safetensors"), found)
    shapes = {key: {"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")} for key, t in found.items()}
    facts = {"name": name, "phase": phase, "version": __version__, "seconds": seconds, "tensors": shapes}
    write_json(file.with_name(f"{file.name}.json"), {"kind": "measured", **facts})
