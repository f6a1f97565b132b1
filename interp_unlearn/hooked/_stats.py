"""Streamed statistics: constant memory over any number of tokens, and the same result in any order.

Every statistic has four verbs: ``add`` rows, ``merge`` another of its kind, ``state_dict`` (tensors only, for
safetensors) and ``load_state_dict``. Sums run in float64. Merging the statistics of two parts gives the statistic of
the whole: exactly for counts, top values and quantiles, to rounding for means and variances.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import DataError

S = TypeVar("S", bound="Statistic")


class Statistic(ABC):
    """Base of all statistics over rows of ``d`` features; ``d`` is fixed by the first rows.

    Attributes:
        kind: Name of the statistic in saved files.
        n: Rows seen.
    """

    kind: ClassVar[str]
    settings: ClassVar[tuple[str, ...]] = ()
    tensors: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.n = 0
        for name in self.tensors:
            setattr(self, name, None)

    @property
    def d(self) -> int | None:
        """Number of features, or None before the first rows."""
        first = getattr(self, self.tensors[0])
        return None if first is None else int(first.shape[-1])

    def add(self: S, rows: Float[Tensor, "n d"], ids: Int[Tensor, " n"] | None = None) -> S:
        """Take rows into account.

        Args:
            rows: One row per token. Integers and half precision are widened.
            ids: What to remember of each row where a statistic remembers rows (`TopK`); default its running number.

        Raises:
            DataError: If rows hold NaN or infinity, or another number of features than before.
        """
        if rows.shape[0] == 0:
            return self
        wide = rows.detach().to(device="cpu", dtype=torch.float64)
        self._check_width(int(wide.shape[1]))
        if not bool(torch.isfinite(wide).all()):
            raise DataError(f"{self.kind}: the rows hold NaN or infinity after {self.n} good rows")
        if ids is None:
            ids = torch.arange(self.n, self.n + len(wide))
        self._add(wide, ids.detach().to(device="cpu", dtype=torch.int64))
        self.n += len(wide)
        return self

    def merge(self: S, other: S) -> S:
        """Take all rows of another statistic of the same kind and settings into account; ``other`` is unchanged.

        Raises:
            DataError: If kinds, settings or numbers of features differ.
        """
        if type(other) is not type(self) or other._settings() != self._settings():
            raise DataError(
                f"cannot merge {self._describe()} with {other._describe()}; make both with the same settings"
            )
        if other.n:
            self._check_width(int(other.d or 0))
            self._merge(other)
            self.n += other.n
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Everything as tensors, for `write_tensors`."""
        state = {"n": torch.tensor(self.n, dtype=torch.int64)}
        for name, value in self._settings().items():
            state[name] = torch.tensor(value, dtype=torch.float64)
        for name in self.tensors:
            value = getattr(self, name)
            if value is not None:
                state[name.lstrip("_")] = value.clone()
        return state

    def load_state_dict(self: S, state: Mapping[str, Tensor]) -> S:
        """Become what `state_dict` described.

        Raises:
            DataError: If the state is of another kind or was made with other settings.
        """
        saved = {name: name.lstrip("_") for name in self.tensors}
        known = {"n", *self.settings, *saved.values()}
        if "n" not in state or not set(state) <= known:
            raise DataError(f"this is not the state of {self._describe()}: it has {', '.join(sorted(state))}")
        theirs = {name: float(state[name]) for name in self.settings if name in state}
        if theirs != self._settings():
            raise DataError(
                f"the state was made with {theirs}, this is {self._describe()}; make it with the same settings"
            )
        missing = [name for name in saved.values() if int(state["n"]) and name not in state]
        if missing:
            raise DataError(f"the state of {self._describe()} lacks {', '.join(missing)}")
        self.n = int(state["n"])
        for name, key in saved.items():
            setattr(self, name, state[key].clone() if key in state else None)
        return self

    @abstractmethod
    def _add(self, rows: Tensor, ids: Tensor, /) -> None: ...

    @abstractmethod
    def _merge(self, other: Any) -> None: ...

    def _settings(self) -> dict[str, float]:
        return {name: float(getattr(self, name)) for name in self.settings}

    def _describe(self) -> str:
        inside = ", ".join(f"{k}={v:g}" for k, v in self._settings().items())
        return f"{type(self).__name__}({inside})"

    def _check_width(self, width: int) -> None:
        if self.d is not None and self.d != width:
            raise DataError(f"{self.kind}: rows of {width} features after rows of {self.d}")

    def _seen(self) -> None:
        if self.n == 0:
            raise DataError(f"{self.kind}: no rows were added yet")


