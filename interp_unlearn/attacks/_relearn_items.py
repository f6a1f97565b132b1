"""Relearning on graphs and images: a part of the target is taught again, and the rest of it is tested.

Taught the target alone, every model soon says the target's class of everything. So each batch holds as many
*bystanders* (retained items of other classes, with their own classes) as items of the target, and what counts is how
much more often an item of the target is called its class than a bystander is.
"""

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
        bystanders: Retained items of other classes taught beside each item of the target, with their own classes; with
            0, a model learns to say the same of everything.
        max_items: At most so many items are tested, drawn by seed, and as many bystanders.
        trainable: ``"all"``, or a regular expression searched in parameter names.
        seed: Decides what is taught, what is tested, and batches.
    """

    steps: int = 20
    eval_every: int = 2
    learning_rate: float = 1e-3
    batch_size: int = 64
    share: float = 0.5
    bystanders: int = 1
    max_items: int = 256
    trainable: str = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "eval_every", "batch_size", "max_items"):
            if getattr(self, name) < 1:
                raise ConfigError(f"relearn.{name} is {getattr(self, name)}; it must be at least 1")
        if self.bystanders < 0:
            raise ConfigError(f"relearn.bystanders is {self.bystanders}; use 0 or more, 1 for as many as of the target")
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
    """Teach a part of a set of items their classes again, beside bystanders, and test the others on the way.

    A tested item's score is its recall minus the share of untaught bystanders that are called its class too (with
    probabilities alike): a model that says yes to everything scores 0.

    Afterwards the weights are bit for bit what they were, also after an error or Ctrl-C.

    Args:
        model: The model to attack.
        task: How to ask it.
        config: Settings; default `ItemRelearnConfig()`.
        items: What is taught and tested; default ``task.forget_train``. For the control, ``task.never_known``.
        who: ``"target"`` or ``"never known"``, for the table's name.
        progress: Told what is going on.

    Returns:
        Scores of the untaught items, axis (step), in the form that `relearn_evidence` reads. ``config["recall"]`` has
        their recall as it is, ``config["bystanders"]`` how often bystanders are called by each tested class.

    Raises:
        DataError: If there are fewer than four items, or no bystander.
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
    beside, asked = _bystanders(task, items, config)
    weights = select_weights(model, config.trainable)
    steps: list[int] = []
    scores: list[np.ndarray] = []
    called: list[np.ndarray] = []
    with weights_kept(model, weights):

        def test(step: int) -> None:
            steps.append(step)
            scores.append(_scores(model, task, tested))
            called.append(_called(model, task, asked))
            if progress is not None:
                progress(f"relearning ({who})", step, config.steps)

        _teach(model, task, taught, beside, weights, config, test)
    recall, wrong = np.stack(scores), np.stack(called)
    values = recall - wrong[:, tested.labels.numpy()]
    of = sorted(set(tested.labels.tolist()))
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
        "recall": {m: recall[:, :, k].mean(1).tolist() for k, m in enumerate(METRICS)},
        "bystanders": {
            "set": asked.name,
            "n": len(asked),
            **{m: {task.classes[c]: wrong[:, c, k].tolist() for c in of} for k, m in enumerate(METRICS)},
        },
    }
    return Labelled(
        f"relearning recall above bystanders, {who}",
        values[:, :, METRICS.index("exact")].mean(1),
        (Axis("step", tuple(str(s) for s in steps)),),
        n=len(tested),
        mask_policy="items",
        config=facts,
        seed=config.seed,
        note="share of untaught items called their class, minus the share of bystanders called it too; "
        "config['recall'] and config['bystanders'] have both apart, config['by_prompt'] (step, item) differences",
    )


def _bystanders(task: LabelledTask, items: ItemSet, config: ItemRelearnConfig) -> tuple[ItemSet, ItemSet]:
    """What is taught beside the items, and what is tested beside them: of other classes, where the items have one."""
    found = []
    for pool in (task.retain_train, task.neighbours):
        which = (pool.labels != items.labels[0]) if len(items.labels.unique()) == 1 else torch.ones(len(pool)).bool()
        found.append(pool.take(which.nonzero()[:, 0]))
    taught, asked = found
    if not len(taught):
        raise DataError(
            f"{task.world} keeps no item of another class than {items.name!r}, so relearning could not tell the target "
            "from everything else; keep items of two classes"
        )
    asked = asked if len(asked) else taught
    order = numpy_rng(config.seed, "relearned bystanders", asked.name).permutation(len(asked))
    return taught, asked.take(order[: config.max_items].tolist())


def _teach(
    model: HookedModel,
    task: LabelledTask,
    taught: ItemSet,
    beside: ItemSet,
    weights: dict[str, nn.Parameter],
    config: ItemRelearnConfig,
    test: Callable[[int], None],
) -> None:
    """Cross-entropy on the taught items and bystanders for the step budget, in evaluation mode, asking on the way."""
    optimiser = adamw(weights.values(), lr=config.learning_rate, weight_decay=0.0)
    random = generator(config.seed, "relearn batches", taught.name)
    for step in range(config.steps + 1):
        if step % config.eval_every == 0 or step == config.steps:
            test(step)
        if step == config.steps:
            return
        chosen = torch.randperm(len(taught), generator=random)[: config.batch_size]
        others = torch.randperm(len(beside), generator=random)[: config.bystanders * len(chosen)]
        labels = torch.cat([taught.labels[chosen], beside.labels[others]])
        logits = task.logits(model, torch.cat([taught.ids[chosen], beside.ids[others]]))
        loss = nn.functional.cross_entropy(logits.float(), labels.to(logits.device))
        if not bool(torch.isfinite(loss)):
            raise TrainingDivergedError(
                f"relearning diverged at step {step} (loss {loss.item()}); the weights were put back: "
                f"lower relearn.learning_rate (now {config.learning_rate:g})"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


@torch.no_grad()
def _logits(model: HookedModel, task: LabelledTask, items: ItemSet) -> torch.Tensor:
    """(item, class)."""
    return torch.cat([task.logits(model, ids) for ids in items.ids.split(256)]).double().cpu()


def _scores(model: HookedModel, task: LabelledTask, items: ItemSet) -> np.ndarray:
    """Probability of the true class and whether it is the highest, of each item, (item, metric)."""
    logits = _logits(model, task, items)
    probability = logits.softmax(-1)[torch.arange(len(items)), items.labels]
    right = (logits.argmax(-1) == items.labels).double()
    return torch.stack([probability, right], 1).numpy()


def _called(model: HookedModel, task: LabelledTask, items: ItemSet) -> np.ndarray:
    """Mean probability of each class, and how often it is the highest, over items of other classes, (class, metric)."""
    logits = _logits(model, task, items)
    highest = nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).double()
    other = items.labels[:, None] != torch.arange(logits.shape[-1])
    said = torch.stack([logits.softmax(-1), highest], 2) * other[:, :, None]
    return (said.sum(0) / other.sum(0).clamp(min=1)[:, None]).numpy()
