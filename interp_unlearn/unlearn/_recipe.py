"""`Recipe`: objective × gradient transforms × sampler × trainable parameters, and how to run them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from interp_unlearn._core import ConfigError, Registry, check_choice
from interp_unlearn.unlearn._fields import build, convert, plain, require
from interp_unlearn.unlearn._protocols import OBJECTIVES, SAMPLERS, TRANSFORMS
from interp_unlearn.unlearn._trainable import Trainable

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["constant", "linear"]


@dataclass(frozen=True)
class Stop:
    """Stop early when the smoothed value of one loss term falls below a level.

    Attributes:
        term: Name of a term that the objective logs, e.g. ``"toward"``.
        below: The level; None asks the objective for its own (for ``sae_guided``: the value of held-out unknown
            entities).
        smoothing: Weight of the past in the exponential mean, 0 ≤ smoothing < 1 (corrected for its start).
        min_steps: Never stop before so many steps.
    """

    term: str
    below: float | None = None
    smoothing: float = 0.8
    min_steps: int = 10

    def __post_init__(self) -> None:
        require(bool(self.term), "stop.term is empty; name a loss term such as 'toward'")
        require(
            0 <= self.smoothing < 1, f"stop.smoothing is {self.smoothing}; use a number from 0 up to, not including, 1"
        )
        require(self.min_steps >= 1, f"stop.min_steps is {self.min_steps}; use at least 1")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model forgets. `default_recipe` gives tuned values.

    Attributes:
        objective: Name of an objective.
        options: The objective's own options: its frozen dataclass, a mapping that is validated into it, or None for
            defaults.
        transforms: Gradient transforms in order, each ``{"name": …, **options}``; validated into ``(name, options)``
            pairs.
        sampler: Name of a sampler.
        sampler_options: The sampler's options, as for ``options``.
        trainable: Which parameters move.
        steps: Optimiser steps at most.
        optimizer: ``adamw``, or ``sgd`` (plain, no momentum), which keeps the direction that transforms chose.
        lr: Learning rate.
        weight_decay: Decoupled weight decay.
        betas: AdamW's decay rates of first and second moment.
        batch_size: Forget items per step.
        retain_batch_size: Retain items per step (ignored by objectives without retain data).
        clip: Largest global gradient norm; 0 switches clipping off.
        warmup: Steps of linear warm-up.
        schedule: Learning rate after warm-up: constant, or linear to zero at ``steps``.
        eval_every: Evaluate every so many steps (the caller evaluates, see `Unlearner.eval_due`); 0 never.
        stop: Early stopping, or None.
        seed: Decides draws, pairings and random vectors.
    """

    objective: str
    options: Any = None
    transforms: tuple[Any, ...] = ()
    sampler: str = "paired"
    sampler_options: Any = None
    trainable: Trainable = field(default_factory=Trainable)
    steps: int = 100
    optimizer: Optimizer = "adamw"
    lr: float = 1e-5
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    batch_size: int = 8
    retain_batch_size: int = 8
    clip: float = 1.0
    warmup: int = 0
    schedule: Schedule = "constant"
    eval_every: int = 0
    stop: Stop | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        objective = OBJECTIVES[self.objective]
        set_ = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        set_("options", _options(objective.Options, self.options, f"recipe.options (objective {self.objective!r})"))
        set_("transforms", tuple(_transform(t, i) for i, t in enumerate(self.transforms)))
        sampler = SAMPLERS[self.sampler]
        where = f"recipe.sampler_options (sampler {self.sampler!r})"
        set_("sampler_options", _options(sampler.Options, self.sampler_options, where))
        set_("trainable", convert(self.trainable, Trainable, "recipe.trainable"))
        set_("stop", None if self.stop is None else convert(self.stop, Stop, "recipe.stop"))
        check_choice("recipe.optimizer", self.optimizer, Optimizer)
        check_choice("recipe.schedule", self.schedule, Schedule)
        require(self.steps >= 1, f"recipe.steps is {self.steps}; use at least 1")
        require(0 < self.lr < math.inf, f"recipe.lr is {self.lr}; use a positive number such as 1e-5")
        require(self.weight_decay >= 0, f"recipe.weight_decay is {self.weight_decay}; use 0 or a positive number")
        require(all(0 <= b < 1 for b in self.betas), f"recipe.betas is {list(self.betas)}; both lie in 0 ≤ beta < 1")
        require(self.batch_size >= 1, f"recipe.batch_size is {self.batch_size}; use at least 1")
        require(self.retain_batch_size >= 1, f"recipe.retain_batch_size is {self.retain_batch_size}; use at least 1")
        require(self.clip >= 0, f"recipe.clip is {self.clip}; use a positive norm, or 0 for no clipping")
        require(self.warmup >= 0, f"recipe.warmup is {self.warmup}; use 0 or a number of steps")
        require(self.eval_every >= 0, f"recipe.eval_every is {self.eval_every}; use 0 (never) or a number of steps")

    def learning_rate(self, step: int) -> float:
        """Learning rate of step ``step`` (from 0)."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "linear":
            return self.lr * max(0.0, (self.steps - step) / max(1, self.steps - self.warmup))
        return self.lr

    def to_dict(self) -> dict[str, Any]:
        """A JSON- and TOML-ready dictionary that `from_dict` reads back (absent means None)."""
        out = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name not in ("transforms", "stop")}
        out["transforms"] = [{"name": name, **plain(options)} for name, options in self.transforms]
        if self.stop is not None:
            out["stop"] = plain(self.stop)
        return _without_none(out)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Read what `to_dict` wrote, or a table of a config file.

        Raises:
            ConfigError: Naming the field and the fix; unknown fields show the nearest.
        """
        return build(cls, data, "recipe")


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def _options(cls: type, given: Any, where: str) -> Any:
    if isinstance(given, cls):
        return given
    return build(cls, {} if given is None else given, where)


def _transform(given: Any, index: int) -> tuple[str, Any]:
    where = f"recipe.transforms[{index}]"
    registry: Registry[Any] = TRANSFORMS
    if isinstance(given, tuple) and len(given) == 2:
        name, options = given
        return name, _options(registry[name].Options, options, where)
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise ConfigError(
            f"{where} is {given!r}; write a table with a name, e.g. {{name = 'clip_by_module', norm = 1.0}}"
        )
    options = {k: v for k, v in given.items() if k != "name"}
    return given["name"], _options(registry[given["name"]].Options, options, f"{where} ({given['name']})")
