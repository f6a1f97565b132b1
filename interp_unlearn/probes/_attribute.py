"""Linear probes for the answer itself: does a readout made on other entities still find the target's answers?

The readout of the original model is fitted on known entities there and applied to the edited model. One that is fitted
on the edited model's entities and applied to its target is an attack, and belongs to those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import DataError, Evidence, numpy_rng
from interp_unlearn.hooked import Activations
from interp_unlearn.probes._attribute_evidence import Site, attribute_evidence, missing_attribute
from interp_unlearn.probes._readout import PENALTY, Folds, Readout, centred, fit_readout, place, shuffled_answers
from interp_unlearn.probes._rows import Rows, check_pair, rows_of, why_missing

Scoring = Literal["answer", "class"]
MIN_KNOWN = 8  # known entities needed
MIN_CLASS = 3  # known entities needed of a class
GROUPS_READ = ("target", "known_ref", "known_eval", "unknown_eval")


@dataclass(frozen=True)
class _Design:
    """What is the same at every site: rows, folds, candidates.

    Attributes:
        rows: Labels (its features are not used).
        relation: Relation of each row.
        answer: Index into ``answers``; -1 for none.
        control: The same for the control task.
        known: Rows that readouts are fitted on.
        target: Indices of the target's rows.
        same: For each target row and unknown entity, the row that asks the same; -1 for none.
        folds: Of all rows.
        blocks: Answers that share a readout.
        gold_blocks: The same with the vectors of the gold model's own head.
    """

    rows: Rows
    relation: np.ndarray
    answer: np.ndarray
    control: np.ndarray
    known: np.ndarray
    target: np.ndarray
    same: np.ndarray
    folds: Folds
    blocks: Sequence[_Block]
    gold_blocks: Sequence[_Block]


@dataclass(frozen=True)
class _Block:
    """Answers that share one readout, and the rows that ask for them.

    Attributes:
        here: Rows of its relations.
        vectors: What the readout predicts, (answer, k).
        eligible: Which answers are candidates.
        alike: Answers that the vectors do not tell apart, (answer, answer).
        relation_of: Relation of each answer.
        basis: From the vectors' own space to coordinates, (d, k); None for classes.
    """

    here: np.ndarray
    vectors: Float[np.ndarray, "a k"]
    eligible: np.ndarray
    alike: np.ndarray
    relation_of: np.ndarray
    basis: np.ndarray | None

    def wrong(self, right: np.ndarray) -> np.ndarray:
        """Candidates that are wrong for each given right answer, (row, answer)."""
        return (self.relation_of[right][:, None] == self.relation_of[None]) & self.eligible[None] & ~self.alike[right]


def attribute_probe(
    before: Activations,
    after: Activations,
    sites: Sequence[str] | None = None,
    *,
    vectors: Mapping[str, Tensor] | None = None,
    scoring: Scoring = "answer",
    gold: Activations | None = None,
    gold_vectors: Mapping[str, Tensor] | None = None,
    where: str = "prompt",
    penalty: float = PENALTY,
    seed: int = 0,
) -> list[Evidence]:
    """Fit a readout of the answer on the original model's known entities; read the target in the edited model with it.

    Each template's mean over known entities of the same model is removed first. No entity and no template is on both
    sides: readouts are tested on templates (and, for known entities, on entities) they were not fitted on.

    Args:
        before: Rows of the original model with labels ``group``, ``entity``, ``template``, ``answer`` and perhaps
            ``relation``, see `answer_activations`.
        after: The same rows in the edited model.
        sites: Sites in order of depth; default all captured ones.
        vectors: A vector per answer, see `answer_vectors`; needed for ``scoring="answer"``.
        scoring: ``"answer"`` predicts the answer's vector and ranks the relation's answers by it: works where every
            entity has an answer of its own. ``"class"`` is a classifier of the answers that at least 3 known entities
            have.
        gold: The same rows in a model that never knew the target, read by readouts of its own.
        gold_vectors: A vector per answer of that model's own head; default ``vectors``.
        where: Last part of the evidence names.
        penalty: Ridge penalty, see `fit_readout`.
        seed: Seed of folds, control task and intervals.

    Returns:
        ``attribute.selectivity``, ``attribute.best``, ``attribute.mean`` and ``attribute.bystanders``; their values are
        places (the share of wrong answers that the right one outranks; 1/2 by chance). Details of the first:
        ``layers``, axes (site, reading, statistic).

    Raises:
        DataError: If a label is missing, or vectors are.
    """
    sites = list(sites or before.sites)
    policy = before.mask_policy
    reason = ""
    for site in sites:
        check_pair(before, after, site)
        phases = {"before": rows_of(before, site), "after": rows_of(after, site)}
        if gold is not None:
            phases["gold"] = rows_of(gold, site)
        reason = reason or why_missing(phases, GROUPS_READ)
    if not reason:
        reason = _too_few(rows_of(before, sites[0]))
    if reason:
        return missing_attribute(where, reason, policy)
    design = _design(before, sites[0], vectors, gold_vectors or vectors, scoring, seed)
    if isinstance(design, str):
        return missing_attribute(where, design, policy)
    if not any(block.wrong(design.answer[design.target]).any() for block in design.blocks):
        return missing_attribute(
            where, "every known entity has the target's answer, so there is nothing to rank", policy
        )
    read: dict[str, Site] = {}
    for site in sites:
        x = {"before": before, "after": after} | ({} if gold is None else {"gold": gold})
        read[site] = _read(
            design,
            {p: centred(rows_of(a, site).x, design.rows.template, design.known) for p, a in x.items()},
            penalty,
        )
    facts = {
        "scoring": scoring,
        "penalty": penalty,
        "known_entities": len(np.unique(design.rows.entity[design.known])),
        "candidates": float(
            np.mean([(b.wrong(design.answer[design.known & b.here]).sum(1) + 1).mean() for b in design.blocks])
        ),
    }
    target, known = design.rows.where(design.target), design.rows.where(np.flatnonzero(design.known))
    return attribute_evidence(where, read, target, known, design.relation[design.target], facts, seed)


def _too_few(rows: Rows) -> str:
    count = len(np.unique(rows.of("known_ref", "known_eval").entity))
    if count < MIN_KNOWN:
        return f"{count} known entities; at least {MIN_KNOWN} are needed to fit a readout and test it on others"
    return ""


def _design(
    acts: Activations,
    site: str,
    vectors: Mapping[str, Tensor] | None,
    gold_vectors: Mapping[str, Tensor] | None,
    scoring: Scoring,
    seed: int,
) -> _Design | str:
    """The design, or the reason why there can be none."""
    if "answer" not in acts.labels:
        raise DataError("the activations carry no 'answer' label per row (probes.answer_activations gives them)")
    rows = rows_of(acts, site)
    names = np.asarray(list(acts.labels["answer"]), dtype=np.str_)
    relation = np.asarray(list(acts.labels.get("relation", ["-"] * len(rows))), dtype=np.str_)
    known = np.isin(rows.group, ("known_ref", "known_eval")) & (names != "")
    is_target = rows.group == "target"
    asked = known | is_target
    pairs = sorted(set(zip(relation[asked].tolist(), names[asked].tolist(), strict=True)))
    index = {pair: i for i, pair in enumerate(pairs)}
    answer = np.array([index.get(pair, -1) for pair in zip(relation.tolist(), names.tolist(), strict=True)])
    relations = sorted({r for r, _ in pairs})
    relation_of = np.array([relations.index(r) for r, _ in pairs])
    blocks = _classes(rows, relation, answer, known, relations, relation_of) if scoring == "class" else None
    gold_blocks = blocks
    if scoring == "answer":
        tables = [v for v in (vectors, gold_vectors) if v is not None]
        if len(tables) < 2 or any(a not in table for table in tables for _, a in pairs):
            raise DataError("scoring='answer' needs a vector for every answer (probes.answer_vectors gives them)")
        made = [np.stack([table[a].double().numpy() for _, a in pairs]) for table in tables]
        blocks, gold_blocks = ([_vectors(raw, relation_of, len(rows))] for raw in made)
    if not blocks or not gold_blocks:
        return f"no answer of the target is shared by {MIN_CLASS} known entities, so that no class can be learnt"
    read = np.zeros(len(rows), dtype=bool)
    for block in blocks:
        read |= block.here & (answer >= 0) & block.eligible[answer]
    known, is_target = known & read, is_target & read
    target = np.flatnonzero(is_target)
    unknown = np.unique(rows.entity[rows.group == "unknown_eval"])
    row_at = {pair: i for i, pair in enumerate(zip(rows.entity.tolist(), rows.template.tolist(), strict=True))}
    same = np.array([[row_at.get((u, t), -1) for u in unknown] for t in rows.template[target].tolist()])
    rng = numpy_rng(seed, "attribute folds")
    control = answer.copy()
    control[known] = shuffled_answers(rows.entity[known], relation[known], answer[known], rng)
    folds = Folds.make(rows.entity, rows.template, rng, relation=relation)
    return _Design(rows, relation, answer, control, known, target, same, folds, blocks, gold_blocks)


def _vectors(raw: Float[np.ndarray, "a d"], relation_of: np.ndarray, rows: int) -> _Block:
    """One readout for all relations, onto unit vectors around each relation's mean answer.

    The vectors lie in a space of at most as many dimensions as there are answers; coordinates in it are predicted.
    """
    centre = np.stack([raw[relation_of == r].mean(0) for r in range(relation_of.max() + 1)])
    unit = raw - centre[relation_of]
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    _u, lengths, axes = np.linalg.svd(unit, full_matrices=False)
    basis = axes[lengths > 1e-9 * max(float(lengths[0]), 1e-12)].T
    alike = np.stack([np.abs(raw - row).max(1) < 1e-9 for row in raw])
    every = np.ones(len(raw), dtype=bool)
    return _Block(np.ones(rows, dtype=bool), unit @ basis, every, alike, relation_of, basis)


def _classes(
    rows: Rows,
    relation: np.ndarray,
    answer: np.ndarray,
    known: np.ndarray,
    relations: list[str],
    relation_of: np.ndarray,
) -> list[_Block]:
    """One classifier per relation in which an answer of the target is shared."""
    blocks = []
    entities = [len(np.unique(rows.entity[known & (answer == a)])) for a in range(len(relation_of))]
    shared = np.array(entities) >= MIN_CLASS
    for code, name in enumerate(relations):
        eligible = shared & (relation_of == code)
        here = relation == name
        if eligible.sum() < 2 or not eligible[answer[here & (rows.group == "target")]].any():
            continue
        one_hot = np.zeros((len(relation_of), int(eligible.sum())))
        one_hot[np.flatnonzero(eligible), np.arange(eligible.sum())] = 1
        blocks.append(_Block(here, one_hot, eligible, np.eye(len(relation_of), dtype=bool), relation_of, None))
    return blocks


def _read(design: _Design, x: dict[str, np.ndarray], penalty: float) -> Site:
    """Places of every reading at one site."""
    n, targets = len(design.rows), design.target
    known = {name: np.full(n, np.nan) for name in ("known", "control task", "transfer", "fresh")}
    target = {phase: np.full(n, np.nan) for phase in x}
    unknown = {phase: np.full(design.same.shape, np.nan) for phase in x}
    for block, gold_block in zip(design.blocks, design.gold_blocks, strict=True):
        views = {phase: _View.of(v, gold_block if phase == "gold" else block) for phase, v in x.items()}
        mine = block.here & design.known & block.eligible[design.answer]
        for train, test in design.folds.joint():
            fit, held = train & mine, np.flatnonzero(test & mine)
            if not fit.any() or not len(held):
                continue
            right, shuffled = design.answer[held], design.control[held]
            both = _fit(block, design, views["before"], fit, penalty, with_control=True)
            fresh = _fit(block, design, views["after"], fit, penalty)
            for name, reader, phase, task, wanted in (
                ("known", both, "before", 0, right),
                ("control task", both, "before", 1, shuffled),
                ("transfer", both, "after", 0, right),
                ("fresh", fresh, "after", 0, right),
            ):
                scores = reader.predict(views[phase], held, task) @ block.vectors.T
                known[name][held] = place(scores, block.wrong(wanted), wanted)
        for train, test in design.folds.by_template():
            fit = train & mine
            index = np.flatnonzero((test & block.here)[targets])
            if not fit.any() or not len(index):
                continue
            right = design.answer[targets[index]]
            wrong = block.wrong(right)
            original = _fit(block, design, views["before"], fit, penalty)
            for phase in x:
                its = gold_block if phase == "gold" else block
                own = _fit(its, design, views["gold"], fit, penalty) if phase == "gold" else original
                scores = own.predict(views[phase], np.arange(n), 0) @ its.vectors.T
                target[phase][targets[index]] = place(scores[targets[index]], wrong, right)
                for u in range(design.same.shape[1]):
                    at = design.same[index, u]
                    asked = at >= 0
                    unknown[phase][index[asked], u] = place(scores[at[asked]], wrong[asked], right[asked])
    return Site(
        {name: values[design.known] for name, values in known.items()},
        {phase: values[targets] for phase, values in target.items()},
        unknown,
    )


@dataclass(frozen=True)
class _View:
    """Rows of one model as a block of answers sees them.

    Attributes:
        x: Features.
        along: Their coordinates along the answers' vectors, where these have the width of the features.
    """

    x: np.ndarray
    along: np.ndarray | None

    @classmethod
    def of(cls, x: np.ndarray, block: _Block) -> _View:
        if block.basis is None or block.basis.shape[0] != x.shape[1]:
            return cls(x, None)
        return cls(x, x @ block.basis / max(float(np.sqrt((x**2).sum(1).mean())), 1e-12))


@dataclass(frozen=True)
class _Reader:
    """A readout of the answers (task 0) and perhaps of the control task (1).

    Attributes:
        readout: Predicts what ``own`` leaves over.
        own: For each task, the multiple of the activation itself that comes nearest to the answers' vectors.
        mean: For each task, the training rows' mean vector, which an unseen answer must not be held against.
        width: Coordinates of a vector.
    """

    readout: Readout
    own: tuple[float, ...]
    mean: np.ndarray
    width: int

    def predict(self, view: _View, rows: np.ndarray, task: int) -> np.ndarray:
        part = slice(task * self.width, (task + 1) * self.width)
        out = self.readout.predict(view.x[rows])[:, part] - self.mean[part]
        return out if view.along is None else out + self.own[task] * view.along[rows]


def _fit(
    block: _Block, design: _Design, view: _View, rows: np.ndarray, penalty: float, *, with_control: bool = False
) -> _Reader:
    """Ridge around the best multiple of the identity: what the output head reads anyway need not be learnt."""
    tasks = [design.answer[rows], *([design.control[rows]] if with_control else [])]
    wanted, own = [], []
    for answers in tasks:
        y = block.vectors[answers]
        share = 0.0
        if view.along is not None:
            along = view.along[rows]
            share = max(float((along * y).sum() / max((along**2).sum(), 1e-12)), 0.0)
            y = y - share * along
        wanted.append(y)
        own.append(share)
    y = np.concatenate(wanted, 1)
    weights = None
    if block.basis is None:  # classes count alike, however many rows they have
        counts = np.bincount(tasks[0], minlength=len(block.vectors))
        weights = 1 / counts[tasks[0]]
        weights = weights / weights.mean()
    readout = fit_readout(view.x[rows], y, weights=weights, penalty=penalty)
    mean = readout.bias if block.basis is not None else np.zeros(y.shape[1])
    return _Reader(readout, tuple(own), np.asarray(mean), block.vectors.shape[1])
