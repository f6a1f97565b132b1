"""Separation scores: which latents tell known entities from unknown ones, across entity types.

Definitions of Ferrando et al., "Do I Know This Entity?" (arXiv 2411.14257), as their code computes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn._core import Axis, DataError, Labelled

EPS = 1e-6
GENERIC_LIMIT = 0.02


@dataclass(frozen=True)
class SeparationScores:
    """Scores of every latent.

    Attributes:
        types: Entity types, the rows of the arrays below.
        f_known: Fraction of known prompts of each type where the latent fires, (type, m).
        f_unknown: The same for unknown prompts, (type, m).
        general_known: Minimum over types of ``f_known - f_unknown``, (m,).
        general_unknown: Minimum over types of ``f_unknown - f_known``, (m,); not the negative of `general_known`.
        generic: Fraction of random words where the latent fires, (m,), or None if not measured.
        n_known: Known prompts per type.
        n_unknown: Unknown prompts per type.
        generic_limit: Latents with ``generic`` at or above this are never returned.
    """

    types: tuple[str, ...]
    f_known: Float[Tensor, "t m"]
    f_unknown: Float[Tensor, "t m"]
    general_known: Float[Tensor, " m"]
    general_unknown: Float[Tensor, " m"]
    generic: Float[Tensor, " m"] | None
    n_known: tuple[int, ...]
    n_unknown: tuple[int, ...]
    generic_limit: float = GENERIC_LIMIT

    @property
    def known(self) -> Float[Tensor, "t m"]:
        """Known score of each type."""
        return self.f_known - self.f_unknown

    @property
    def unknown(self) -> Float[Tensor, "t m"]:
        """Unknown score of each type."""
        return self.f_unknown - self.f_known

    @property
    def allowed(self) -> Bool[Tensor, " m"]:
        """Latents that are not generic."""
        if self.generic is None:
            return torch.ones_like(self.general_known, dtype=torch.bool)
        return self.generic < self.generic_limit

    @property
    def maxmin_known(self) -> float:
        """Best known score over latents of the worst type: the value of the layer curve."""
        return float(self.general_known.max())

    @property
    def maxmin_unknown(self) -> float:
        """The same for unknown latents."""
        return float(self.general_unknown.max())

    def top_known(self, k: int = 10) -> tuple[int, ...]:
        """S_K: the best k known latents, best first, generic ones excluded, scores above 0 only."""
        return self._top(self.general_known, k)

    def top_unknown(self, k: int = 10) -> tuple[int, ...]:
        """S_U: the best k unknown latents."""
        return self._top(self.general_unknown, k)

    def _top(self, score: Tensor, k: int) -> tuple[int, ...]:
        order = torch.argsort(score, descending=True, stable=True)
        keep = self.allowed & (score > 0)
        return tuple(int(j) for j in order if bool(keep[j]))[:k]

    def to_labelled(
        self, latents: Sequence[int] | None = None, *, mask_policy: str = "last token of the name"
    ) -> Labelled:
        """Scores as a table (score, latent), for run folders.

        Args:
            latents: Which latents; default the best ten of each side.
            mask_policy: Which tokens the activations stand for.
        """
        chosen = list(latents) if latents is not None else [*dict.fromkeys((*self.top_known(), *self.top_unknown()))]
        names = ["general known", "general unknown", *(f"known: {t}" for t in self.types)]
        rows = [self.general_known, self.general_unknown, *self.known]
        if self.generic is not None:
            names.append("fires on random words")
            rows.append(self.generic)
        values = torch.stack(rows)[:, chosen].numpy() if chosen else np.zeros((len(names), 0))
        return Labelled(
            "separation score",
            values,
            (Axis("score", tuple(names)), Axis("latent", tuple(str(j) for j in chosen))),
            n=sum(self.n_known) + sum(self.n_unknown),
            mask_policy=mask_policy,
            config={"eps": EPS, "generic_limit": self.generic_limit, "generic": self.generic is not None},
            note="difference of firing frequency between known and unknown prompts; general = minimum over types",
        )


def firing_rate(z: Float[Tensor, "n m"], eps: float = EPS) -> Float[Tensor, " m"]:
    """Fraction of rows where each latent exceeds ``eps``; 0 for no rows."""
    return (z > eps).float().mean(0) if z.shape[0] else torch.zeros(z.shape[1])


def separation_scores(
    z_known: Float[Tensor, "nk m"],
    z_unknown: Float[Tensor, "nu m"],
    types_known: Sequence[str],
    types_unknown: Sequence[str],
    *,
    generic: Float[Tensor, " m"] | None = None,
    eps: float = EPS,
    generic_limit: float = GENERIC_LIMIT,
) -> SeparationScores:
    """Separation scores per type and over types.

    Args:
        z_known: Latents at the last name token of prompts with known entities.
        z_unknown: The same for unknown entities.
        types_known: Entity type of each row of ``z_known``.
        types_unknown: Entity type of each row of ``z_unknown``.
        generic: How often each latent fires on random words, from `generic_rate`.
        eps: A latent fires above this.
        generic_limit: Latents that fire on this share of random words or more are excluded.

    Raises:
        DataError: If labels and rows differ in number, or there are no rows.
    """
    if len(types_known) != z_known.shape[0] or len(types_unknown) != z_unknown.shape[0]:
        raise DataError(
            f"one type per row is needed: {z_known.shape[0]} known rows with {len(types_known)} types, "
            f"{z_unknown.shape[0]} unknown rows with {len(types_unknown)} types"
        )
    if z_known.shape[1] != z_unknown.shape[1]:
        raise DataError(f"known and unknown latents differ in number: {z_known.shape[1]} and {z_unknown.shape[1]}")
    types = tuple(sorted({*types_known, *types_unknown}))
    if not types:
        raise DataError("separation scores need at least one prompt")
    known, unknown = np.asarray(types_known), np.asarray(types_unknown)
    rows_k = [torch.from_numpy(np.flatnonzero(known == t)) for t in types]
    rows_u = [torch.from_numpy(np.flatnonzero(unknown == t)) for t in types]
    f_known = torch.stack([firing_rate(z_known[rows], eps) for rows in rows_k])
    f_unknown = torch.stack([firing_rate(z_unknown[rows], eps) for rows in rows_u])
    return SeparationScores(
        types,
        f_known,
        f_unknown,
        (f_known - f_unknown).min(0).values,
        (f_unknown - f_known).min(0).values,
        generic,
        tuple(len(rows) for rows in rows_k),
        tuple(len(rows) for rows in rows_u),
        generic_limit,
    )
