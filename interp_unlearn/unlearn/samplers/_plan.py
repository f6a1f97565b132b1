"""How often each item is used: what has to be equal before two samplers can be compared.

Epochs of different samplers differ in length by |R| / |F| and more, so comparing them at equal epochs compares numbers
of updates. Here strategies are put side by side at equal updates and equal forget exposures, and what still differs
(how often which retain item is seen) is stated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from interp_unlearn._core import ConfigError
from interp_unlearn.unlearn._protocols import SAMPLERS, Pools, Sampler
from interp_unlearn.unlearn._recipe import Recipe


@dataclass(frozen=True)
class Exposure:
    """What a recipe draws in all its steps.

    Attributes:
        sampler: Name of the sampler.
        updates: Optimiser steps.
        epoch_length: Forget items drawn in one of the sampler's epochs.
        epochs: Epochs that the updates make.
        forget: Forget items drawn in total.
        forget_least: Draws of the forget item that is drawn least.
        forget_most: Draws of the one that is drawn most.
        retain: Retain items drawn in total.
        retain_distinct: How many different ones.
    """

    sampler: str
    updates: int
    epoch_length: int
    epochs: float
    forget: int
    forget_least: int
    forget_most: int
    retain: int
    retain_distinct: int


def _made(recipe: Recipe, pools: Pools) -> Sampler:
    sampler = SAMPLERS[recipe.sampler](recipe.sampler_options)
    sampler.prepare(pools, batch_size=recipe.batch_size, retain_batch_size=recipe.retain_batch_size, seed=recipe.seed)
    return sampler


def exposure(recipe: Recipe, pools: Pools) -> Exposure:
    """Count what ``recipe`` draws from ``pools`` (`Unlearner.pools`); nothing is trained."""
    sampler = _made(recipe, pools)
    forget, retain = Counter[int](), Counter[int]()
    for step in range(recipe.steps):
        draw = sampler.draw(step)
        forget.update(draw.forget)
        retain.update(draw.retain)
    counts = [forget[i] for i in range(len(pools.forget))]
    return Exposure(
        recipe.sampler,
        recipe.steps,
        sampler.epoch_length,
        forget.total() / sampler.epoch_length,
        forget.total(),
        min(counts),
        max(counts),
        retain.total(),
        len(retain),
    )


def steps_of_epochs(recipe: Recipe, pools: Pools, epochs: int | float) -> int:
    """Updates that make so many epochs of the recipe's sampler, rounded up (the published comparison: 4 epochs)."""
    sampler = _made(recipe, pools)
    return max(1, math.ceil(epochs * sampler.epoch_length / len(sampler.draw(0).forget)))


def equal_updates(
    recipe: Recipe, pools: Pools, samplers: Sequence[str | Mapping[str, Any]]
) -> list[tuple[Recipe, Exposure]]:
    """One recipe per sampler, with the same number of updates and of forget exposures.

    Args:
        recipe: Everything but the sampler; both batch sizes are brought down to the size of the forget set, so that
            no sampler draws larger batches than another.
        pools: `Unlearner.pools` of the task.
        samplers: Names, or tables ``{"name": …, **options}``.

    Raises:
        ConfigError: If a sampler draws another number of forget items all the same, or is unknown.
        DataError: If the retain set lacks what a sampler needs.
    """
    size = min(recipe.batch_size, len(pools.forget))
    width = size if pools.retain else recipe.retain_batch_size
    plans = []
    for given in samplers:
        table = {"name": given} if isinstance(given, str) else dict(given)
        if not isinstance(table.get("name"), str):
            raise ConfigError(f"sampler {given!r} has no name; write {{name = 'modular', batches = 'entity'}}")
        name = table.pop("name")
        own = replace(recipe, sampler=name, sampler_options=table, batch_size=size, retain_batch_size=width)
        plans.append((own, exposure(own, pools)))
    if len({plan.forget for _, plan in plans}) > 1:
        counts = ", ".join(f"{plan.sampler} {plan.forget}" for _, plan in plans)
        raise ConfigError(f"these samplers draw different numbers of forget items ({counts}); lower recipe.batch_size")
    return plans
