"""Phases: the models of one run, one at a time, with what was measured on each kept for later.

Evidence compares models: the original (``"before"``), the edited one (``"after"``) and, where it exists, the one that
never saw the target (``"gold"``). A part of the evidence opens them one after the other; it never holds two sets of
weights, and what it measured on one phase is saved, so that runs on one target share it and an interrupted run goes on.

Example:
    >>> phases = LivePhases(model, task, edited=run.delta())
    >>> states = {phase: phases.once(phase, "states", read_states) for phase in phases.names}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from interp_unlearn._core import ConfigError, nearest
from interp_unlearn.hooked import HookedModel, Intervention
from interp_unlearn.latents import SAE
from interp_unlearn.worlds import AnyTask, Task, text_task, without_deleted

BEFORE, AFTER, GOLD = "before", "after", "gold"

Measured = Mapping[str, Tensor]
"""What one measurement gives: named tensors on the CPU, so that it can be saved as it is."""


@runtime_checkable
class Phases(Protocol):
    """The models of one run.

    Attributes:
        any_task: The data of the run, whatever its model reads.
        task: The target and every question about it, of a language model; raises `ConfigError` for others.
        names: Phases that exist, in the order before, after, gold.
        seed: Seed of everything random.
        saes: SAEs by role, ``"main"`` (a recipe may have trained against it) and ``"second"``; may be empty.

    An implementation that knows them also has ``edited``, a mapping of the edited model's tensors that may differ from
    the original's, by parameter name (empty where an intervention alone edits the model). Parts that compare weights
    take it to be complete; without it they compare hashes of every parameter. One that has saved mention activations
    gives them by a method ``mentions(phase)``, None where it has none (see `saved_mentions`).
    """

    @property
    def any_task(self) -> AnyTask: ...

    if TYPE_CHECKING:  # a check at run time would ask for it, and it raises where the model reads no text

        @property
        def task(self) -> Task: ...

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def seed(self) -> int: ...
    @property
    def saes(self) -> Mapping[str, SAE]: ...

    def open(self, phase: str) -> AbstractContextManager[HookedModel]:
        """The model of ``phase`` inside the block, with its interventions applied; do not nest blocks.

        Raises:
            ConfigError: If there is no such phase.
        """
        ...

    def once(self, phase: str, name: str, measure: Callable[[HookedModel], Measured]) -> Measured:
        """What ``measure`` gives on the model of ``phase``; computed the first time, kept under ``name`` afterwards.

        ``name`` must hold every setting that the result depends on besides model, task and seed.
        """
        ...


@dataclass
class LivePhases:
    """`Phases` of models in memory, for notebooks and tests.

    Attributes:
        model: The original model; it is given back unchanged after every block.
        any_task: The target's data.
        edited: Tensors of the edited model that differ from the original's, by name of the parameter or saved buffer.
        intervention: What is done to the edited model while it runs.
        gold: The model that never saw the target.
        seed: Seed of everything random.
        saes: SAEs by role.
    """

    model: HookedModel
    any_task: AnyTask
    edited: Mapping[str, Tensor] = field(default_factory=dict)
    intervention: Intervention | None = None
    gold: HookedModel | None = None
    seed: int = 0
    saes: Mapping[str, SAE] = field(default_factory=dict)
    _kept: dict[tuple[str, str], Measured] = field(default_factory=dict, init=False, repr=False)

    @property
    def task(self) -> Task:
        """The target's data, of a language model.

        Raises:
            ConfigError: If the model reads no text.
        """
        return text_task(self.any_task, "this part of the evidence")

    @property
    def names(self) -> tuple[str, ...]:
        """Phases that exist."""
        return (BEFORE, AFTER, GOLD) if self.gold is not None else (BEFORE, AFTER)

    @contextmanager
    def open(self, phase: str) -> Iterator[HookedModel]:
        """The model of ``phase`` inside the block.

        Raises:
            ConfigError: If there is no such phase.
        """
        check_phase(phase, self.names)
        if phase == GOLD and self.gold is not None:
            with without_deleted(self.any_task, self.gold):
                yield self.gold
        elif phase == AFTER:
            with swapped(self.model, self.edited), self._intervened():
                yield self.model
        else:
            yield self.model

    def once(self, phase: str, name: str, measure: Callable[[HookedModel], Measured]) -> Measured:
        """What ``measure`` gives on the model of ``phase``, kept in memory."""
        if (phase, name) not in self._kept:
            with self.open(phase) as model:
                self._kept[phase, name] = measure(model)
        return self._kept[phase, name]

    def _intervened(self) -> AbstractContextManager[object]:
        return nullcontext() if self.intervention is None else self.intervention.applied(self.model)


def check_phase(phase: str, names: tuple[str, ...]) -> None:
    """Refuse a phase that does not exist.

    Raises:
        ConfigError: With those that do.
    """
    if phase not in names:
        raise ConfigError(f"there is no phase {phase!r}{nearest(phase, names)}; this run has {', '.join(names)}")


@contextmanager
def swapped(model: HookedModel, tensors: Mapping[str, Tensor]) -> Iterator[HookedModel]:
    """``tensors`` in place of the model's own inside the block; afterwards the model is bit for bit as before."""
    own = model.tensors()
    kept = {name: own[name].detach().clone() for name in tensors}
    try:
        _fill(own, tensors)
        yield model
    finally:
        _fill(own, kept)


@torch.no_grad()
def _fill(own: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        own[name].copy_(value)
