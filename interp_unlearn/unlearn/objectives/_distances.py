"""Distances and losses in latent space, as formulas on (n, m) tensors.

z: codes of the target; goal and known: what each row is drawn towards and pushed from; unit: D(mu_U, mu_K) of each row.
Formulas R-A, R-0 and R-3 are the reconstruction of the SAE-guided objective (after arXiv 2509.15631, whose own
formulas are not public); see the module docstring of `sae_guided`.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Distance = Literal["l2", "cosine", "l1"]
NORM_WEIGHT = 0.1  # cosine alone ignores length, and a target of another length than any unknown entity is easy to tell


def distance(u: Float[Tensor, "*n m"], v: Float[Tensor, "*n m"], kind: Distance) -> Float[Tensor, "*n"]:
    """Distance of rows: squared L2, L1, or cosine.

    Cosine is ``1 - cos`` plus 0.1 × the squared difference of the norms over their product.
    """
    if kind == "l2":
        return (u - v).square().sum(-1)
    if kind == "l1":
        return (u - v).abs().sum(-1)
    length_u, length_v = u.norm(dim=-1).clamp(min=1e-8), v.norm(dim=-1).clamp(min=1e-8)
    cosine = (u * v).sum(-1) / (length_u * length_v)
    return 1 - cosine + NORM_WEIGHT * (length_u - length_v).square() / (length_u * length_v)


def attract(
    z: Float[Tensor, "n m"],
    goal: Float[Tensor, "n m"],
    known: Float[Tensor, "n m"],
    unit: Float[Tensor, " n"],
    kind: Distance = "l2",
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """R-A: ``(toward, away) = (mean D(z, goal) / s, mean max(0, 1 - D(z, known) / s))``."""
    toward = distance(z, goal, kind) / unit
    away = (1 - distance(z, known, kind) / unit).clamp(min=0)
    return toward.mean(), away.mean()


def literal(
    z: Float[Tensor, "n m"],
    goal: Float[Tensor, "n m"],
    known: Float[Tensor, "n m"],
    unit: Float[Tensor, " n"],
    lam: float,
    kind: Distance = "l2",
) -> Float[Tensor, ""]:
    """R-0: ``mean (D(z, goal) - lam D(z, known)) / s``; overshoots for lam > 0, unbounded below for lam ≥ 1."""
    return ((distance(z, goal, kind) - lam * distance(z, known, kind)) / unit).mean()


def push(
    z_known: Float[Tensor, "n k"],
    a_unknown: Float[Tensor, "n u"],
    scale_known: Float[Tensor, " k"],
    level_unknown: Float[Tensor, " u"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """R-3: ``(mean z_j / c_j over known latents, mean relu(v_j - a_j)^2 / v_j^2 over unknown latents)``.

    The second term reads pre-activations a, since a latent that is off has no gradient. A side without latents gives 0.
    """
    zero = z_known.sum() * 0 + a_unknown.sum() * 0
    down = (z_known / scale_known).mean() if z_known.shape[-1] else zero
    up = (
        ((level_unknown - a_unknown).clamp(min=0).square() / level_unknown.square()).mean()
        if a_unknown.shape[-1]
        else zero
    )
    return down, up


def median_bandwidth(x: Float[Tensor, "n m"]) -> float:
    """Median squared distance between different rows (at least a tiny positive number)."""
    squared = torch.cdist(x, x).square()
    apart = squared[~torch.eye(len(x), dtype=torch.bool, device=x.device)]
    return max(float(apart.median()), 1e-12) if len(apart) else 1.0


def mmd(x: Float[Tensor, "n m"], y: Float[Tensor, "k m"], bandwidth: float) -> Float[Tensor, ""]:
    """Squared maximum mean discrepancy (V-statistic, ≥ 0), mean over kernels ``exp(-D / (b t))``, t in ½, 1, 2."""

    def squared(a: Tensor, b: Tensor) -> Tensor:
        return (a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T).clamp(min=0)

    total = x.sum() * 0
    for factor in (0.5, 1.0, 2.0):
        kernel = lambda a, b, f=factor: (-squared(a, b) / (bandwidth * f)).exp().mean()  # noqa: E731
        total = total + kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)
    return total / 3
