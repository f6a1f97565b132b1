"""Similarity of the target's activations before and after: CKA, and shift and turn of principal components.

CKA: Kornblith et al. (2019), debiased (see `hooked.linear_cka`). PCA shift and similarity follow "Unlearning Isn't
Deletion" (arXiv 2505.16831), which reads them to tell reversible from irreversible forgetting; its cosine of principal
directions has an arbitrary sign, so the absolute value is taken here, and rows are the last token of the prompt, never
the first token of the text, which is the same for every input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from interp_unlearn._core import Axis, Evidence, Labelled, numpy_rng
from interp_unlearn.hooked import Activations, linear_cka
from interp_unlearn.probes._catalogue_reading import evidence, missing
from interp_unlearn.probes._rows import Rows, check_pair, rows_of, why_missing

KINDS = ("similarity.cka", "similarity.pca_shift", "similarity.pca_direction")
MIN_ROWS = 4
DRAWS = 20  # sets of neighbours, as large as the target
Plane = Literal["own", "pooled"]
Pair = tuple[np.ndarray, np.ndarray]


def pca_shift(
    before: Float[np.ndarray, "n d"], after: Float[np.ndarray, "n d"], fitted: Float[np.ndarray, "m d"] | None = None
) -> float:
    """How far the mean moved in the plane of two principal components, in standard deviations along the first.

    Args:
        before: Rows of the original model.
        after: The same rows in the edited model.
        fitted: Rows that the components are those of; default ``before``.
    """
    fitted = before if fitted is None else fitted
    axes, spread = _components(fitted, 2)
    if not spread > 0:
        return float("nan")
    return float(np.linalg.norm((after.mean(0) - before.mean(0)) @ axes.T) / spread)


def pca_direction(before: Float[np.ndarray, "n d"], after: Float[np.ndarray, "n d"]) -> float:
    """Absolute cosine of the first principal directions of the same rows before and after."""
    (one, spread), (two, spread_after) = _components(before, 1), _components(after, 1)
    return float(abs(one[0] @ two[0])) if spread > 0 and spread_after > 0 else float("nan")


def _components(x: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """First principal directions (component, d), and the standard deviation along the first."""
    _u, values, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    spread = float(values[0] / np.sqrt(max(len(x) - 1, 1)))
    return axes[:count], spread if spread > 1e-9 * (1 + float(np.abs(x).max())) else 0.0


def _cka(x: np.ndarray, y: np.ndarray) -> float:
    return linear_cka(torch.from_numpy(x), torch.from_numpy(y)) if len(x) >= MIN_ROWS else float("nan")


@dataclass(frozen=True)
class _Measure:
    """One measure over all sites, for any choice of rows."""

    kind: str
    of: Callable[[np.ndarray, np.ndarray, np.ndarray], float]

    def curve(self, pairs: Sequence[Pair], pooled: Sequence[np.ndarray], keep: np.ndarray) -> np.ndarray:
        """The measure at each site over the chosen rows."""
        return np.array([self.of(b[keep], a[keep], p) for (b, a), p in zip(pairs, pooled, strict=True)])


def similarity(
    before: Activations,
    after: Activations,
    sites: Sequence[str] | None = None,
    *,
    gold: Activations | None = None,
    plane: Plane = "own",
    where: str = "prompt",
    seed: int = 0,
) -> list[Evidence]:
    """CKA, PCA shift and PCA direction of the target's rows, before against after, as means over sites.

    Args:
        before: Rows of the original model with labels ``group`` (``target`` and ``known_eval``), ``entity`` and
            ``template``, all entities in the same templates.
        after: The same rows in the edited model.
        sites: Sites in order of depth; default all captured ones.
        gold: The same rows in a model that never knew the target: what retraining changes (CKA only, since its weights
            have coordinates of their own).
        plane: Principal components of the rows that are compared (``"own"``, as in the source), or of the original's
            rows of target and neighbours together (``"pooled"``).
        where: Last part of the evidence names.
        seed: Seed of the neighbours drawn.

    Returns:
        ``similarity.cka``, ``similarity.pca_shift`` and ``similarity.pca_direction``, with the curves over sites in
        ``details["layers"]``. The control is the same for sets of as many neighbours as the target has entities.
    """
    sites = list(sites or before.sites)
    policy = before.mask_policy
    reason = ""
    for site in sites:
        check_pair(before, after, site)
        phases = {"before": rows_of(before, site), "after": rows_of(after, site)}
        reason = reason or why_missing(phases, ("target", "known_eval"))
    rows = rows_of(before, sites[0])
    if not reason and (rows.group == "target").sum() < MIN_ROWS:
        count = int((rows.group == "target").sum())
        reason = f"{count} rows about the target; at least {MIN_ROWS} are needed to compare geometry"
    if reason:
        return [missing(kind, where, reason, mask_policy=policy) for kind in KINDS]
    both = np.isin(rows.group, ("target", "known_eval"))
    pairs = [(rows_of(before, s).x, rows_of(after, s).x) for s in sites]
    pooled = [b[both] if plane == "pooled" else np.empty((0, b.shape[1])) for b, _ in pairs]
    measures = (
        _Measure(KINDS[0], lambda b, a, _p: _cka(b, a)),
        _Measure(KINDS[1], lambda b, a, p: pca_shift(b, a, p if len(p) else None)),
        _Measure(KINDS[2], lambda b, a, _p: pca_direction(b, a)),
    )
    golden = None if gold is None else [(b, rows_of(gold, s).x) for (b, _), s in zip(pairs, sites, strict=True)]
    facts = {"sites": sites, "plane": plane}
    return [
        _evidence(m, where, rows, sites, pairs, pooled, golden if m.kind == KINDS[0] else None, facts, seed)
        for m in measures
    ]


def _evidence(
    measure: _Measure,
    where: str,
    rows: Rows,
    sites: Sequence[str],
    pairs: Sequence[Pair],
    pooled: Sequence[np.ndarray],
    golden: Sequence[Pair] | None,
    facts: Mapping[str, object],
    seed: int,
) -> Evidence:
    target = np.flatnonzero(rows.group == "target")
    curve = measure.curve(pairs, pooled, target)
    draws = _neighbour_sets(rows, seed)
    controls = np.array([measure.curve(pairs, pooled, keep) for keep in draws])
    gold = measure.curve(golden, pooled, target) if golden is not None else None
    config: dict[str, object] = {**facts, "neighbour_sets": len(draws), "interval": "jackknife"}
    if np.isnan(curve).all():
        reason = "the target's activations do not vary at any site; the model is broken"
        return missing(measure.kind, where, reason, mask_policy=rows.mask_policy, config=config)
    extreme = int(np.nanargmax(curve) if measure.kind == KINDS[1] else np.nanargmin(curve))
    config |= {"most_changed": sites[extreme], "most": float(curve[extreme]), "last": float(curve[-1])}
    if gold is not None and np.isfinite(gold).any():
        config["gold"] = float(np.nanmean(gold))
    usable = controls[np.isfinite(controls).any(1)]
    if not len(usable):
        config["no_control"] = f"no {len(np.unique(rows.entity[target]))} neighbours with {MIN_ROWS} or more rows"
    lines = {"target": curve, "neighbours": np.nanmean(usable, 0) if len(usable) else np.full(len(sites), np.nan)}
    if gold is not None:
        lines["gold"] = gold
    return evidence(
        measure.kind,
        where,
        float(np.nanmean(curve)),
        n=len(target),
        mask_policy=rows.mask_policy,
        interval=_jackknife(measure, rows, pairs, pooled, target, float(np.nanmean(curve))),
        control=float(np.nanmean(usable)) if len(usable) else None,
        details={
            "layers": Labelled(
                measure.kind.split(".")[1],
                np.stack(list(lines.values()), 1),
                (Axis("site", tuple(sites)), Axis("group", tuple(lines))),
                n=len(target),
                mask_policy=rows.mask_policy,
                config=dict(facts),
                seed=seed,
            )
        },
        config=config,
        seed=seed,
    )


def _neighbour_sets(rows: Rows, seed: int) -> list[np.ndarray]:
    """Rows of sets of neighbours with as many entities as the target has, or of all of them where they are fewer."""
    names = np.unique(rows.of("known_eval").entity)
    size = len(np.unique(rows.of("target").entity))
    if size == 1:
        chosen = [np.array([n]) for n in names[:DRAWS]]
    elif size >= len(names):
        chosen = [names]
    else:
        rng = numpy_rng(seed, "neighbour sets")
        chosen = [rng.choice(names, size, replace=False) for _ in range(DRAWS)]
    found = [np.flatnonzero(np.isin(rows.entity, c) & (rows.group == "known_eval")) for c in chosen]
    return [keep for keep in found if len(keep) >= MIN_ROWS]


def _jackknife(
    measure: _Measure,
    rows: Rows,
    pairs: Sequence[Pair],
    pooled: Sequence[np.ndarray],
    target: np.ndarray,
    value: float,
) -> tuple[float, float] | None:
    """95 % interval by leaving out one entity (one template where there are fewer than 3 entities) at a time.

    Resampling with replacement would make copies of rows, which look alike before and after.
    """
    labels = rows.entity[target] if len(np.unique(rows.entity[target])) >= 3 else rows.template[target]
    units = np.unique(labels)
    if len(units) < 3 or len(target) - np.bincount(np.unique(labels, return_inverse=True)[1]).max() < MIN_ROWS:
        return None
    again = np.array([np.nanmean(measure.curve(pairs, pooled, target[labels != unit])) for unit in units])
    if not np.isfinite(again).all():
        return None
    half = 1.96 * float(np.sqrt((len(units) - 1) / len(units) * ((again - again.mean()) ** 2).sum()))
    low, high = value - half, value + half
    return (max(low, 0.0), high) if measure.kind == KINDS[1] else (low, min(high, 1.0))
