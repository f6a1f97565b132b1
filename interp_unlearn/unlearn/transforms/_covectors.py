"""A short history of retain gradients, and the few inner products that projecting onto it needs.

Covectors are kept as rows beside the trained parameters, in float32 and of length 1. They are never combined into a
basis: everything goes through their Gram matrix under the inverse metric P, ``K = G^T P G`` (at most as wide as the
history is long), so nothing of the size of a weight matrix squared is ever built, and a change of metric costs nothing.

``inverse`` in the arguments below is the diagonal of P, by parameter name. A 0 in it says that this coordinate does
not move (its mass is infinite): it takes no part in products and receives nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import FileFormatError

CHUNK = 1 << 16
"""Coordinates per matrix product: small enough for the cache."""

Vector = Mapping[str, Tensor]


def products(left: Vector, right: Vector, inverse: Vector) -> float:
    """``left^T P right``, in float64."""
    total = 0.0
    for name, one in left.items():
        a, b, weights = one.flatten(), right[name].flatten(), inverse[name].flatten()
        for start in range(0, len(a), 16 * CHUNK):
            part = slice(start, start + 16 * CHUNK)
            total += float((a[part].double() * weights[part]) @ b[part].double())
    return total


class Covectors:
    """First in, first out.

    Args:
        like: Tensors of the trained parameters' shapes and devices, by name.
        size: Covectors kept at most.
    """

    def __init__(self, like: Vector, size: int) -> None:
        self.size = size
        self.pushed = 0
        self._rows = {
            name: torch.zeros(size, t.numel(), dtype=torch.float32, device=t.device) for name, t in like.items()
        }

    def __len__(self) -> int:
        return min(self.pushed, self.size)

    @property
    def order(self) -> list[int]:
        """Rows from the newest to the oldest."""
        return [(self.pushed - 1 - i) % self.size for i in range(len(self))]

    def push(self, gradient: Vector) -> bool:
        """Take a gradient, divided by its length; a zero gradient constrains nothing and is not taken."""
        norm = sum(float(g.double().square().sum()) for g in gradient.values()) ** 0.5
        if norm == 0:
            return False
        row = self.pushed % self.size
        for name, rows in self._rows.items():
            rows[row] = gradient[name].flatten().float() / norm
        self.pushed += 1
        return True

    def covector(self, index: int) -> dict[str, Tensor]:
        """The covector number ``index``, newest first, flattened by parameter."""
        row = self.order[index]
        return {name: rows[row] for name, rows in self._rows.items()}

    def products(
        self, inverse: Vector, vectors: Sequence[Vector], *, gram: bool = True
    ) -> tuple[Float[Tensor, "m m"], Float[Tensor, "m k"]]:
        """``G^T P G`` and ``G^T P V`` for some vectors, newest covector first, in float64 on the CPU.

        Args:
            inverse: Diagonal of P.
            vectors: Columns of V.
            gram: False leaves the first result at 0.
        """
        m = len(self)
        k_matrix, b = torch.zeros(m, m, dtype=torch.float64), torch.zeros(m, len(vectors), dtype=torch.float64)
        for name, rows in self._rows.items():
            flat = [v[name].flatten() for v in vectors]
            weights = inverse[name].flatten()
            for start in range(0, rows.shape[1], CHUNK):
                part = slice(start, start + CHUNK)
                g = rows[:m, part].double()  # what float32 misses here would stay in the step
                if gram:
                    k_matrix += ((g * weights[part]) @ g.T).cpu()
                if vectors:
                    columns = torch.stack([v[part].double() for v in flat])
                    b += (g @ (columns * weights[part]).T).cpu()
        order = self.order
        return k_matrix[order][:, order], b[order]

    def add(self, vector: dict[str, Tensor], coefficients: Float[Tensor, " m"], inverse: Vector) -> None:
        """``vector += G coefficients`` where P is not 0, in place (``vector`` holds contiguous float32 tensors)."""
        by_row = torch.zeros(len(self), dtype=torch.float32)
        by_row[self.order] = coefficients.float()
        for name, rows in self._rows.items():
            flat, weights, c = vector[name].view(-1), inverse[name].flatten(), by_row.to(rows.device)
            for start in range(0, rows.shape[1], CHUNK):
                part = slice(start, start + CHUNK)
                flat[part] += (c @ rows[: len(self), part]) * (weights[part] > 0)

    def state(self) -> dict[str, Tensor]:
        """Rows in use and the number of pushes."""
        rows = {f"rows/{name}": r[: len(self)].to("cpu", copy=True) for name, r in self._rows.items()}
        return {"pushed": torch.tensor(self.pushed), **rows}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned.

        Raises:
            FileFormatError: If rows are missing or of another shape.
        """
        if "pushed" not in tensors:
            raise FileFormatError("the saved state lacks the retain covectors of transform 'gu'; it may be truncated")
        self.pushed = int(tensors["pushed"])
        for name, rows in self._rows.items():
            saved = tensors.get(f"rows/{name}")
            if saved is None or saved.shape != rows[: len(self)].shape:
                raise FileFormatError(
                    f"the saved state's retain covectors of {name} are missing or have another shape; it may be "
                    "truncated"
                )
            rows[: len(self)] = saved.to(rows.device)
