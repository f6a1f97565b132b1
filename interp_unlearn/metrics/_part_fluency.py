"""The part ``fluency``: is what the model writes about the target and about its neighbours still language?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import Axis, ConfigError, Evidence, Labelled
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics._evidence import evidence, mean_and_interval, missing
from interp_unlearn.metrics._fluency import ngram_entropy, repetition, text_words
from interp_unlearn.metrics._greedy import continue_greedily
from interp_unlearn.metrics._never_known import thin
from interp_unlearn.probes import Found, Part, Phases, register_part
from interp_unlearn.probes._parts import Progress
from interp_unlearn.worlds import Prompt, Task

QUANTITIES = ("entropy", "repetition", "words")


@dataclass(frozen=True)
class FluencyConfig:
    """How much is generated.

    Attributes:
        prompts: Questions about the target at most, and as many about neighbours.
        max_new_tokens: Tokens per generation.
    """

    prompts: int = 6
    max_new_tokens: int = 24

    def __post_init__(self) -> None:
        for name in ("prompts", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"fluency.{name} is {getattr(self, name)}; use at least 1")


def fluency(phases: Phases, progress: Progress, config: FluencyConfig | None = None) -> Found:
    """n-gram entropy and repetition of greedy generations: ``fluency.<quantity>/target`` and ``…/neighbours``.

    The control is the original model on the same prompts; ``config`` has gold's value too, and the mean length.
    """
    config = config or FluencyConfig()
    sets = _sets(phases.task, config, phases.seed)
    measured: dict[str, Mapping[str, Tensor]] = {}
    for i, phase in enumerate(phases.names):
        progress(f"generating text ({phase})", i, len(phases.names))
        key = f"fluency.{config.prompts}.{config.max_new_tokens}"
        measured[phase] = phases.once(phase, key, lambda m: _measure(m, sets, config))
    values = {p: {s: t.double().numpy() for s, t in of_phase.items()} for p, of_phase in measured.items()}
    found = [
        _evidence(quantity, name, values, prompts, phases.seed, config)
        for name, prompts in sets.items()
        for quantity in ("entropy", "repetition")
    ]
    return Found(tuple(found), {"fluency": _table(values, phases.seed)})


def _sets(task: Task, config: FluencyConfig, seed: int) -> dict[str, tuple[Prompt, ...]]:
    target = task.forget_heldout.prompts or task.forget_train.prompts
    every = {"target": target, "neighbours": task.neighbours.prompts}
    return {
        name: tuple(prompts[i] for i in thin(len(prompts), config.prompts, seed, "fluency", name))
        for name, prompts in every.items()
        if prompts
    }


def _measure(model: HookedModel, sets: Mapping[str, tuple[Prompt, ...]], config: FluencyConfig) -> dict[str, Tensor]:
    texts = [p.text for prompts in sets.values() for p in prompts]
    written = continue_greedily(model, texts, config.max_new_tokens)
    return {
        name: torch.tensor(
            [[ngram_entropy(t), repetition(t), len(text_words(t))] for t in (written[p.text] for p in prompts)],
            dtype=torch.float64,
        )
        for name, prompts in sets.items()
    }


def _evidence(
    quantity: str,
    name: str,
    values: Mapping[str, Mapping[str, np.ndarray]],
    prompts: tuple[Prompt, ...],
    seed: int,
    config: FluencyConfig,
) -> Evidence:
    kind, k = f"fluency.{quantity}", QUANTITIES.index(quantity)
    after = values["after"][name][:, k]
    kept = ~np.isnan(after)
    settings = {"max_new_tokens": config.max_new_tokens}
    if not kept.any():
        why = "no generation of the edited model has 3 words"
        return missing(kind, name, why, mask_policy="-", config=settings, seed=seed)
    asked = [p for p, k in zip(prompts, kept, strict=True) if k]
    value, interval, unit = mean_and_interval(after[kept], asked, seed=seed, purpose=f"{kind}/{name}")
    means = {phase: _mean(of_phase[name][:, k]) for phase, of_phase in values.items()}
    return evidence(
        kind,
        name,
        value,
        n=len(asked),
        interval=interval,
        control=means["before"],
        mask_policy="-",
        config={
            "levels": means,
            "words": {phase: _mean(of_phase[name][:, 2]) for phase, of_phase in values.items()},
            **settings,
            **unit,
        },
        seed=seed,
    )


def _mean(values: np.ndarray) -> float | None:
    """Mean of the generations that have the quantity, None where none has."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _table(values: Mapping[str, Mapping[str, np.ndarray]], seed: int) -> Labelled:
    names = tuple(next(iter(values.values())))
    means = [[[_mean(of_phase[s][:, k]) for k in range(3)] for s in names] for of_phase in values.values()]
    return Labelled(
        "fluency",
        np.array(means, dtype=np.float64),
        (Axis("phase", tuple(values)), Axis("set", names), Axis("quantity", QUANTITIES)),
        n=min(len(v) for v in next(iter(values.values())).values()),
        mask_policy="-",
        seed=seed,
        note="entropy in bits, share of repeated word triples, and words, means over greedy generations",
    )


register_part(
    Part(
        "fluency",
        "n-gram entropy and repetition of greedy generations",
        "behaviour",
        "standard",
        fluency,
    )
)
