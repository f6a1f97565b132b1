"""Means over targets and seeds with intervals that take the target as the unit: its seeds are not independent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from interp_unlearn._core import numpy_rng

LEVEL = 0.95
RESAMPLES = 9999

Interval = Literal["t", "bootstrap"]
Where = tuple[str, str]
"""Target and seed of one number."""


@dataclass(frozen=True)
class Estimate:
    """A mean over targets, each the mean over its seeds.

    Attributes:
        mean: The mean, NaN where there is no number.
        low: Lower end of the 95 % interval, NaN where there is none.
        high: Upper end.
        sd: Standard deviation over the units, NaN for a single one.
        n: Numbers behind it (runs).
        units: How many independent units the interval rests on.
        how: What the interval is, e.g. ``"t over 3 targets"``; empty where there is none.
        targets: How many targets the numbers are of.
        seeds: How many seeds.
    """

    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    sd: float = math.nan
    n: int = 0
    units: int = 0
    how: str = ""
    targets: int = 0
    seeds: int = 0

    @property
    def missing(self) -> bool:
        """Whether there is no number."""
        return math.isnan(self.mean)


def estimate(values: Mapping[Where, float], interval: Interval = "t") -> Estimate:
    """Mean and 95 % interval of numbers by target and seed.

    With two targets or more the units are the targets (their means over seeds); with one target they are its seeds, and
    the interval says nothing about other targets.

    Args:
        values: Numbers by (target, seed); NaN is left out.
        interval: ``"t"``, Student's t over the units, or ``"bootstrap"``, percentiles of resampled units, which is too
            narrow for few of them.
    """
    known = {where: value for where, value in values.items() if not math.isnan(value)}
    if not known:
        return Estimate()
    targets = sorted({target for target, _ in known})
    if len(targets) > 1:
        unit = "targets"
        units = np.array([np.mean([v for (t, _), v in known.items() if t == target]) for target in targets])
    else:
        unit = "seeds"
        units = np.array(list(known.values()), dtype=np.float64)
    mean, count, seeds = float(units.mean()), len(units), len({seed for _, seed in known})
    if count < 2:
        return Estimate(mean, n=len(known), units=count, targets=len(targets), seeds=seeds)
    from scipy import stats  # half of the time that it takes to import this room; only tables of many runs need it

    sd = float(units.std(ddof=1))
    if np.ptp(units) == 0:  # nothing differs: both intervals are the point itself
        low = high = mean
    elif interval == "t":
        half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * sd / math.sqrt(count)
        low, high = mean - half, mean + half
    else:
        drawn = stats.bootstrap(
            (units,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=LEVEL,
            method="percentile",
            rng=numpy_rng(0, "compare"),
        )
        low, high = float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)
    how = f"{interval} over {count} {unit}"
    return Estimate(mean, low, high, sd, len(known), count, how, len(targets), seeds)
