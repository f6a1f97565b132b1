"""Reference statistics of known and unknown entities in a dictionary: the coordinates of an SAE-guided objective."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.latents._sae import SAE


@dataclass(frozen=True)
class ReferenceStats:
    """Means of latents over known (K) and unknown (U) prompts of the original model, without gradient.

    Attributes:
        mu_K: Mean latents of known prompts, (m,); `c` is its other name.
        mu_U: Mean latents of unknown prompts, (m,).
        v: Mean of each latent over the unknown prompts where it fires, (m,); 0 where it never does.
        s: Squared distance between the two means, over `latents`; the natural unit of distance.
        latents: Indices that distances use, (j,).
        z_known: Latents of every known prompt, (n, m).
        z_unknown: Latents of every unknown prompt, (n, m).
    """

    mu_K: Float[Tensor, " m"]
    mu_U: Float[Tensor, " m"]
    v: Float[Tensor, " m"]
    s: float
    latents: Int[Tensor, " j"]
    z_known: Float[Tensor, "nk m"]
    z_unknown: Float[Tensor, "nu m"]

    @property
    def c(self) -> Float[Tensor, " m"]:
        """Mean of each latent over all known prompts (the unit of a known latent)."""
        return self.mu_K


@torch.no_grad()
def reference_stats(
    sae: SAE,
    h_known: Float[Tensor, "nk d"],
    h_unknown: Float[Tensor, "nu d"],
    latents: Int[Tensor, " j"] | None = None,
    *,
    eps: float = 1e-6,
) -> ReferenceStats:
    """Encode reference activations and take their means.

    Args:
        sae: Any dictionary of `latents` (an SAE or a control).
        h_known: Activations of the original model at the last name token of known entities.
        h_unknown: The same for unknown entities.
        latents: Indices that distances use; default all.
        eps: A latent fires above this.

    Raises:
        DataError: If a side is empty, or the means coincide on ``latents`` (there is then no direction to go).
    """
    if h_known.shape[0] == 0 or h_unknown.shape[0] == 0:
        raise DataError("reference statistics need at least one known and one unknown prompt")
    z_known, z_unknown = sae.encode(h_known), sae.encode(h_unknown)
    mu_k, mu_u = z_known.mean(0), z_unknown.mean(0)
    chosen = torch.arange(sae.d_sae, device=mu_k.device) if latents is None else latents
    s = float(((mu_u - mu_k)[chosen] ** 2).sum())
    if s == 0.0:
        raise DataError(
            "known and unknown references have the same mean latents; choose other latents, layer or references"
        )
    fires = z_unknown > eps
    v = (z_unknown * fires).sum(0) / fires.sum(0).clamp(min=1)
    return ReferenceStats(mu_k, mu_u, v, s, chosen, z_known, z_unknown)
