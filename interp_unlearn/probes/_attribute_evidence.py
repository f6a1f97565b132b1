"""From the places that readouts gave the answers at each site to evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from interp_unlearn._core import Axis, Evidence, Labelled, numpy_rng
from interp_unlearn.probes._bootstrap import bootstrap_means, interval, mean_interval, percentile
from interp_unlearn.probes._catalogue_reading import evidence, missing
from interp_unlearn.probes._rows import Rows

KINDS = ("attribute.selectivity", "attribute.best", "attribute.mean", "attribute.bystanders")
DRAWS = 200  # ways to give each target entity an unknown one
NO_LAYER = (
    "at no layer does the readout find the answers of held-out known entities better than its control task, "
    "so that its silence about the target would mean nothing"
)


@dataclass(frozen=True)
class Site:
    """Places at one site.

    Attributes:
        known: For each reading (``known``, ``control task``, ``transfer``, ``fresh``) the known entities' rows.
        target: For each phase the target's rows.
        unknown: For each phase (target row, unknown entity): the target's answer read from the unknown entity.
    """

    known: Mapping[str, Float[np.ndarray, " n"]]
    target: Mapping[str, Float[np.ndarray, " t"]]
    unknown: Mapping[str, Float[np.ndarray, "t u"]]


def missing_attribute(where: str, reason: str, policy: str, **fields: Any) -> list[Evidence]:
    """All kinds without a value."""
    return [missing(kind, where, reason, mask_policy=policy, **fields) for kind in KINDS]


def attribute_evidence(
    where: str,
    read: Mapping[str, Site],
    target: Rows,
    known: Rows,
    relation: np.ndarray,
    facts: Mapping[str, Any],
    seed: int,
) -> list[Evidence]:
    """The four kinds, from the readings of every site.

    Args:
        where: Last part of the names.
        read: Readings by site, in order of depth.
        target: The target's rows.
        known: The known entities' rows.
        relation: Relation of each target row.
        facts: Settings to note.
        seed: Seed of the intervals.
    """
    sites = list(read)
    clusters = (known.entity, known.template)
    valid = [s for s in sites if _better(read[s].known["known"], read[s].known["control task"], clusters, seed)]
    curve = _curve(read, target, seed)
    best_known = max(sites, key=lambda s: _mean_of(read[s].known["known"]))
    of = read[best_known].known
    facts = {**facts, "sites": sites, "valid_sites": valid}
    out = [
        evidence(
            KINDS[0],
            where,
            _mean_of(of["known"]),
            n=len(known),
            mask_policy=known.mask_policy,
            interval=_interval(of["known"], clusters, seed, KINDS[0], where),
            control=_mean_of(of["control task"]),
            details={"layers": curve},
            config={
                **facts,
                "site": best_known,
                "first": _first(of["known"]),
                "control_first": _first(of["control task"]),
            },
            seed=seed,
        )
    ]
    if not valid:
        return out + [
            missing(kind, where, NO_LAYER, mask_policy=known.mask_policy, config=facts, seed=seed) for kind in KINDS[1:]
        ]
    out += [_best(where, read, valid, target, facts, seed), _mean(where, read, valid, target, relation, facts, seed)]
    transfer, before, fresh = (
        np.mean([read[s].known[name] for s in valid], 0) for name in ("transfer", "known", "fresh")
    )
    out.append(
        evidence(
            KINDS[3],
            where,
            _mean_of(transfer),
            n=len(known),
            mask_policy=known.mask_policy,
            interval=_interval(transfer, clusters, seed, KINDS[3], where),
            control=_mean_of(before),
            config={**facts, "fresh": _mean_of(fresh)},
            seed=seed,
        )
    )
    return out


def _better(value: np.ndarray, control: np.ndarray, clusters: tuple[np.ndarray, ...], seed: int) -> bool:
    """Whether the readout beats its control task, and chance: its interval lies above both."""
    read = np.isfinite(value) & np.isfinite(control)
    if not read.any():
        return False
    floor = max(float(control[read].mean()), 0.5)
    span = interval(
        bootstrap_means(value[read], tuple(c[read] for c in clusters), numpy_rng(seed, "attribute valid"), 400)
    )
    return span is not None and span[0] > floor


def _interval(
    values: np.ndarray, clusters: tuple[np.ndarray, ...], seed: int, *names: str
) -> tuple[float, float] | None:
    read = np.isfinite(values)
    if not read.any():
        return None
    return mean_interval(values[read], tuple(c[read] for c in clusters), numpy_rng(seed, *names))


def _mean_of(places: np.ndarray) -> float:
    """Mean of the rows that had wrong candidates; ``nan`` where none had."""
    read = places[np.isfinite(places)]
    return float(read.mean()) if len(read) else float("nan")


def _first(places: np.ndarray) -> float:
    """Share of rows whose answer outranks every other."""
    read = places[np.isfinite(places)]
    return float((read == 1).mean()) if len(read) else float("nan")


def _phases(read: Mapping[str, Site]) -> tuple[str, ...]:
    return tuple(next(iter(read.values())).target)


def _best(
    where: str, read: Mapping[str, Site], valid: list[str], target: Rows, facts: Mapping[str, Any], seed: int
) -> Evidence:
    """The largest mean over layers, against the same when each target entity is replaced by an unknown one."""
    means = {p: np.array([_mean_of(read[s].target[p]) for s in valid]) for p in _phases(read)}
    top = int(means["after"].argmax())
    floor = _floor(read, valid, target, "after", seed)
    return evidence(
        KINDS[1],
        where,
        float(means["after"][top]),
        n=int(np.isfinite(read[valid[top]].target["after"]).sum()),
        mask_policy=target.mask_policy,
        interval=_interval(read[valid[top]].target["after"], (target.entity, target.template), seed, KINDS[1], where),
        control=float(floor.mean()),
        config={
            **facts,
            "site": valid[top],
            "first": _first(read[valid[top]].target["after"]),
            "control_p95": float(np.quantile(floor, 0.95)),
            "before": float(means["before"].max()),
            **({"gold": float(means["gold"].max())} if "gold" in means else {}),
        },
        seed=seed,
    )


def _floor(read: Mapping[str, Site], valid: list[str], target: Rows, phase: str, seed: int) -> np.ndarray:
    """Largest mean over layers for random ways to put unknown entities in the target entities' places."""
    names, codes = np.unique(target.entity, return_inverse=True)
    stacked = np.stack([read[s].unknown[phase] for s in valid])  # (site, target row, unknown entity)
    rng = numpy_rng(seed, "attribute floor")
    out = []
    for _ in range(DRAWS):
        chosen = rng.integers(stacked.shape[2], size=len(names))[codes]
        picked = stacked[:, np.arange(len(codes)), chosen]
        if np.isfinite(picked).any(1).all():
            out.append(np.nanmean(picked, 1).max())
    return np.array(out) if out else np.array([np.nan])


