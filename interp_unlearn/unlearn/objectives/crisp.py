"""CRISP: train the weights so that the target's latents stay off (arXiv 2508.13650).

Per SAE, with counts and sums of activations on target and benign text, the latents are the k first by count difference
among those with ``sum_target / (sum_benign + 1) >= ratio``. Then, with b = 0.99 and g = 0.01::

    L = (1 - b) L_unlearn + b L_retain + b g L_coherence
    L_unlearn   = mean over target tokens and chosen latents of  relu(a_j + shift_j)  where j was on in the original
                  model, and of z_j elsewhere;   shift_j = |alpha mean a_j|
    L_retain    = mean squared change of the SAE layers' activations on benign text
    L_coherence = the same at the last layer on short prompts

The shift keeps a gradient on a latent after it went off: with alpha = 5 it is pushed to ``-5`` times its usual value.
Reconstructed: over what the mean pre-activation is taken (here the target tokens where the latent was on, original
weights, per latent), what short prompts are (here the retain questions), and that the benign text is brought to the
target text's size before counts are compared (``match_size``). All activations of the original model are cached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_unlearn._core import ConfigError
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._prefix import Prefix
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Item, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._latent_use import LatentUse, forget_reads, latent_use, retain_reads
from interp_unlearn.unlearn.objectives._reads import Read, encode_reads, padded, reference_hidden
from interp_unlearn.unlearn.objectives._spaces import check_sae


@dataclass(frozen=True)
class CRISPOptions:
    """Options of CRISP.

    Attributes:
        k: Latents per SAE, at most.
        ratio: Least ratio of a latent's summed activation on target and benign text.
        match_size: Scale counts and sums of the benign text to as many tokens as the target text has.
        beta: b, the share of the two retaining terms.
        coherence: g, the weight of the last layer among them.
        shift: alpha, how far below zero latents are pushed, in their mean pre-activations; 0 stops at zero.
        text_windows: Windows of general text in the benign text.
        text_tokens: Longest window, in tokens.
    """

    k: int = 10
    ratio: float = 3.0
    match_size: bool = True
    beta: float = 0.99
    coherence: float = 0.01
    shift: float = 5.0
    text_windows: int = 200
    text_tokens: int = 64

    def __post_init__(self) -> None:
        require(self.k >= 1, f"options.k is {self.k}; use at least 1 latent")
        require(0 <= self.beta < 1, f"options.beta is {self.beta}; use 0 up to, not including, 1 (nothing forgotten)")
        for name in ("ratio", "coherence", "shift", "text_windows"):
            require(getattr(self, name) >= 0, f"options.{name} is {getattr(self, name)}; use 0 or a positive number")
        require(self.text_tokens >= 2, f"options.text_tokens is {self.text_tokens}; use at least 2")


def choose_salient(target: LatentUse, benign: LatentUse, k: int, ratio: float, match_size: bool) -> Int[Tensor, " n"]:
    """The at most ``k`` latents that fire more often on target text, among those of high activation ratio."""
    scale = target.tokens / max(benign.tokens, 1) if match_size else 1.0
    salient = target.total / (scale * benign.total + 1) >= ratio
    difference = target.fires - scale * benign.fires
    best = torch.where(salient, difference, -torch.inf).sort(descending=True, stable=True)
    return best.indices[:k][best.values[:k] > 0]


def suppression(
    a: Float[Tensor, "n k"], z: Float[Tensor, "n k"], was_on: Bool[Tensor, "n k"], shift: Float[Tensor, " k"]
) -> Float[Tensor, ""]:
    """L_unlearn of one SAE: ``relu(a + shift)`` where the latent was on in the original model, z elsewhere."""
    return torch.where(was_on, (a + shift).relu(), z).mean()


@dataclass(frozen=True)
class _Layer:
    """One SAE with its chosen latents, and where they were on: one (tokens, k) mask per target text."""

    sae: Any
    site: str
    latents: Int[Tensor, " k"]
    was_on: list[Tensor]
    shift: Float[Tensor, " k"]


@dataclass(frozen=True)
class _Kept:
    """A benign text: its read, what it was, and its original activations at counted tokens by site."""

    read: Read
    kind: str
    values: dict[str, Tensor]


@OBJECTIVES.register("crisp")
class CRISP(Objective):
    """Suppression of salient latents, in the weights.

    Attributes:
        latents: Chosen latents by site.
    """

    Options = CRISPOptions
    modalities = ("language",)
    options: CRISPOptions

    @property
    def uses_retain(self) -> bool:
        """Latents are chosen against benign text, whatever beta."""
        return True

    def prepare(self, ctx: Context) -> Pools:
        """Choose latents; cache where they were on and every activation that shall stay.

        Raises:
            ConfigError: If no SAE was given, one does not fit, or no latent is salient for the target.
        """
        options, model = self.options, ctx.model
        if not ctx.saes:
            raise ConfigError("objective 'crisp' needs an SAE: give sae=…; load one with load_sae")
        for sae in ctx.saes.values():
            check_sae(model, sae)
        self.model, self.sites = model, list(ctx.saes)
        self.last = f"blocks.{model.lm.n_layers - 1}.hook_resid_post"
        self.prefix = Prefix(model, ctx.trained, self.sites)
        self.reads = forget_reads(model, ctx.task)
        benign = retain_reads(model, ctx.task, options.text_windows, options.text_tokens)
        prompts = encode_reads(model, ctx.task.retain_train.prompts) if options.coherence else []
        self.kept: list[_Kept] = []
        self.layers: list[_Layer] = []
        if self.reads and benign:
            self.prefix.learn(padded(model, self.reads[:1]))
            self.starts: list[Tensor] = []
            self.kept_starts: list[Tensor] = []
            self._keep(benign, "benign", self.sites)
            self._keep(prompts, "prompt", [self.last])
            self._choose(ctx, benign)
        self.latents = {layer.site: layer.latents for layer in self.layers}
        return Pools(tuple(Item(kind="target") for _ in self.reads), tuple(Item(kind=kept.kind) for kept in self.kept))

    def _counted(self, reads: Sequence[Read]) -> Bool[Tensor, "batch pos"]:
        return padded(self.model, reads).mask("inner")

    def _original(self, reads: Sequence[Read], sites: Sequence[str]) -> tuple[list[dict[str, Tensor]], list[Tensor]]:
        """Original activations at counted tokens by site, and what enters the first trained block."""
        start = self.prefix.site
        wanted: list[str] = [*sites, *([start] if start and start not in sites else [])]
        values = reference_hidden(self.model, reads, wanted)
        counted = [self._counted([read])[0] for read in reads]
        kept = [{s: v[s][mask] for s in sites} for v, mask in zip(values, counted, strict=True)]
        return kept, [v[start] for v in values] if start else []

    def _keep(self, reads: Sequence[Read], kind: str, sites: Sequence[str]) -> None:
        values, starts = self._original(reads, sites)
        self.kept += [_Kept(read, kind, v) for read, v in zip(reads, values, strict=True)]
        self.kept_starts += starts

    def _choose(self, ctx: Context, benign: Sequence[Read]) -> None:
        options = self.options
        values, self.starts = self._original(self.reads, self.sites)
        for site, sae in ctx.saes.items():
            use = (latent_use(self.model, sae, self.reads), latent_use(self.model, sae, benign))
            latents = choose_salient(*use, options.k, options.ratio, options.match_size)
            if not len(latents):
                raise ConfigError(
                    f"no latent at {site} is salient for the target at options.ratio = {options.ratio:g}; lower it, "
                    "or use an SAE of another layer"
                )
            latents = latents.to(self.model.device)
            on = [sae.encode(v[site])[:, latents] > 0 for v in values]
            a = torch.cat([sae.pre_activations(v[site])[:, latents] for v in values])
            every = torch.cat(on)
            mean = (a * every).sum(0) / every.sum(0).clamp(min=1)
            self.layers.append(_Layer(sae, site, latents, on, (options.shift * mean).abs()))

    # -- loss --------------------------------------------------------------------------------------------------------

    def parts(self, draw: Draw) -> Iterator[Part]:
        """Suppress on target text; hold the SAE layers on benign text; hold the last layer on short prompts."""
        options = self.options
        unlearn = self._unlearn(draw.forget)
        yield Part("forget", (1 - options.beta) * unlearn, {"suppress": float(unlearn.detach())})
        weights = {"benign": options.beta, "prompt": options.beta * options.coherence}
        for kind, sites in (("benign", self.sites), ("prompt", [self.last])):
            drawn = [i for i in draw.retain if self.kept[i].kind == kind]
            if drawn and weights[kind]:
                loss = self._held(drawn, sites)
                name = "retain" if kind == "benign" else "coherence"
                yield Part("retain", weights[kind] * loss, {name: float(loss.detach())})

    def _unlearn(self, indices: Sequence[int]) -> Float[Tensor, ""]:
        reads = [self.reads[i] for i in indices]
        starts = [self.starts[i] for i in indices] if self.starts else []
        batch = padded(self.model, reads)
        values = self.prefix.hidden(batch, self.sites, starts)
        counted = batch.mask("inner")
        losses = []
        for layer in self.layers:
            h = values[layer.site][counted]
            a, z = (f(h)[:, layer.latents] for f in (layer.sae.pre_activations, layer.sae.encode))
            was_on = torch.cat([layer.was_on[i] for i in indices])
            losses.append(suppression(a, z, was_on, layer.shift))
        return torch.stack(losses).mean()

    def _held(self, indices: Sequence[int], sites: Sequence[str]) -> Float[Tensor, ""]:
        reads = [self.kept[i].read for i in indices]
        starts = [self.kept_starts[i] for i in indices] if self.kept_starts else []
        batch = padded(self.model, reads)
        values = self.prefix.hidden(batch, sites, starts)
        counted = batch.mask("inner")
        before = {site: torch.cat([self.kept[i].values[site] for i in indices]) for site in sites}
        return torch.stack([(values[s][counted] - before[s]).square().mean() for s in sites]).mean()
