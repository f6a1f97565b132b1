"""`Quantile`: a mergeable sketch with a stated error, and `TopK`: the largest values and where they were."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked._stats import Statistic


class Quantile(Statistic):
    """Quantiles of each feature from a histogram with logarithmic bins.

    DDSketch (Masson, Rim & Lee, VLDB 2019): a value x falls into bin ⌈log_γ |x|⌉ with γ = (1 + α) / (1 − α), so
    whatever the data, an estimate is within α·|x| of the order statistic x it stands for. Bins only count: the result
    does not depend on the order of rows or on how parts were merged, not even in the last bit.

    Args:
        relative_error: α. Memory is about ``2 · ln(largest / smallest) / (2 α)`` counts per feature (16 kB at the
            defaults).
        smallest: Magnitudes below this count as zero.
        largest: Magnitudes above this count as ``largest``; only the extremes (q = 0 and 1) are always exact.
    """

    kind = "quantile"
    settings = ("relative_error", "smallest", "largest")
    tensors = ("_counts", "_low", "_high")  # (bins, d), (d,), (d,)
    _counts: Tensor
    _low: Tensor
    _high: Tensor

    def __init__(self, relative_error: float = 0.01, smallest: float = 1e-4, largest: float = 1e5) -> None:
        super().__init__()
        if not 0 < relative_error < 1 or not 0 < smallest < largest:
            raise DataError("Quantile needs 0 < relative_error < 1 and 0 < smallest < largest")
        self.relative_error, self.smallest, self.largest = relative_error, smallest, largest
        self._log_gamma = math.log((1 + relative_error) / (1 - relative_error))
        self._first = math.ceil(math.log(smallest) / self._log_gamma)
        self._half = math.ceil(math.log(largest) / self._log_gamma) - self._first + 1  # bins on each side of zero

    def quantile(self, q: float) -> Float[Tensor, " d"]:
        """The order statistic at rank ⌊q·(n − 1)⌋ of each feature, (d,), within ``relative_error``.

        Args:
            q: 0 (smallest) to 1 (largest); 0.5 is the median.
        """
        self._seen()
        if not 0 <= q <= 1:
            raise DataError(f"a quantile lies between 0 and 1, got {q}")
        rank = math.floor(q * (self.n - 1))
        if rank in (0, self.n - 1):
            return self.low if rank == 0 else self.high
        above = self._counts.cumsum(0) > rank
        estimate = self._values()[above.to(torch.int8).argmax(0)]
        return estimate.clamp(self._low, self._high)  # never outside what was seen

    @property
    def median(self) -> Float[Tensor, " d"]:
        """`quantile` at 0.5."""
        return self.quantile(0.5)

    @property
    def low(self) -> Float[Tensor, " d"]:
        """Smallest value seen, exact, (d,)."""
        self._seen()
        return self._low.clone()

    @property
    def high(self) -> Float[Tensor, " d"]:
        """Largest value seen, exact, (d,)."""
        self._seen()
        return self._high.clone()

    def _values(self) -> Float[Tensor, " bins"]:
        """The value that each bin stands for: the point with equal relative distance to both of its edges."""
        keys = torch.arange(self._first, self._first + self._half, dtype=torch.float64)
        gamma = math.exp(self._log_gamma)
        positive = 2 * torch.exp(keys * self._log_gamma) / (gamma + 1)
        return torch.cat([-positive.flip(0), torch.zeros(1, dtype=torch.float64), positive])

    def _add(self, rows: Tensor, _ids: Tensor, /) -> None:
        size = rows.abs()
        key = torch.ceil(size.clamp(min=self.smallest).log() / self._log_gamma) - self._first
        key = key.clamp(0, self._half - 1).long() + 1
        signed = torch.where(size < self.smallest, 0, torch.where(rows < 0, -key, key)) + self._half
        if self.n == 0:
            self._counts = torch.zeros(2 * self._half + 1, rows.shape[1], dtype=torch.int64)
            self._low, self._high = rows.amin(0), rows.amax(0)
        self._counts.scatter_add_(0, signed, torch.ones_like(signed))
        self._low, self._high = torch.minimum(self._low, rows.amin(0)), torch.maximum(self._high, rows.amax(0))

    def _merge(self, other: Any) -> None:
        first = self.n == 0
        self._counts = other._counts.clone() if first else self._counts + other._counts
        self._low = other._low.clone() if first else torch.minimum(self._low, other._low)
        self._high = other._high.clone() if first else torch.maximum(self._high, other._high)


class TopK(Statistic):
    """The ``k`` largest values of each feature with the ids of their rows; ties go to the smaller id.

    Args:
        k: How many.
    """

    kind = "top_k"
    settings = ("k",)
    tensors = ("_values", "_ids")  # (at most k, d)
    _values: Tensor
    _ids: Tensor

    def __init__(self, k: int = 10) -> None:
        super().__init__()
        if k < 1:
            raise DataError(f"TopK needs k of at least 1, got {k}")
        self.k = k

    @property
    def values(self) -> Float[Tensor, "k d"]:
        """Largest first, (k, d); fewer rows than k if fewer were added."""
        self._seen()
        return self._values.clone()

    @property
    def ids(self) -> Int[Tensor, "k d"]:
        """Row ids of `values`."""
        self._seen()
        return self._ids.clone()

    def _add(self, rows: Tensor, ids: Tensor, /) -> None:
        self._join(*_largest(rows, ids[:, None].expand_as(rows), self.k))

    def _merge(self, other: Any) -> None:
        self._join(other._values, other._ids)

    def _join(self, values: Tensor, ids: Tensor) -> None:
        if self.n:
            values, ids = torch.cat([self._values, values]), torch.cat([self._ids, ids])
        self._values, self._ids = _largest(values, ids, self.k)


def _largest(values: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each column, ties by smaller id, in that order."""
    if len(values) > 4 * k:  # drop what is surely too small, keeping every tie of the k-th value
        kth = values.topk(k, dim=0).values[-1]
        candidates = int((values >= kth).sum(0).max())
        if candidates < len(values):
            index = values.topk(candidates, dim=0).indices
            values, ids = values.gather(0, index), ids.gather(0, index)
    by_id = ids.argsort(dim=0, stable=True)
    values, ids = values.gather(0, by_id), ids.gather(0, by_id)
    by_value = values.argsort(dim=0, descending=True, stable=True)[:k]
    return values.gather(0, by_value), ids.gather(0, by_value)
