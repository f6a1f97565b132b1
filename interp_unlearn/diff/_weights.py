"""How far weights moved, parameter by parameter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import Axis, DataError, Labelled, nearest

NOTES = {
    "relative_change": "Frobenius norm of the change over that of the original; nan where the original is all zero",
    "max_abs_change": "largest absolute change of one entry",
    "changed_entries": "number of entries that differ",
    "changed_fraction": "share of entries that differ",
    "effective_rank": "exponential of the entropy of the change's singular values, normalised to sum 1 (Roy and "
    "Vetterli, 2007); nan for vectors and unchanged parameters",
}


def compare_weights(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], *, effective_rank: bool = False
) -> list[Labelled]:
    """Change of every parameter in ``after``.

    Args:
        before: Original tensors by name; may hold more than ``after``.
        after: New tensors by name, e.g. only those that were trained.
        effective_rank: Also compute the effective rank of each changed matrix (a singular value decomposition each).

    Returns:
        One array per measure, axis (parameter): ``relative_change``, ``max_abs_change``, ``changed_entries``,
        ``changed_fraction`` and, on request, ``effective_rank``. ``n`` is the number of entries compared;
        ``config["total"]`` has the relative change of all of them together.

    Raises:
        DataError: If a name is unknown or a shape differs.
    """
    if not after:
        raise DataError("no tensors to compare; pass the edited model's parameters")
    measures = [m for m in NOTES if effective_rank or m != "effective_rank"]
    values = np.full((len(measures), len(after)), np.nan)
    moved2 = size2 = 0.0
    for i, (name, new) in enumerate(after.items()):
        if name not in before:
            raise DataError(f"the original has no parameter {name!r}{nearest(name, before)}")
        old = before[name]
        if old.shape != new.shape:
            raise DataError(f"{name} has shape {tuple(old.shape)} before and {tuple(new.shape)} after")
        row, moved, size = _compare(old.detach().cpu(), new.detach().cpu())
        moved2, size2 = moved2 + moved, size2 + size
        values[:4, i] = row
        if effective_rank and row[2] and new.dim() >= 2:
            values[4, i] = _effective_rank((new.detach().float() - old.detach().float()).flatten(1).cpu())
    total = float(np.sqrt(moved2 / size2)) if size2 else float("nan")
    entries = sum(t.numel() for t in after.values())
    return [
        Labelled(
            measure,
            values[i],
            (Axis("parameter", tuple(after)),),
            n=entries,
            mask_policy="-",
            config={"total": total},
            note=NOTES[measure],
        )
        for i, measure in enumerate(measures)
    ]


def _compare(old: Tensor, new: Tensor) -> tuple[list[float], float, float]:
    """The first four measures, and squared norms of the change and of the original."""
    size2 = float(old.float().norm()) ** 2
    if torch.equal(old, new):
        return [0.0, 0.0, 0.0, 0.0], 0.0, size2
    change = new.float() - old.float()
    moved2 = float(change.norm()) ** 2
    relative = (moved2 / size2) ** 0.5 if size2 else float("nan")
    changed = float((old != new).sum())
    return [relative, float(change.abs().max()), changed, changed / max(old.numel(), 1)], moved2, size2


def _effective_rank(change: Tensor) -> float:
    singular = torch.linalg.svdvals(change)
    share = singular / singular.sum()
    share = share[share > 0]
    return float((-(share * share.log()).sum()).exp())
