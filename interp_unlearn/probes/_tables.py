"""Tables behind the numbers: means of a measure per phase and group, with intervals and the spread over entities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from interp_unlearn._core import Axis, Labelled
from interp_unlearn.probes._bootstrap import entity_means, mean_interval
from interp_unlearn.probes._rows import Rows

SHOWN = ("target", "known_eval", "unknown_eval")
STATISTICS = ("mean", "low", "high", "sd_entities", "entity_p05", "entity_p95")


def group_table(
    name: str,
    phases: Mapping[str, Rows],
    values: Mapping[str, Float[np.ndarray, " n"]],
    rng: np.random.Generator,
    *,
    groups: Sequence[str] = SHOWN,
    note: str = "",
    seed: int | None = None,
) -> Labelled:
    """Statistics of one measure, axes (phase, group, statistic).

    Args:
        name: What the measure is.
        phases: Rows of each phase.
        values: The measure of each row of each phase.
        rng: For the intervals.
        groups: Groups shown; those without rows are left out.
        note: How to read it.
        seed: Seed, to be noted.

    Returns:
        ``mean`` with its 95 % interval ``low``…``high``, and ``sd_entities``, ``entity_p05``, ``entity_p95`` over the
        means of single entities (``nan`` with one entity).
    """
    first = next(iter(phases.values()))
    shown = [g for g in groups if any(g in rows.group for rows in phases.values())]
    out = np.full((len(phases), len(shown), len(STATISTICS)), np.nan)
    for p, (phase, rows) in enumerate(phases.items()):
        for g, group in enumerate(shown):
            keep = rows.group == group
            if not keep.any():
                continue
            v = values[phase][keep]
            low, high = mean_interval(v, (rows.entity[keep], rows.template[keep]), rng) or (np.nan, np.nan)
            out[p, g, :3] = v.mean(), low, high
            means = entity_means(v[:, None], rows.entity[keep])[:, 0]
            if len(means) > 1:
                out[p, g, 3:] = means.std(ddof=1), *np.quantile(means, [0.05, 0.95])
    return Labelled(
        name,
        out,
        (Axis("phase", tuple(phases)), Axis("group", tuple(shown)), Axis("statistic", STATISTICS)),
        n=int(np.isin(first.group, shown).sum()),
        mask_policy=first.mask_policy,
        config={"rows": {g: int((first.group == g).sum()) for g in shown}},
        seed=seed,
        note=note,
    )


def point_table(
    name: str, phases: Mapping[str, Rows], values: Mapping[str, Float[np.ndarray, "n k"]], coordinates: Sequence[str]
) -> Labelled:
    """Every row's coordinates, axes (phase, mention, coordinate); a mention is ``group|entity|template``."""
    first = next(iter(phases.values()))
    keep = np.isin(first.group, SHOWN)
    names = [
        f"{g}|{e}|{t}" for g, e, t in zip(first.group[keep], first.entity[keep], first.template[keep], strict=True)
    ]
    return Labelled(
        name,
        np.stack([values[phase][keep] for phase in phases]),
        (Axis("phase", tuple(phases)), Axis("mention", tuple(names)), Axis("coordinate", tuple(coordinates))),
        n=len(names),
        mask_policy=first.mask_policy,
    )
