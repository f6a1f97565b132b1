"""What a graph model says of what was deleted, of what stays, and of what it never saw.

For links: AUC_t, AUC_d and average precision as GNNDelete defines them; membership by the score itself. For nodes:
accuracy, and the same comparisons of the probability of the true class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import Axis, Evidence, Labelled, generator
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics._resample import bootstrap, percentile_interval
from interp_unlearn.probes import Found, Part, Phases, register_part
from interp_unlearn.probes._catalogue import Kind, missing
from interp_unlearn.probes._catalogue import evidence as catalogued
from interp_unlearn.probes._parts import Progress
from interp_unlearn.worlds import EdgeTask, GraphTask, NodeTask, labelled_task
from interp_unlearn.worlds._labelled import LabelledTask

DRAWS = 500
"""Draws of retained edges beside the deleted ones; the same ones for every model."""
SETS = ("deleted", "retained", "near", "held out", "test", "absent")
GOLD = "gold (original where there is no gold)"

KINDS: Mapping[str, Kind] = {
    "graph.utility": Kind(
        "How well does the model do on test items (links: AUC_t, nodes: accuracy)?",
        "near control",
        GOLD,
        "It says what is kept, nothing of what is forgotten. A change below the interval's width is noise.",
    ),
    "graph.precision": Kind(
        "How well does the model rank test edges above test non-edges (average precision)?",
        "near control",
        GOLD,
        "As AUC_t; it weighs the top of the ranking more.",
    ),
    "graph.deleted_auc": Kind(
        "Does the model score what was deleted below what was retained (AUC_d; 0.5: alike, 1: always below)?",
        "near control",
        GOLD,
        "Higher is not better: a retrained model still believes in deleted edges that are true, so a value above "
        "gold's is over-forgetting, and any model that scores the deleted low has a high one.",
    ),
    "graph.membership": Kind(
        "Do scores tell what was deleted from true items that were never trained on (1), or not (0.5)?",
        "near control",
        GOLD,
        "One attack, by the score alone. Below 0.5 the deleted items stick out as too unlikely, which betrays them.",
    ),
    "graph.mi_ratio": Kind(
        "By what factor did the mean score of the deleted items fall (before divided by after)?",
        "near control",
        GOLD,
        "Direction as in GNNDelete's paper, before / after; its code prints after / before. A factor above gold's is "
        "over-forgetting.",
    ),
    "graph.consistency": Kind(
        "How far are the scores of deleted items from gold's (mean absolute difference of probabilities)?",
        "low",
        "the original's distance from gold",
        "Equal scores can come from other weights and other embeddings.",
    ),
    "graph.integrity": Kind(
        "How far are the scores of test items from gold's (mean absolute difference of probabilities)?",
        "low",
        "the original's distance from gold",
        "As graph.consistency.",
    ),
}


@dataclass(frozen=True, eq=False)
class GraphScores:
    """Scores of the true class, between 0 and 1, by set.

    Attributes:
        sets: Set (see `SETS`) to scores, (n,); "held out" is like what was deleted and was never trained on, "test"
            what is tested where that is something else (of a deleted class: the other classes), "absent" holds scores
            of an edge for pairs that are none.
        correct: Of nodes, whether each test node is classified rightly; None for links.
    """

    sets: Mapping[str, np.ndarray]
    correct: Float[np.ndarray, " tested"] | None = None

    @property
    def tested(self) -> np.ndarray:
        """Scores of the items that are tested."""
        return self.sets.get("test", self.sets["held out"])

    def utility(self) -> float:
        """AUC_t of links, accuracy of nodes; NaN without test items."""
        if self.correct is not None:
            return float(self.correct.mean()) if len(self.correct) else math.nan
        return auc(self.sets["held out"], self.sets["absent"])

    def precision(self) -> float:
        """Average precision of test edges against test non-edges; NaN for nodes."""
        if self.correct is not None:
            return math.nan
        from sklearn.metrics import average_precision_score

        scores = np.concatenate([self.sets["held out"], self.sets["absent"]])
        labels = np.r_[np.ones(len(self.sets["held out"])), np.zeros(len(self.sets["absent"]))]
        return float(average_precision_score(labels, scores))

    def deleted_auc(self, seed: int, draws: int = DRAWS) -> float:
        """AUC of retained (1) against deleted (0) items, mean over draws of as many retained ones."""
        deleted, retained = self.sets["deleted"], self.sets["retained"]
        random = generator(seed, "AUC_d", len(deleted), len(retained))
        size = min(len(deleted), len(retained))
        chosen = torch.stack([torch.randperm(len(retained), generator=random)[:size] for _ in range(draws)]).numpy()
        rank = _ranks_among(retained, deleted)  # P(retained > deleted) of each retained item: an AUC is their mean
        return float(rank[chosen].mean())

    def membership(self) -> float:
        """AUC of deleted items (1) against true items that were never trained on (0)."""
        return auc(self.sets["deleted"], self.sets["held out"])


def _ranks_among(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """For each of ``one``, the share of ``other`` that lies below it, ties counting half."""
    other = np.sort(other)
    return (np.searchsorted(other, one, "left") + np.searchsorted(other, one, "right")) / (2 * max(len(other), 1))


def auc(positive: Float[np.ndarray, " n"], negative: Float[np.ndarray, " m"]) -> float:
    """Probability that a positive scores above a negative, ties counting half; NaN where one is missing."""
    if not len(positive) or not len(negative):
        return math.nan
    return float(_ranks_among(positive, negative).mean())


def graph_scores(model: HookedModel, task: GraphTask) -> GraphScores:
    """Ask the model as it is now, in one pass over the graph."""
    return unpack(measure(model, task))


@torch.no_grad()
def measure(model: HookedModel, task: LabelledTask) -> dict[str, Tensor]:
    """`GraphScores` as tensors."""
    task = labelled_task(task, GraphTask, "scores of a deletion")
    output = task.output(model)
    if isinstance(task, EdgeTask):
        found = {
            "deleted": task.deleted_edges,
            "retained": task.retained,
            "near": task.near,
            "held out": task.split.test,
            "absent": task.split.test_negative,
        }
        return {name: task.read(output, edges.T).softmax(-1)[:, 1].double().cpu() for name, edges in found.items()}
    task = labelled_task(task, NodeTask, "scores of deleted nodes")
    held = task.neighbours.ids if task.deletion.kind == "node" else task.forget_heldout.ids
    labels, test = task.graph.labels, task.neighbours.ids
    nodes = {"deleted": task.deleted_nodes, "retained": task.retained, "held out": held}
    nodes |= {"test": test} if task.deletion.kind == "class" else {}
    sets = {
        name: task.read(output, ids).softmax(-1)[torch.arange(len(ids)), labels[ids]].double().cpu()
        for name, ids in nodes.items()
    }
    return {**sets, "correct": (task.read(output, test).argmax(-1) == labels[test]).double().cpu()}


def unpack(tensors: Mapping[str, Tensor]) -> GraphScores:
    """What `measure` gave."""
    arrays = {name: t.numpy() for name, t in tensors.items()}
    return GraphScores({name: arrays[name] for name in SETS if name in arrays}, arrays.get("correct"))


def graph_evidence(phases: Phases, progress: Progress) -> Found:
    """All of `KINDS`, each beside gold and the original; a table of mean scores by set."""
    task = labelled_task(phases.any_task, GraphTask, "scores of a deletion")
    scores: dict[str, GraphScores] = {}
    for i, phase in enumerate(phases.names):
        progress(f"scores of {phase}", i, len(phases.names))
        scores[phase] = unpack(phases.once(phase, "graph_scores", lambda m: measure(m, task)))  # type: ignore[arg-type]
    seed, after = phases.seed, scores["after"]
    where = "nodes" if after.correct is not None else "edges"
    deleted, before = after.sets["deleted"], scores["before"].sets["deleted"]
    test = after.correct if after.correct is not None else after.tested
    found = [
        _evidence(
            "graph.utility",
            {p: s.utility() for p, s in scores.items()},
            len(test),
            _test_interval(after, seed),
            seed,
            where,
        ),
        _evidence("graph.precision", {p: s.precision() for p, s in scores.items()}, len(test), None, seed, where),
        _evidence(
            "graph.deleted_auc", {p: s.deleted_auc(seed) for p, s in scores.items()}, len(deleted), None, seed, where
        ),
        _evidence(
            "graph.membership",
            {p: s.membership() for p, s in scores.items()},
            len(deleted),
            _member_interval(after, seed),
            seed,
            where,
        ),
        _evidence(
            "graph.mi_ratio",
            {p: float(before.mean() / max(s.sets["deleted"].mean(), 1e-12)) for p, s in scores.items()},
            len(deleted),
            None,
            seed,
            where,
        ),
    ]
    if "gold" in scores:
        for kind, tested in (("graph.consistency", False), ("graph.integrity", True)):
            each = {p: s.tested if tested else s.sets["deleted"] for p, s in scores.items()}
            gaps = {p: np.abs(values - each["gold"]) for p, values in each.items()}
            if not len(gaps["after"]):
                continue
            drawn = bootstrap(gaps["after"], [str(i) for i in range(len(gaps["after"]))], seed=seed, purpose=kind)
            values = {p: float(g.mean()) for p, g in gaps.items()}
            found.append(_evidence(kind, values, len(gaps["after"]), percentile_interval(drawn), seed, where, "before"))
    empty = {"graph.membership": task.forget_heldout.why_empty, "graph.utility": task.neighbours.why_empty}
    there = {e.name.partition("/")[0] for e in found if e is not None}
    for kind, why in empty.items():
        if kind not in there and why:
            found.append(missing(kind, where, why, catalogue=KINDS, mask_policy="items", seed=seed))
    return Found(tuple(e for e in found if e is not None), {"graph.scores": _table(scores, seed)})


def _evidence(
    kind: str,
    values: Mapping[str, float],
    n: int,
    interval: tuple[float, float] | None,
    seed: int,
    where: str,
    control: str = "gold",
) -> Evidence | None:
    """One evidence; None where it does not apply to the task at all."""
    if all(math.isnan(v) for v in values.values()):
        return None
    reason = "the model gives scores that are not finite" if math.isnan(values["after"]) else ""
    reference = values.get(control, values["before"])
    return catalogued(
        kind,
        where,
        values["after"],
        n=n,
        reason=reason,
        catalogue=KINDS,
        interval=None if interval is None or math.isnan(interval[0]) else interval,
        control=reference,
        mask_policy="items",
        config=dict(values),
        seed=seed,
    )


def _test_interval(scores: GraphScores, seed: int) -> tuple[float, float] | None:
    """Interval of the utility: test items drawn again, of links positives and negatives apart."""
    if scores.correct is not None:
        if not len(scores.correct):
            return None
        units = [str(i) for i in range(len(scores.correct))]
        return percentile_interval(bootstrap(scores.correct, units, seed=seed, purpose="accuracy"))
    return _auc_interval(scores.sets["held out"], scores.sets["absent"], seed, "AUC_t")


def _member_interval(scores: GraphScores, seed: int) -> tuple[float, float] | None:
    deleted, held = scores.sets["deleted"], scores.sets["held out"]
    return _auc_interval(deleted, held, seed, "membership") if len(deleted) and len(held) else None


def _auc_interval(
    positive: np.ndarray, negative: np.ndarray, seed: int, purpose: str, draws: int = 400
) -> tuple[float, float]:
    random = np.random.default_rng(int(generator(seed, purpose).initial_seed() % 2**32))
    found = np.array(
        [auc(random.choice(positive, len(positive)), random.choice(negative, len(negative))) for _ in range(draws)]
    )
    return percentile_interval(found)


def _table(scores: Mapping[str, GraphScores], seed: int) -> Labelled:
    names = [name for name in SETS if any(name in s.sets and len(s.sets[name]) for s in scores.values())]
    means = [[float(s.sets[n].mean()) if len(s.sets.get(n, ())) else math.nan for n in names] for s in scores.values()]
    counts = {n: len(next(iter(scores.values())).sets[n]) for n in names}
    return Labelled(
        "mean score by set",
        np.array(means),
        (Axis("phase", tuple(scores)), Axis("set", tuple(names))),
        n=min(counts.values()),
        mask_policy="items",
        config={"n": counts},
        seed=seed,
        note="mean probability of the true class (of an edge: of being present)",
    )


register_part(
    Part(
        "graph_scores",
        "scores of deleted, retained and held-out edges or nodes beside gold's",
        "behaviour",
        "quick",
        graph_evidence,
        modalities=("graph",),
    )
)
