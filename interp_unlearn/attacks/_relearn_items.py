"""Relearning on graphs and images: a part of the target is taught again, and the rest of it is tested."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from interp_unlearn._core import (
    Axis,
    ConfigError,
    DataError,
    Labelled,
    TrainingDivergedError,
    adamw,
    generator,
    numpy_rng,
)
from interp_unlearn.attacks._curve import METRICS
from interp_unlearn.attacks._guard import select_weights, weights_kept
from interp_unlearn.attacks._protocol import Progress
from interp_unlearn.hooked import HookedModel
from interp_unlearn.worlds import ItemSet, LabelledTask


@dataclass(frozen=True)
class ItemRelearnConfig:
    """How to relearn labelled items. Every model, and the control, gets the same numbers, steps and optimiser.

    Attributes:
        steps: Optimiser steps.
        eval_every: Steps between evaluations; step 0 and the last one are always evaluated.
        learning_rate: Of AdamW (constant).
        batch_size: Items per step; if there are fewer, every step sees all of them.
        share: Share of the target's items that is taught; the rest is tested without ever being taught.
        max_items: At most so many items are tested, drawn by seed.
        trainable: ``"all"``, or a regular expression searched in parameter names.
        seed: Decides what is taught, what is tested, and batches.
    """

    steps: int = 20
    eval_every: int = 2
    learning_rate: float = 1e-3
    batch_size: int = 64
    share: float = 0.5
    max_items: int = 256
    trainable: str = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "eval_every", "batch_size", "max_items"):
            if getattr(self, name) < 1:
                raise ConfigError(f"relearn.{name} is {getattr(self, name)}; it must be at least 1")
        if not self.learning_rate > 0:
            raise ConfigError(f"relearn.learning_rate is {self.learning_rate}; use a positive number")
        if not 0 < self.share < 1:
            raise ConfigError(f"relearn.share is {self.share}; it is a share of the items, above 0 and below 1")


def relearn_items(
    model: HookedModel,
    task: LabelledTask,
    config: ItemRelearnConfig | None = None,
    *,
    items: ItemSet | None = None,
    who: str = "target",
    progress: Progress | None = None,
) -> Labelled:
    """Teach a part of a set of items their classes again, and test the others on the way.

    Afterwards the weights are bit for bit what they were, also after an error or Ctrl-C.

    Args:
        model: The model to attack.
        task: How to ask it.
        config: Settings; default `ItemRelearnConfig()`.
        items: What is taught and tested; default ``task.forget_train``. For the control, ``task.never_known``.
        who: ``"target"`` or ``"never known"``, for the table's name.
        progress: Told what is going on.

    Returns:
        Accuracy on the untaught items, axis (step), in the form that `relearn_evidence` reads.

    Raises:
        DataError: If there are fewer than four items.
        TrainingDivergedError: If the loss becomes NaN or infinite.
    """
    config = config or ItemRelearnConfig()
    items = task.forget_train if items is None else items
    if len(items) < 4:
        raise DataError(
            f"relearning needs at least four items of {items.name!r} to teach some and test others; "
            f"there are {len(items)}"
        )
    order = numpy_rng(config.seed, "relearned items", items.name).permutation(len(items))
    n = min(max(2, round(config.share * len(items))), len(items) - 2)
    taught, tested = items.take(order[:n].tolist()), items.take(order[n : n + config.max_items].tolist())
    weights = select_weights(model, config.trainable)
    steps: list[int] = []
    scores: list[np.ndarray] = []
    with weights_kept(model, weights):

        def test(step: int) -> None:
            steps.append(step)
            scores.append(_scores(model, task, tested))
            if progress is not None:
                progress(f"relearning ({who})", step, config.steps)

        _teach(model, task, taught, weights, config, test)
    values = np.stack(scores)
    facts: dict[str, Any] = {
        "world": task.world,
        "model": model.name,
        "relearn": dataclasses.asdict(config),
        "n_relearned": n,
        "learning_rate": config.learning_rate,
        "trained": {"tensors": len(weights), "weights": sum(p.numel() for p in weights.values())},
        "who": who,
        "set": "rest",
        "metric": "exact",
        "facts": [[name, task.classes[int(c)]] for name, c in zip(tested.names, tested.labels, strict=True)],
        "templates": [task.modality] * len(tested),
        "by_prompt": {m: values[:, :, k].tolist() for k, m in enumerate(METRICS)},
    }
    return Labelled(
        f"relearning accuracy, {who}",
        values[:, :, METRICS.index("exact")].mean(1),
        (Axis("step", tuple(str(s) for s in steps)),),
        n=len(tested),
        mask_policy="items",
        config=facts,
        seed=config.seed,
        note="share of untaught items whose class has the highest logit; config['by_prompt'] has (step, item) scores",
    )


def _teach(
    model: HookedModel,
    task: LabelledTask,
    taught: ItemSet,
    weights: dict[str, nn.Parameter],
    config: ItemRelearnConfig,
    test: Callable[[int], None],
) -> None:
    """Cross-entropy on the taught items for the step budget, in evaluation mode, asking on the way."""
    optimiser = adamw(weights.values(), lr=config.learning_rate, weight_decay=0.0)
    random = generator(config.seed, "relearn batches", taught.name)
    for step in range(config.steps + 1):
        if step % config.eval_every == 0 or step == config.steps:
            test(step)
        if step == config.steps:
            return
        chosen = torch.randperm(len(taught), generator=random)[: config.batch_size]
        logits = task.logits(model, taught.ids[chosen])
        loss = nn.functional.cross_entropy(logits.float(), taught.labels[chosen].to(logits.device))
        if not bool(torch.isfinite(loss)):
            raise TrainingDivergedError(
                f"relearning diverged at step {step} (loss {loss.item()}); the weights were put back: "
                f"lower relearn.learning_rate (now {config.learning_rate:g})"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


@torch.no_grad()
def _scores(model: HookedModel, task: LabelledTask, items: ItemSet) -> np.ndarray:
    """Probability of the true class and whether it is the highest, of each item, (item, metric)."""
    logits = torch.cat([task.logits(model, ids) for ids in items.ids.split(256)]).double().cpu()
    probability = logits.softmax(-1)[torch.arange(len(items)), items.labels]
    right = (logits.argmax(-1) == items.labels).double()
    return torch.stack([probability, right], 1).numpy()
