"""Dynamic SAE guardrails (DSG): clamp only in sequences that are about the target (arXiv 2504.08192).

With F_j and G_j the mean squared activations of latent j per forget and per retain token::

    J     = the n latents with the largest F_j among those with F_j / (G_j + 1e-21) above a percentile
    rho   = share of a sequence's tokens at which any latent of J fires
    rho*  = 95th percentile of rho over retain sequences
    if rho > rho*:  z'_j = -c for all j in J, at every token where any of J fires;   h' = dec(z') + (h - dec(z))

No weight changes. By construction benign text in front of a question lowers rho, and the gate may then stay shut.
Reconstructed: which sequences give rho* (here the retain questions, mentions and windows of text), and how the
percentile falls between two sequences (here the higher one, so that at most the stated share passes the gate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import ConfigError
from interp_unlearn.latents import LatentClamp
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context
from interp_unlearn.unlearn.objectives._latent_use import firing_shares, latent_use
from interp_unlearn.unlearn.objectives._reads import Read
from interp_unlearn.unlearn.objectives.sae_clamp import ClampOptions, RuntimeClamp

TINY = 1e-21


@dataclass(frozen=True)
class DSGOptions(ClampOptions):
    """Options of DSG, beside those of `ClampOptions`.

    Attributes:
        percentile: Only latents whose ratio of importances lies above this percentile of all latents are chosen.
        gate_percentile: Percentile of retain sequences' rho that a sequence must exceed to be edited.
    """

    value: float = 500.0
    percentile: float = 95.0
    gate_percentile: float = 95.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("percentile", "gate_percentile"):
            require(0 <= getattr(self, name) <= 100, f"options.{name} is {getattr(self, name)}; use 0 to 100")


def choose_guarded(
    forget: Float[Tensor, " m"], retain: Float[Tensor, " m"], percentile: float, n: int
) -> Int[Tensor, " k"]:
    """The at most ``n`` latents of largest forget importance among those of high forget-to-retain ratio."""
    ratio = forget.double() / (retain.double() + TINY)
    high = ratio > torch.quantile(ratio, percentile / 100)
    best = torch.where(high, forget, 0.0).sort(descending=True, stable=True)
    return best.indices[:n][best.values[:n] > 0]


def gate_level(shares: Float[Tensor, " n"], percentile: float) -> float:
    """rho*: the percentile of retain sequences' firing shares (the higher of two neighbours)."""
    return float(torch.quantile(shares, percentile / 100, interpolation="higher"))


@OBJECTIVES.register("dsg")
class DSG(RuntimeClamp):
    """Clamp the target's latents in sequences where they fire often."""

    Options = DSGOptions
    modalities = ("language",)
    options: DSGOptions

    def make_clamp(self, ctx: Context, sae: Any, forget: list[Read], retain: list[Read]) -> LatentClamp:
        """Choose by importances; set the gate on retain sequences.

        Raises:
            ConfigError: If no latent is chosen.
        """
        options, model = self.options, ctx.model
        use = latent_use(model, sae, forget)
        importance = latent_use(model, sae, retain).mean_square
        latents = choose_guarded(use.mean_square, importance, options.percentile, options.n)
        if not len(latents):
            raise ConfigError(
                f"no latent of the target lies above percentile {options.percentile:g} of the forget-to-retain "
                "ratios; lower options.percentile, or use an SAE of another layer"
            )
        gate = gate_level(firing_shares(model, sae, retain, latents.tolist()), options.gate_percentile)
        values = options.values(use, latents)
        return LatentClamp(sae, latents, values, where="all", gate=gate, skip_first=options.skip_first)