class Mean(Statistic):
    """Mean of each feature.

    Example:
        >>> Mean().add(first).add(second).mean
    """

    kind = "mean"
    tensors = ("_mean",)
    _mean: Tensor

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """(d,), float64."""
        self._seen()
        return self._mean.clone()

    def _add(self, rows: Tensor, _ids: Tensor, /) -> None:
        self._join(len(rows), rows.mean(0))

    def _merge(self, other: Any) -> None:
        self._join(other.n, other._mean)

    def _join(self, n: int, mean: Tensor) -> None:
        self._mean = mean.clone() if self.n == 0 else self._mean + (mean - self._mean) * (n / (self.n + n))


class Variance(Statistic):
    """Mean and variance of each feature, by Chan's pairwise update (Chan, Golub & LeVeque 1983, eq. 2.1)."""

    kind = "variance"
    tensors = ("_mean", "_squares")
    _mean: Tensor
    _squares: Tensor

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """(d,), float64."""
        self._seen()
        return self._mean.clone()

    @property
    def variance(self) -> Float[Tensor, " d"]:
        """Unbiased variance, (d,); NaN from a single row."""
        self._seen()
        return self._squares / (self.n - 1) if self.n > 1 else torch.full_like(self._squares, torch.nan)

    @property
    def std(self) -> Float[Tensor, " d"]:
        """Square root of `variance`."""
        return self.variance.sqrt()

    def _add(self, rows: Tensor, _ids: Tensor, /) -> None:
        mean = rows.mean(0)
        self._join(len(rows), mean, (rows - mean).pow(2).sum(0))

    def _merge(self, other: Any) -> None:
        self._join(other.n, other._mean, other._squares)

    def _join(self, n: int, mean: Tensor, squares: Tensor) -> None:
        if self.n == 0:
            self._mean, self._squares = mean.clone(), squares.clone()
            return
        gap, total = mean - self._mean, self.n + n
        self._squares = self._squares + squares + gap.pow(2) * (self.n * n / total)
        self._mean = self._mean + gap * (n / total)


class Covariance(Statistic):
    """Mean and covariance of all pairs of features; memory is d²."""

    kind = "covariance"
    tensors = ("_mean", "_products")
    _mean: Tensor
    _products: Tensor

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """(d,), float64."""
        self._seen()
        return self._mean.clone()

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Unbiased covariance, (d, d); NaN from a single row."""
        self._seen()
        return self._products / (self.n - 1) if self.n > 1 else torch.full_like(self._products, torch.nan)

    def _add(self, rows: Tensor, _ids: Tensor, /) -> None:
        mean = rows.mean(0)
        centred = rows - mean
        self._join(len(rows), mean, centred.T @ centred)

    def _merge(self, other: Any) -> None:
        self._join(other.n, other._mean, other._products)

    def _join(self, n: int, mean: Tensor, products: Tensor) -> None:
        if self.n == 0:
            self._mean, self._products = mean.clone(), products.clone()
            return
        gap, total = mean - self._mean, self.n + n
        self._products = self._products + products + torch.outer(gap, gap) * (self.n * n / total)
        self._mean = self._mean + gap * (n / total)


class FiringRate(Statistic):
    """How often each feature is above a threshold, and its mean while it is (SAE latents, neurons).

    Args:
        threshold: A feature fires when it is strictly above this.
    """

    kind = "firing_rate"
    settings = ("threshold",)
    tensors = ("_fired", "_sum")
    _fired: Tensor
    _sum: Tensor

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    @property
    def rate(self) -> Float[Tensor, " d"]:
        """Share of rows in which the feature fires, (d,)."""
        self._seen()
        return self._fired.double() / self.n

    @property
    def count(self) -> Int[Tensor, " d"]:
        """Rows in which the feature fires, (d,)."""
        self._seen()
        return self._fired.clone()

    @property
    def mean_when_firing(self) -> Float[Tensor, " d"]:
        """Mean of the feature over the rows in which it fires, (d,); 0 where it never does."""
        self._seen()
        return self._sum / self._fired.clamp(min=1)

    def _add(self, rows: Tensor, _ids: Tensor, /) -> None:
        fires = rows > self.threshold
        self._join(fires.sum(0), torch.where(fires, rows, 0.0).sum(0))

    def _merge(self, other: Any) -> None:
        self._join(other._fired, other._sum)

    def _join(self, fired: Tensor, total: Tensor) -> None:
        first = self.n == 0
        self._fired = fired.clone() if first else self._fired + fired
        self._sum = total.clone() if first else self._sum + total
