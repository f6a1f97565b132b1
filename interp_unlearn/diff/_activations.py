"""What moved, site by site: norm, direction, mean shift, and similarity of geometry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import Axis, Labelled
from interp_unlearn.diff._pairs import Pair, group_names, pair
from interp_unlearn.hooked import Activations, linear_cka

SPREAD_FLOOR = 0.01
NOTES = {
    "diff.norm_drift": "mean over rows of the norm after over the norm before; 1 is no change",
    "diff.cosine_drift": "mean over rows of 1 - cos(before, after); 0 is no change of direction, 1 is orthogonal",
    "diff.displacement": "mean over rows of the distance moved over the norm before; 0 is no change",
    "diff.effect_size": "root mean square over features of (mean after - mean before) / sd, the sd within groups "
    "pooled over groups and phases (Cohen's d per feature); 0.2 small, 0.8 large",
    "diff.largest_effect": "largest absolute effect of a single feature, in the same units as effect_size",
    "diff.cka": "linear CKA before against after, debiased unless config says not; 1 is the same geometry up to "
    "rotation and scale; nan below 4 rows or without variation",
}


def compare_activations(
    before: Activations,
    after: Activations,
    *,
    sites: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    debiased: bool = True,
) -> list[Labelled]:
    """Paired comparison of the same rows in two models.

    Args:
        before: Activations of the original model.
        after: Of the same inputs in the edited model.
        sites: Sites to compare; default all.
        groups: Values of the label ``group`` to compare; default all, or ``"all"`` without labels.
        debiased: Use debiased CKA; the plain one is near 1 for few rows whatever happened.

    Returns:
        One array per measure, axes (site, group), named ``diff.norm_drift``, ``diff.cosine_drift``,
        ``diff.displacement``, ``diff.effect_size``, ``diff.largest_effect`` and ``diff.cka``; ``note`` says how to read
        each, ``config["rows"]`` has the number of rows of each group.

    Raises:
        DataError: If the two were not captured from the same inputs.
    """
    sites = list(sites or before.sites)
    names = group_names(before, groups)
    values = np.full((len(NOTES), len(sites), len(names)), np.nan)
    rows: dict[str, int] = {}
    for s, site in enumerate(sites):
        both = pair(before, after, site)
        unit = both.unit(SPREAD_FLOOR)
        for g, name in enumerate(names):
            values[:, s, g] = _measures(both, name, unit, debiased)
            rows[name] = len(both.groups[name])
    return [
        Labelled(
            measure,
            values[i],
            (Axis("site", tuple(sites)), Axis("group", names)),
            n=sum(rows.values()),
            mask_policy=before.mask_policy,
            config={"rows": rows, **({"debiased": debiased} if measure == "diff.cka" else {})},
            note=note,
        )
        for i, (measure, note) in enumerate(NOTES.items())
    ]


def _measures(both: Pair, group: str, unit: Tensor, debiased: bool) -> list[float]:
    """The measures of `NOTES`, in order, for one group."""
    x, y = both.of(group)
    norm_x, norm_y = x.norm(dim=1), y.norm(dim=1)
    scale = norm_x.clamp(min=1e-12)
    cosine = (x * y).sum(1) / (scale * norm_y.clamp(min=1e-12))
    effect = (y.double().mean(0) - x.double().mean(0)) / unit
    finite = bool(x.isfinite().all() and y.isfinite().all())
    enough = len(x) >= (4 if debiased else 2)
    return [
        float((norm_y / scale).mean()),
        float(1 - cosine.mean()),
        float(((y - x).norm(dim=1) / scale).mean()),
        float(effect.square().mean().sqrt()),
        float(effect.abs().max()),
        linear_cka(x, y, debiased=debiased) if enough and finite else float("nan"),
    ]


def rank_features(both: Pair, groups: Sequence[str], *, fires_above: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """Mean and firing frequency before and after, and effect size, of every feature.

    Returns:
        (feature, group, statistic) values and the names of the statistics. The effect is the shift of the mean in units
        of the feature's spread within groups, which is at least a tenth of the median feature's.
    """
    unit = both.unit(0.1)
    out = []
    for group in groups:
        x, y = both.of(group)
        mean_x, mean_y = x.double().mean(0), y.double().mean(0)
        on_x, on_y = ((v > fires_above).double().mean(0) for v in (x, y))
        out.append(torch.stack([mean_x, mean_y, on_x, on_y, (mean_y - mean_x) / unit], 1))
    names = ("mean_before", "mean_after", "frequency_before", "frequency_after", "effect")
    return torch.stack(out, 1).numpy(), names


def top_features(values: np.ndarray, lead: int, top: int | None) -> np.ndarray:
    """Indices of the features that moved most in group number ``lead``, by absolute effect."""
    effect = np.nan_to_num(np.abs(values[:, lead, -1]), nan=np.inf)
    return np.argsort(-effect, kind="stable")[:top]
