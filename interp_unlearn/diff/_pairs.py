"""The same rows before and after, group by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked import Activations
from interp_unlearn.probes import GROUPS, features

EVERYTHING = "all"


@dataclass(frozen=True)
class Pair:
    """Vectors of one site in two phases, row i being the same observation.

    Attributes:
        before: Original model, (row, feature), float32.
        after: Edited model.
        groups: Row indices of each group, in the order of `GROUPS`, then any others by name.
    """

    before: Float[Tensor, "n d"]
    after: Float[Tensor, "n d"]
    groups: dict[str, Tensor]

    def of(self, group: str) -> tuple[Tensor, Tensor]:
        """Both phases of one group."""
        return self.before[self.groups[group]], self.after[self.groups[group]]

    def unit(self, floor: float = 0.0) -> Float[Tensor, " d"]:
        """Spread of each feature: its standard deviation within groups, pooled over groups and both phases.

        Args:
            floor: At least so many times the median spread of the features that vary.
        """
        squares, degrees = torch.zeros(self.before.shape[1], dtype=torch.float64), 0
        for index in self.groups.values():
            for phase in (self.before, self.after):
                x = phase[index].double()
                squares += ((x - x.mean(0)) ** 2).sum(0)
                degrees += max(len(index) - 1, 0)
        spread = (squares / max(degrees, 1)).sqrt()
        varying = spread[(spread > 0) & spread.isfinite()]
        least = floor * float(varying.median()) if len(varying) else 0.0
        return spread.clamp(min=max(least, 1e-12))


def pair(before: Activations, after: Activations, site: str) -> Pair:
    """Rows of ``site`` in both phases.

    Without labels every counted token is a row and all rows form one group, ``"all"``; with labels, each row is one
    labelled observation.

    Raises:
        DataError: If the phases were not captured from the same inputs, or the models differ in width.
    """
    for name in sorted(set(before.labels) | set(after.labels)):
        if list(before.labels.get(name, [])) != list(after.labels.get(name, [])):
            raise DataError(f"before and after have different rows (label {name!r}); capture both from the same inputs")
    for name in ("tokens", "mask"):
        first, second = getattr(before, name), getattr(after, name)
        if first is not None and second is not None and not torch.equal(first.cpu(), second.cpu()):
            raise DataError(f"before and after have different {name}; capture both from the same inputs")
    labels = before.labels.get("group")
    if labels is None:
        x, y = (phase.flat(site).detach().float().cpu() for phase in (before, after))
    else:
        x, y = features(before, site), features(after, site)
    if x.shape != y.shape:
        raise DataError(f"{site} has shape {tuple(x.shape)} before and {tuple(y.shape)} after; the models differ")
    if labels is None:
        return Pair(x, y, {EVERYTHING: torch.arange(len(x))})
    group = np.asarray(list(labels), dtype=np.str_)
    names = [*(g for g in GROUPS if g in group), *sorted(set(group.tolist()) - set(GROUPS))]
    return Pair(x, y, {name: torch.from_numpy(np.flatnonzero(group == name)) for name in names})


def group_names(before: Activations, groups: Sequence[str] | None) -> tuple[str, ...]:
    """Groups to compare: the given ones, or all.

    Raises:
        DataError: If a group has no rows.
    """
    present = list(dict.fromkeys(before.labels.get("group", [EVERYTHING])))
    if groups is None:
        return (*(g for g in GROUPS if g in present), *sorted(set(present) - set(GROUPS)))
    absent = [g for g in groups if g not in present]
    if absent:
        raise DataError(f"no rows of group {absent[0]!r}; groups: {', '.join(sorted(present))}")
    return tuple(groups)
