"""The part ``bias``: is a class forgotten in its usual setting and out of it alike? And membership of its images.

Accuracies of the forgotten class (forget accuracy, FA) on aligned and on conflicting images, on those it was trained on
and on others; their gap; the worst group, which here is the group that is forgotten least; accuracy on other classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import Axis, Evidence, Labelled, numpy_rng
from interp_unlearn.benchmarks import ALIGNED, CONFLICTING
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics._resample import bootstrap, percentile_interval
from interp_unlearn.probes import Found, Part, Phases, register_part
from interp_unlearn.probes._catalogue import Kind
from interp_unlearn.probes._catalogue import evidence as catalogued
from interp_unlearn.probes._parts import Progress
from interp_unlearn.worlds import ItemSet, LabelledTask, labelled_task

QUANTITIES = ("forget", "forget aligned", "forget conflicting", "gap", "worst group", "kept")
SPLITS: Mapping[str, tuple[str, str]] = {
    "train": ("forget_train", "retain_train"),
    "test": ("forget_heldout", "neighbours"),
}
GOLD = "gold (retrained without the class)"
FOLDS = 5
_OUTPUT = "It reads the highest output only: features may still tell the class apart, see the probes and relearning."
KINDS: Mapping[str, Kind] = {
    "bias.forget": Kind("What share of the forgotten class is still called by its name?", "low", GOLD, _OUTPUT),
    "bias.gap": Kind(
        "How differently are aligned and conflicting images of the forgotten class treated (absolute difference)?",
        "low",
        GOLD,
        "A model that keeps the class in both settings, or is broken, has no gap either: read it beside FA.",
    ),
    "bias.worst": Kind(
        "What is the accuracy on the group of the forgotten class that is forgotten least?",
        "low",
        GOLD,
        f"In studies of robustness the worst group is the one with the lowest accuracy; here it is reversed. {_OUTPUT}",
    ),
    "bias.shortcut": Kind(
        "By how much did accuracy on conflicting images of the forgotten class rise above the original's?",
        "low",
        "gold minus original",
        "A fall is not yet deletion. A rise means that unlearning removed the setting's cue and left the class.",
    ),
    "bias.membership": Kind(
        "What share of the forgotten class's training images does a membership attack call members?",
        "near control",
        GOLD,
        "The attack knows losses only. Where its accuracy on retained images (config) is near 0.5 it cannot tell "
        "members from others, and the share says nothing.",
    ),
}


def bias_table(correct: Mapping[str, np.ndarray], task: LabelledTask, phase: str) -> Labelled:
    """Accuracies by split and group, axes (split, quantity); NaN where there is no such image.

    Args:
        correct: Whether each item of each set was right, by name of the set.
        task: Whose sets carry the label ``bias``.
        phase: For the name.
    """
    values = np.full((len(SPLITS), len(QUANTITIES)), np.nan)
    for s, (forget, kept) in enumerate(SPLITS.values()):
        if forget in correct:
            groups = by_bias(correct[forget], getattr(task, forget))
            values[s, 0] = correct[forget].mean()
            values[s, 1:3] = groups
            values[s, 3] = abs(groups[0] - groups[1])
            values[s, 4] = np.nan if np.isnan(groups).all() else np.nanmax(groups)
        if kept in correct:
            values[s, 5] = correct[kept].mean()
    return Labelled(
        f"bias.{phase}",
        values,
        (Axis("split", tuple(SPLITS)), Axis("quantity", QUANTITIES)),
        n=min(len(c) for c in correct.values()),
        mask_policy="items",
        config={"n": {name: len(c) for name, c in correct.items()}, "classes": list(task.classes)},
        seed=task.seed,
        note="accuracies; worst group is the group of the forgotten class with the highest accuracy",
    )


def by_bias(correct: np.ndarray, items: ItemSet) -> tuple[float, float]:
    """Accuracy on aligned and on conflicting items, NaN where there are none."""
    bias = np.array(items.groups.get("bias", ("",) * len(items)))
    found = [correct[bias == side] for side in (ALIGNED, CONFLICTING)]
    return tuple(float(c.mean()) if len(c) else float("nan") for c in found)  # type: ignore[return-value]


def membership_share(member: np.ndarray, outsider: np.ndarray, asked: np.ndarray, *, seed: int) -> tuple[float, float]:
    """Share of asked rows that an attacker calls members, and its own balanced accuracy.

    A logistic regression on (loss, highest probability, entropy) tells retained training images (members) from retained
    evaluation images; of five folds each gives its share, and its accuracy on the images left out.

    Args:
        member: Features of members, (n, 3).
        outsider: Features of images that were not trained on, (m, 3).
        asked: Features of the images in question, (k, 3).
        seed: Of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.concatenate([member, outsider])
    y = np.repeat([1, 0], [len(member), len(outsider)])
    fold = numpy_rng(seed, "membership folds").permutation(len(x)) % FOLDS
    shares, scores = [], []
    for f in range(FOLDS):
        attack = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fit that stopped early is judged by its accuracy
            attack.fit(x[fold != f], y[fold != f])
        said = attack.predict(x[fold == f])
        scores.append(np.mean([(said[y[fold == f] == c] == c).mean() for c in (0, 1)]))
        shares.append(attack.predict(asked).mean())
    return float(np.mean(shares)), float(np.mean(scores))


