"""SAE clamp: at run time, push the latents that fire on the target below zero (Farrell et al., arXiv 2410.19278).

With q_f[j] and q_r[j] the shares of forget and retain tokens at which latent j fires::

    J  = the n latents with the largest q_f among those with q_r < threshold (and q_f > 0)
    h' = dec(z') + (h - dec(z)),   z'_j = -c  where j in J and z_j > 0

No weight changes, so nothing is unlearned: whoever holds the weights takes the hook off. It is here for comparison.
The selection, the clamp and the values of n, threshold and c follow SAEBench's *unlearning* evaluation. There z of the
begin-of-text token is set to 0; here no special token and (``skip_first``) no first token is ever changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import Intervention
from interp_unlearn.latents import LatentClamp
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Item, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._latent_use import (
    LatentUse,
    forget_reads,
    latent_use,
    retain_reads,
    the_sae,
)
from interp_unlearn.unlearn.objectives._reads import Read


@dataclass(frozen=True)
class ClampOptions:
    """What the clamps at run time have in common.

    Attributes:
        n: At most so many latents.
        value: c: chosen latents are set to ``-value``.
        unit: ``absolute``, or ``activation``: c counts in each latent's mean activation on the forget text, so that one
            value fits SAEs of all scales (ours).
        skip_first: Leave the first token of each sequence alone (ours; there only the begin-of-text token).
        text_windows: Windows of general text among the retain texts.
        text_tokens: Longest window, in tokens.
    """

    n: int = 20
    value: float = 25.0
    unit: Literal["absolute", "activation"] = "absolute"
    skip_first: bool = True
    text_windows: int = 200
    text_tokens: int = 64

    def __post_init__(self) -> None:
        require(self.n >= 1, f"options.n is {self.n}; use at least 1 latent")
        require(self.value >= 0, f"options.value is {self.value}; use 0 (ablation) or a positive number")
        require(self.text_windows >= 0, f"options.text_windows is {self.text_windows}; use 0 or a number of windows")
        require(self.text_tokens >= 2, f"options.text_tokens is {self.text_tokens}; use at least 2")

    def values(self, forget: LatentUse, latents: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """What each chosen latent is set to."""
        scale = forget.mean_active[latents] if self.unit == "activation" else torch.ones(len(latents))
        return -self.value * scale


@dataclass(frozen=True)
class SAEClampOptions(ClampOptions):
    """Options of the SAE clamp, beside those of `ClampOptions`.

    Attributes:
        threshold: Latents that fire on this share of retain tokens, or more, are left alone.
    """

    threshold: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.threshold <= 1, f"options.threshold is {self.threshold}; use a share such as 0.01")


def choose_clamped(
    q_forget: Float[Tensor, " m"], q_retain: Float[Tensor, " m"], threshold: float, n: int
) -> Int[Tensor, " k"]:
    """The at most ``n`` latents that fire most on forget text among those rarer than ``threshold`` on retain text."""
    score = torch.where(q_retain < threshold, q_forget, 0.0)
    best = score.sort(descending=True, stable=True)
    return best.indices[:n][best.values[:n] > 0]


class RuntimeClamp(Objective):
    """Base of methods that leave a `LatentClamp` and no changed weight.

    Attributes:
        clamp: What is done at run time, after `prepare`.
        reads: How many texts the choice rests on, forget and retain.
    """

    trains = False

    @property
    def uses_retain(self) -> bool:
        """Latents are chosen against retain text."""
        return True

    def prepare(self, ctx: Context) -> Pools:
        """Count on forget and retain text which latents fire; choose."""
        options, model = self.options, ctx.model
        sae = the_sae(ctx, ctx.recipe.objective)
        forget = forget_reads(model, ctx.task)
        retain = retain_reads(model, ctx.task, options.text_windows, options.text_tokens)
        self.reads = (len(forget), len(retain))
        if forget and retain:
            self.clamp = self.make_clamp(ctx, sae, forget, retain)
        return Pools(
            *(tuple(Item(kind=kind) for _ in reads) for kind, reads in (("forget", forget), ("retain", retain)))
        )

    def make_clamp(self, ctx: Context, sae: Any, forget: list[Read], retain: list[Read]) -> LatentClamp:
        """The clamp for these texts."""
        raise NotImplementedError

    def intervention(self) -> Intervention:
        """The clamp."""
        return self.clamp

    def parts(self, draw: Draw) -> Iterator[Part]:  # noqa: ARG002
        """None: nothing is trained."""
        yield from ()


@OBJECTIVES.register("sae_clamp")
class SAEClamp(RuntimeClamp):
    """Clamp the target's latents wherever they fire."""

    Options = SAEClampOptions
    modalities = ("language",)
    options: SAEClampOptions

    def make_clamp(self, ctx: Context, sae: Any, forget: list[Read], retain: list[Read]) -> LatentClamp:
        """Choose by firing rates.

        Raises:
            ConfigError: If no latent fires on the target and rarely elsewhere.
        """
        options = self.options
        use = latent_use(ctx.model, sae, forget)
        latents = choose_clamped(use.rate, latent_use(ctx.model, sae, retain).rate, options.threshold, options.n)
        if not len(latents):
            raise ConfigError(
                f"no latent fires on the target and on less than {options.threshold:g} of the retain tokens; raise "
                "options.threshold, or use an SAE of another layer"
            )
        return LatentClamp(sae, latents, options.values(use, latents), skip_first=options.skip_first)
