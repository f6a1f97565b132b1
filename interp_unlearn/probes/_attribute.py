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
        unknown: The unknown entities.
        folds: Of all rows.
        blocks: Answers that share a readout.
    """

    rows: Rows
    relation: np.ndarray
    answer: np.ndarray
    control: np.ndarray
    known: np.ndarray
    target: np.ndarray
    same: np.ndarray
    unknown: np.ndarray
    folds: Folds
    blocks: Sequence[_Block]


@dataclass(frozen=True)
class _Block:
    """Answers that share one readout, and the rows that ask for them.

    Attributes:
        here: Rows of its relations.
        vectors: What the readout predicts, (answer, k).
        eligible: Which answers are candidates.
        balanced: Whether each answer counts alike in the fit, however many rows have it.
        alike: Answers that the vectors do not tell apart, (answer, answer).
        relation_of: Relation of each answer.
    """

    here: np.ndarray
    vectors: Float[np.ndarray, "a k"]
    eligible: np.ndarray
    balanced: bool
    alike: np.ndarray
    relation_of: np.ndarray

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
    design = _design(before, sites[0], vectors, scoring, seed)
    if isinstance(design, str):
        return missing_attribute(where, design, policy)
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
    acts: Activations, site: str, vectors: Mapping[str, Tensor] | None, scoring: Scoring, seed: int
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
    if scoring == "answer":
        if vectors is None or any(a not in vectors for _, a in pairs):
            raise DataError("scoring='answer' needs a vector for every answer (probes.answer_vectors gives them)")
        raw = np.stack([vectors[a].double().numpy() for _, a in pairs])
        blocks = [_vectors(raw, relation_of, len(rows))]
    if not blocks:
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
    return _Design(rows, relation, answer, control, known, target, same, unknown, folds, blocks)


def _vectors(raw: Float[np.ndarray, "a d"], relation_of: np.ndarray, rows: int) -> _Block:
    """One readout for all relations, onto unit vectors around each relation's mean answer."""
    centre = np.stack([raw[relation_of == r].mean(0) for r in range(relation_of.max() + 1)])
    unit = raw - centre[relation_of]
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    alike = np.stack([np.abs(raw - row).max(1) < 1e-9 for row in raw])
    return _Block(np.ones(rows, dtype=bool), unit, np.ones(len(raw), dtype=bool), False, alike, relation_of)


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
        blocks.append(_Block(here, one_hot, eligible, True, np.eye(len(relation_of), dtype=bool), relation_of))
    return blocks


def _read(design: _Design, x: dict[str, np.ndarray], penalty: float) -> Site:
    """Places of every reading at one site."""
    n, targets = len(design.rows), design.target
    known = {name: np.full(n, np.nan) for name in ("known", "control task", "transfer", "fresh")}
    target = {phase: np.full(n, np.nan) for phase in x}
    unknown = {phase: np.full(design.same.shape, np.nan) for phase in x}
    for block in design.blocks:
        mine = block.here & design.known & block.eligible[design.answer]
        for train, test in design.folds.joint():
            fit, held = train & mine, np.flatnonzero(test & mine)
            if not fit.any() or not len(held):
                continue
            k = block.vectors.shape[1]
            both = _fit(block, design, x["before"], fit, penalty, with_control=True)
            right, shuffled = design.answer[held], design.control[held]
            for name, phase, columns, wanted in (
                ("known", "before", slice(0, k), right),
                ("control task", "before", slice(k, None), shuffled),
                ("transfer", "after", slice(0, k), right),
            ):
                scores = both.predict(x[phase][held])[:, columns] @ block.vectors.T
                known[name][held] = place(scores, block.wrong(wanted), wanted)
            own = _fit(block, design, x["after"], fit, penalty)
            known["fresh"][held] = place(own.predict(x["after"][held]) @ block.vectors.T, block.wrong(right), right)
        for train, test in design.folds.by_template():
            fit = train & mine
            index = np.flatnonzero((test & block.here)[targets])
            if not fit.any() or not len(index):
                continue
            right = design.answer[targets[index]]
            original = _fit(block, design, x["before"], fit, penalty)
            for phase in x:
                own = _fit(block, design, x["gold"], fit, penalty) if phase == "gold" else original
                scores = own.predict(x[phase]) @ block.vectors.T
                target[phase][targets[index]] = place(scores[targets[index]], block.wrong(right), right)
                for u in range(design.same.shape[1]):
                    at = design.same[index, u]
                    asked = at >= 0
                    unknown[phase][index[asked], u] = place(scores[at[asked]], block.wrong(right[asked]), right[asked])
    return Site(
        {name: values[design.known] for name, values in known.items()},
        {phase: values[targets] for phase, values in target.items()},
        unknown,
    )


def _fit(
    block: _Block, design: _Design, x: np.ndarray, rows: np.ndarray, penalty: float, *, with_control: bool = False
) -> Readout:
    y = block.vectors[design.answer[rows]]
    weights = None
    if block.balanced:
        counts = np.bincount(design.answer[rows], minlength=len(block.vectors))
        weights = 1 / counts[design.answer[rows]]
        weights = weights / weights.mean()
    if with_control:
        y = np.concatenate([y, block.vectors[design.control[rows]]], 1)
    return fit_readout(x[rows], y, weights=weights, penalty=penalty)
