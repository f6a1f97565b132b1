"""Small dense problems of GU: which covectors are independent, and the multipliers of a cone projection."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

FEASIBLE = 1e-8
"""A constraint counts as kept when it is violated by less than this part of the largest violation."""


def independent(gram: Float[Tensor, "m m"], tolerance: float) -> list[int]:
    """Indices of the covectors that add a direction to those before them.

    Gram–Schmidt, read from the Gram matrix: a covector is left out when what remains of it has less than
    ``tolerance`` of its length. The first one (the newest) stays unless it is 0.
    """
    kept: list[int] = []
    for j in range(len(gram)):
        length = float(gram[j, j])
        if length <= 0:
            continue
        rest = length
        if kept:
            across = gram[kept, j]
            rest = length - float(across @ torch.linalg.solve(gram[kept][:, kept], across))
        if rest > (tolerance**2) * length:
            kept.append(j)
    return kept


def multipliers(gram: Float[Tensor, "m m"], violation: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """The lambda of ``min_D 1/2 ||D - D0||_M^2  s.t.  G^T D <= 0``, whose solution is ``D0 - M^-1 G lambda``.

    By duality ``min 1/2 l^T K l - b^T l, l >= 0`` with ``K = G^T M^-1 G`` and ``b = G^T D0``: non-negative least
    squares, solved by an active set that grows by the most violated constraint (Lawson and Hanson).

    Args:
        gram: K, positive semi-definite; zero columns and repeated ones are allowed.
        violation: b.

    Returns:
        Multipliers, each at least 0 and 0 for every constraint that is not tight.
    """
    scale = gram.diagonal().clamp(min=0).sqrt()
    usable = scale > 0
    safe = torch.where(usable, scale, torch.ones_like(scale))
    k, b = gram / safe[:, None] / safe[None, :], torch.where(usable, violation / safe, torch.zeros_like(violation))
    lam = torch.zeros_like(b)
    active: list[int] = []
    unit = float(b.max()) if len(b) else 0.0
    if unit <= 0:
        return lam
    b = b / unit
    for _ in range(4 * len(b)):
        rest = b - k @ lam
        rest[active] = -torch.inf
        if float(rest.max()) <= FEASIBLE:
            break
        active.append(int(rest.argmax()))
        while active:
            inside = k[active][:, active] + 1e-13 * torch.eye(len(active), dtype=k.dtype)
            wanted = torch.linalg.solve(inside, b[active])
            if bool((wanted > 0).all()):
                lam = torch.zeros_like(b)
                lam[active] = wanted
                break
            now = lam[active]
            blocked = wanted <= 0
            share = (now / (now - wanted).clamp(min=1e-300))[blocked].min()
            now = now + share * (wanted - now)
            lam = torch.zeros_like(b)
            lam[active] = now
            active = [j for j, value in zip(active, now.tolist(), strict=True) if value > 1e-15]
            lam[[j for j in range(len(b)) if j not in active]] = 0.0
    return lam * unit / safe