def _mean(
    where: str,
    read: Mapping[str, Site],
    valid: list[str],
    target: Rows,
    relation: np.ndarray,
    facts: Mapping[str, Any],
    seed: int,
) -> Evidence:
    """The mean over layers, with that of every relation."""
    rows = {p: np.mean([read[s].target[p] for s in valid], 0) for p in _phases(read)}
    unknown = np.mean([read[s].unknown["after"] for s in valid], 0)
    relations = tuple(str(r) for r in np.unique(relation))
    read_rows = np.isfinite(rows["after"])
    table = np.array(
        [[*(_mean_of(v[relation == r]) for v in rows.values()), _mean_of(unknown[relation == r])] for r in relations]
    )
    return evidence(
        KINDS[2],
        where,
        _mean_of(rows["after"]),
        n=int(read_rows.sum()),
        mask_policy=target.mask_policy,
        interval=_interval(rows["after"], (target.entity, target.template), seed, KINDS[2], where),
        control=_mean_of(unknown),
        details={
            "relations": Labelled(
                "place of the target's answers by relation",
                table,
                (Axis("relation", relations), Axis("reading", (*(f"target {p}" for p in rows), "unknown after"))),
                n=len(target),
                mask_policy=target.mask_policy,
            )
        },
        config={
            **facts,
            "before": _mean_of(rows["before"]),
            "percentile_among_unknown": _rank(rows["after"], unknown),
            **({"gold": _mean_of(rows["gold"])} if "gold" in rows else {}),
        },
        seed=seed,
    )


def _rank(rows: np.ndarray, unknown: np.ndarray) -> float:
    """Share of unknown entities from which the target's answers are read less well than from the target."""
    asked = np.isfinite(rows)[:, None] & np.isfinite(unknown)
    use = asked.any(0)
    means = np.array([unknown[asked[:, u], u].mean() for u in np.flatnonzero(use)])
    return percentile(_mean_of(rows), means)


def _curve(read: Mapping[str, Site], target: Rows, seed: int) -> Labelled:
    """Mean place and share of first places, axes (site, reading, statistic)."""
    phases = _phases(read)
    readings = (*next(iter(read.values())).known, *(f"target {p}" for p in phases), *(f"unknown {p}" for p in phases))
    values = np.full((len(read), len(readings), 2), np.nan)
    for s, found in enumerate(read.values()):
        parts = [*found.known.values(), *found.target.values(), *found.unknown.values()]
        for r, part in enumerate(parts):
            if np.isfinite(part).any():
                values[s, r] = _mean_of(part), _first(part)
    return Labelled(
        "place of the right answer among the relation's answers",
        values,
        (Axis("site", tuple(read)), Axis("reading", readings), Axis("statistic", ("place", "first"))),
        n=len(target),
        mask_policy=target.mask_policy,
        seed=seed,
        note="known, control task: held out, original model; transfer: the original's readout on the edited model's "
        "known entities; fresh: one fitted there; target and unknown: the original's readout (gold: its own)",
    )