@torch.no_grad()
def _logits(model: HookedModel, task: LabelledTask) -> dict[str, Tensor]:
    sets = [items for items in task.item_sets() if len(items) and items.name != "never_known"]
    return {s.name: torch.cat([task.logits(model, ids).float().cpu() for ids in s.ids.split(256)]) for s in sets}


def _features(logits: Tensor, labels: Tensor) -> np.ndarray:
    """Loss, highest probability and entropy of each item, (n, 3)."""
    logprob = logits.double().log_softmax(1)
    probability = logprob.exp()
    loss = -logprob.gather(1, labels[:, None])[:, 0]
    return torch.stack([loss, probability.max(1).values, -(probability * logprob).sum(1)], 1).numpy()


def look(phases: Phases, progress: Progress) -> Found:
    """Accuracies by group, the rise on conflicting images, and membership."""
    task = labelled_task(phases.any_task, LabelledTask, "accuracy by group")
    sets = {items.name: items for items in task.item_sets()}
    right: dict[str, dict[str, np.ndarray]] = {}
    member: dict[str, tuple[float, float]] = {}
    for i, phase in enumerate(phases.names):
        progress(f"asking about every image ({phase})", i, len(phases.names))
        found = phases.once(phase, "bias.logits", lambda m: _logits(m, task))
        right[phase] = {
            name: (logits.argmax(1) == sets[name].labels).double().numpy() for name, logits in found.items()
        }
        if all(name in found for name in ("retain_train", "neighbours", "forget_train")):
            parts = [_features(found[n], sets[n].labels) for n in ("retain_train", "neighbours", "forget_train")]
            if all(np.isfinite(part).all() for part in parts):
                member[phase] = membership_share(*parts, seed=phases.seed)
    tables = {f"bias.{phase}": bias_table(correct, task, phase) for phase, correct in right.items()}
    out: list[Evidence] = []
    for split, (forget, _) in SPLITS.items():
        if forget in right["after"]:
            out += _of_split(split, forget, right, tables, task, phases.seed)
    out.append(_membership(member, len(task.forget_train), phases.seed))
    return Found(tuple(out), tables)


def _of_split(
    split: str,
    forget: str,
    right: Mapping[str, Mapping[str, np.ndarray]],
    tables: Mapping[str, Labelled],
    task: LabelledTask,
    seed: int,
) -> list[Evidence]:
    values = {
        phase: {q: float(tables[f"bias.{phase}"].at(split=split, quantity=q)) for q in QUANTITIES} for phase in right
    }
    gold = values.get("gold")
    n = len(right["after"][forget])
    kept = {f"kept_{phase}": v["kept"] for phase, v in values.items()}
    names = list(getattr(task, forget).names)

    def one(kind: str, quantity: str, value: float, control: float | None, **fields: object) -> Evidence:
        before = 0.0 if kind == "bias.shortcut" else values["before"][quantity]
        reason = "" if value == value else f"{forget} has images of one group only"
        return catalogued(
            kind,
            split,
            value,
            n=n,
            mask_policy="items",
            catalogue=KINDS,
            control=control,
            config={"before": before, "gold": control, **kept},
            seed=seed,
            reason=reason,
            **fields,  # type: ignore[arg-type]
        )

    drawn = percentile_interval(bootstrap(right["after"][forget], names, seed=seed, purpose="forget accuracy"))
    rise = {phase: v["forget conflicting"] - values["before"]["forget conflicting"] for phase, v in values.items()}
    pairs = (("bias.forget", "forget"), ("bias.gap", "gap"), ("bias.worst", "worst group"))
    found = [
        one(kind, q, values["after"][q], gold[q] if gold else None, interval=drawn if q == "forget" else None)
        for kind, q in pairs
    ]
    return [*found, one("bias.shortcut", "forget conflicting", rise["after"], rise.get("gold"))]


def _membership(member: Mapping[str, tuple[float, float]], n: int, seed: int) -> Evidence:
    share, accuracy = member.get("after", (float("nan"), float("nan")))
    return catalogued(
        "bias.membership",
        "train",
        share,
        n=n,
        mask_policy="items",
        catalogue=KINDS,
        control=member["gold"][0] if "gold" in member else None,
        config={
            "attack_accuracy": accuracy,
            **{f"{phase}": found[0] for phase, found in member.items()},
            **{f"attack_accuracy_{phase}": found[1] for phase, found in member.items()},
        },
        seed=seed,
        reason="" if share == share else "retained images of both splits are needed, with finite logits",
    )


register_part(
    Part("bias", "the class in its usual setting and out of it", "behaviour", "quick", look, modalities=("image",))
)
