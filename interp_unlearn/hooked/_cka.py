"""Linear centred kernel alignment (CKA), streamed over minibatches in memory that grows with features, not samples.

Kornblith et al., "Similarity of Neural Network Representations Revisited" (2019): with centred X and Y,
CKA = |X'Y|² / (|X'X| |Y'Y|) in Frobenius norms. With few samples and many features this is near 1 for unrelated
representations; the debiased form (Song et al., 2007; Nguyen et al., 2021) is 0 on average then, and may be negative.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import DataError


class LinearCKA:
    """Linear CKA of two representations of the same samples, given in batches of any size.

    Memory is d_x² + d_y² + d_x·d_y numbers. Sums are kept in float64 around the first batch's means, since activations
    have means far larger than their spread.

    Example:
        >>> cka = LinearCKA()
        >>> for x, y in batches:
        ...     cka.add(x, y)
        >>> cka.value()
    """

    def __init__(self) -> None:
        self.n = 0
        self._shift: tuple[Tensor, Tensor] | None = None
        self._sums: dict[str, Tensor] = {}

    def add(self, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"]) -> None:
        """Add samples, row i of ``x`` and of ``y`` being the same one."""
        x, y = x.detach().double(), y.detach().double()
        if self._shift is None:
            self._shift = x.mean(0), y.mean(0)
        x, y = x - self._shift[0], y - self._shift[1]
        p, q = (x**2).sum(1), (y**2).sum(1)
        batch = {
            "x": x.sum(0),
            "y": y.sum(0),
            "xx": x.T @ x,
            "yy": y.T @ y,
            "xy": x.T @ y,
            "p": p.sum(),
            "q": q.sum(),
            "pp": (p**2).sum(),
            "qq": (q**2).sum(),
            "pq": (p * q).sum(),
            "px": p @ x,
            "qx": q @ x,
            "py": p @ y,
            "qy": q @ y,
        }
        self._sums = {k: self._sums[k] + v for k, v in batch.items()} if self._sums else batch
        self.n += len(x)

    def value(self, *, debiased: bool = True) -> float:
        """CKA of all samples so far.

        Args:
            debiased: Use the unbiased estimate of each term, which needs at least 4 samples.

        Raises:
            DataError: If there are too few samples.
        """
        if self.n < (4 if debiased else 2):
            raise DataError(f"CKA of {self.n} samples; give at least {4 if debiased else 2}")
        s, n = self._sums, self.n
        mx, my = s["x"] / n, s["y"] / n
        xx, yy, xy = s["xx"] - n * mx.outer(mx), s["yy"] - n * my.outer(my), s["xy"] - n * mx.outer(my)
        terms = {"xy": (xy**2).sum(), "xx": (xx**2).sum(), "yy": (yy**2).sum()}
        if debiased:
            # sums over samples of |x - mx|² |y - my|², from the raw moments
            a, b = mx @ mx, my @ my
            products = {
                "xy": s["pq"] - 2 * my @ s["py"] + b * s["p"] - 2 * mx @ s["qx"] + 4 * mx @ s["xy"] @ my
                - 2 * b * (mx @ s["x"]) + a * s["q"] - 2 * a * (my @ s["y"]) + n * a * b,
                "xx": s["pp"] - 4 * mx @ s["px"] + 2 * a * s["p"] + 4 * mx @ s["xx"] @ mx
                - 4 * a * (mx @ s["x"]) + n * a * a,
                "yy": s["qq"] - 4 * my @ s["qy"] + 2 * b * s["q"] + 4 * my @ s["yy"] @ my
                - 4 * b * (my @ s["y"]) + n * b * b,
            }  # fmt: skip
            tx, ty = xx.trace(), yy.trace()
            traces = {"xy": tx * ty, "xx": tx * tx, "yy": ty * ty}
            terms = {k: _unbiased(v, products[k], traces[k], n) for k, v in terms.items()}
        return _ratio(*(float(terms[k]) for k in ("xy", "xx", "yy")))


def _unbiased(term: Tensor, products: Tensor, traces: Tensor, n: int) -> Tensor:
    """Unbiased HSIC, up to the factor n (n - 3) that cancels, from centred sums."""
    return term - n / (n - 2) * products + traces / ((n - 1) * (n - 2))


def _ratio(xy: float, xx: float, yy: float) -> float:
    return xy / (xx * yy) ** 0.5 if xx > 0 and yy > 0 else float("nan")


def linear_cka(x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"], *, debiased: bool = True) -> float:
    """Linear CKA of two representations of the same samples; 1 is the same up to rotation and scale.

    Uses Gram matrices where there are fewer samples than features of either, feature space otherwise; both give the
    same number.

    Args:
        x: First representation.
        y: Second representation, same samples.
        debiased: See `LinearCKA.value`.

    Returns:
        The alignment, or ``nan`` where a representation does not vary.
    """
    n = len(x)
    if n >= max(x.shape[1], y.shape[1]) or n < 4:
        streamed = LinearCKA()
        streamed.add(x, y)
        return streamed.value(debiased=debiased)
    x, y = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    k, g = x @ x.T, y @ y.T
    terms = {"xy": (k * g).sum(), "xx": (k**2).sum(), "yy": (g**2).sum()}
    if debiased:
        dk, dg = k.diagonal(), g.diagonal()
        traces = {"xy": dk.sum() * dg.sum(), "xx": dk.sum() ** 2, "yy": dg.sum() ** 2}
        products = {"xy": dk @ dg, "xx": dk @ dk, "yy": dg @ dg}
        terms = {key: _unbiased(v, products[key], traces[key], n) for key, v in terms.items()}
    return _ratio(*(float(terms[key]) for key in ("xy", "xx", "yy")))
