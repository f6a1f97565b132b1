"""The known–unknown axis: where a vector lies between the original model's known and unknown entities.

With v = mu_U - mu_K:  t = <z - mu_K, v> / |v|^2  (0 at known, 1 at unknown, above 1 overshoot),
r = |z - mu_K - t v| / |v|  (how far off the line), and the alignment ratio
A = D(z, mu_K) / (D(z, mu_K) + D(z, mu_U)) with D the squared distance (0 known, 1 unknown).
All three are unchanged when the coordinates are rotated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp_unlearn._core import DataError
from interp_unlearn.probes._rows import Rows

COORDINATES = ("t", "r", "A")


@dataclass(frozen=True)
class KnownUnknownAxis:
    """Means of known and unknown reference rows.

    Attributes:
        mu_k: Mean of the known references, (feature,).
        mu_u: Mean of the unknown references, (feature,).
    """

    mu_k: Float[np.ndarray, " d"]
    mu_u: Float[np.ndarray, " d"]

    def __post_init__(self) -> None:
        if not float(((self.mu_u - self.mu_k) ** 2).sum()) > 0:
            raise DataError(
                "known and unknown references have the same mean, so there is no axis between them; "
                "choose another layer or other latents"
            )

    @classmethod
    def fit(cls, rows: Rows) -> KnownUnknownAxis:
        """The axis of the groups ``known_ref`` and ``unknown_ref``."""
        return cls(rows.of("known_ref").x.mean(0), rows.of("unknown_ref").x.mean(0))

    def coordinates(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 3"]:
        """t, r and A of each row, see `COORDINATES`."""
        v = self.mu_u - self.mu_k
        length2 = float(v @ v)
        from_k = z - self.mu_k
        t = from_k @ v / length2
        r = np.sqrt(((from_k - t[:, None] * v) ** 2).sum(1) / length2)
        to_k, to_u = (from_k**2).sum(1), ((z - self.mu_u) ** 2).sum(1)
        return np.stack([t, r, to_k / (to_k + to_u)], 1)
