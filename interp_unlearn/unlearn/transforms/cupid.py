"""CUPID: forget a class although the model knows it by a shortcut.

Used with the objective ``ga`` (ascent on the class), plain SGD and no retained data. With θ the trained weights, and L
the cross-entropy:

1. *Partition.* Each item's loss rises by ``ω_i = L(θ + η g_i/‖g_i‖) − L(θ)`` under its own normalised gradient. The
   share ``k`` with the largest ω (sharp minima: hard, mostly conflicting) is the *causal* set, the rest the *bias* set.
2. *Pathway.* ``s = ½ θ² ⊙ h``, with h the diagonal of the Hessian on the causal set (optimal brain damage); the
   ⌈P/2⌉ weights with the largest s are the causal pathway m, the others the bias pathway.
3. *Targeted update.* With g_f the gradient on the batch and g_c that on the causal set,
   ``g_proj = (⟨g_f, g_c⟩/‖g_c‖²) g_c``, ``g_bias = g_f − g_proj``::

       θ ← θ + α [ ω (g_proj ⊙ m) + g_bias ⊙ (1 − m) ]

Reconstructed: the paper's full text was not available. What its summaries leave open is an option: which ω weighs the
step, how h is computed, whether threshold and projection are global, whether g_c is computed anew. ``partition`` and
``pathway`` also have random controls of the same size: no claim about *which* items or weights matter stands without
them. "Causal" is the paper's word; the score is curvature times weight squared.

Source: Kwon et al. 2026, "Easy to Learn, Yet Hard to Forget" (arXiv 2602.21773); LeCun, Denker and Solla 1989.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import Axis, ConfigError, Labelled, generator
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._per_item import (
    TINY,
    Diagonal,
    ItemSharpness,
    curvature_diagonal,
    item_logits,
    item_loss,
    sharpness,
)
from interp_unlearn.unlearn._protocols import TRANSFORMS, Context, StepContext, Transform
from interp_unlearn.worlds import ItemSet

QUANTITIES = ("loss", "gradient norm", "sharpness", "causal", "conflicting")


@dataclass(frozen=True)
class CUPIDOptions:
    """Options of CUPID. Those that the published description leaves open are marked (open).

    Attributes:
        k: Share of the forget set that is the causal set; at least one item.
        radius: η, relative to ‖θ‖ (open).
        partition: ``sharpness`` as published; ``loss`` or ``gradient_norm`` rank alike where η is small; ``random``
            is the control of equal size.
        diagonal: How the Hessian's diagonal is computed, see `curvature_diagonal` (open).
        probes: Sign vectors of ``hutchinson``.
        pathway: ``saliency`` as published; ``random`` is the control of equal size; ``none`` leaves the mask out.
        threshold: One median over all weights, or one per tensor (open).
        project: Split the batch's gradient along that of the causal set; without it (for ablations) the causal part is
            g_c and the bias part the gradient on the batch's bias items.
        projection: Over all weights together, or tensor by tensor (open).
        omega: Which ω weighs the causal part (open): the ``batch_mean`` of ω_i; ``per_item``, each item's gradient
            weighed by its own before averaging; ``none`` (1).
        normalise: Scale ω to mean 1 over the forget set (open); raw ω is tiny where items are well fitted.
        refresh: Compute g_c at every step, or keep the first (open).
        causal_batch: Causal items per step at most.
    """

    k: float = 0.05
    radius: float = 0.01
    partition: Literal["sharpness", "loss", "gradient_norm", "random"] = "sharpness"
    diagonal: Diagonal = "fisher"
    probes: int = 10
    pathway: Literal["saliency", "random", "none"] = "saliency"
    threshold: Literal["global", "per_tensor"] = "global"
    project: bool = True
    projection: Literal["global", "per_tensor"] = "global"
    omega: Literal["batch_mean", "per_item", "none"] = "batch_mean"
    normalise: bool = True
    refresh: Literal["step", "frozen"] = "step"
    causal_batch: int = 64

    def __post_init__(self) -> None:
        require(0 < self.k < 1, f"cupid.k is {self.k}; use a share above 0 and below 1, e.g. 0.05")
        require(self.radius > 0, f"cupid.radius is {self.radius}; use a positive share of the weights' norm")
        require(self.probes >= 1, f"cupid.probes is {self.probes}; use at least 1")
        require(self.causal_batch >= 1, f"cupid.causal_batch is {self.causal_batch}; use at least 1")


def n_causal(k: float, n: int) -> int:
    """Size of the causal set, max(1, ⌈k n⌉)."""
    return max(1, math.ceil(round(k * n, 9)))


def top_half(saliency: Mapping[str, Tensor], threshold: str) -> dict[str, Tensor]:
    """True at exactly ⌈P/2⌉ weights with the largest saliency (of each tensor with ``per_tensor``); ties by place."""
    if threshold == "per_tensor":
        return {name: top_half({name: s}, "global")[name] for name, s in saliency.items()}
    flat = torch.cat([s.flatten().double() for s in saliency.values()])
    chosen = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    chosen[flat.argsort(descending=True, stable=True)[: math.ceil(len(flat) / 2)]] = True
    parts = chosen.split([s.numel() for s in saliency.values()])
    return {name: part.view(s.shape) for (name, s), part in zip(saliency.items(), parts, strict=True)}


def inner(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Inner product over all weights, summed in float64."""
    return math.fsum(float((a[name].double() * b[name].double()).sum()) for name in a)


def split_along(
    gradient: Mapping[str, Tensor], along: Mapping[str, Tensor], projection: str = "global"
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The part of ``gradient`` along ``along``, and the rest, which is orthogonal to it."""
    if projection == "per_tensor":
        pairs = {n: split_along({n: gradient[n]}, {n: along[n]}) for n in gradient}
        return {n: p[0][n] for n, p in pairs.items()}, {n: p[1][n] for n, p in pairs.items()}
    share = inner(gradient, along) / max(inner(along, along), TINY**2)
    part = {name: share * along[name] for name in gradient}
    return part, {name: gradient[name] - part[name] for name in gradient}


def routed(
    causal: Mapping[str, Tensor], bias: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None, omega: float
) -> dict[str, Tensor]:
    """``ω causal ⊙ m + bias ⊙ (1 − m)``; without a mask, ``ω causal + bias``."""
    if mask is None:
        return {name: omega * causal[name] + bias[name] for name in bias}
    return {name: torch.where(mask[name], omega * causal[name], bias[name]) for name in bias}


@TRANSFORMS.register("cupid")
class CUPID(Transform):
    """Route the ascent on a class into the weights that its hard items need.

    Attributes:
        causal: Indices of the causal set, into the forget set.
        omega: ω of each forget item, normalised where the options say so.
        mask: The causal pathway by weight name, None without one.
    """

    Options = CUPIDOptions
    modalities = ("graph", "image")
    options: CUPIDOptions

    def prepare(self, ctx: Context) -> None:
        """Stages 1 and 2, at the original weights; none of them is changed.

        Raises:
            ConfigError: If the task has no labelled items, the objective is not ``ga``, the optimiser not ``sgd``, or
                LoRA is trained.
        """
        self.task, self.model = ctx.labelled(), ctx.model
        if ctx.recipe.objective != "ga":
            raise ConfigError(f"cupid is an ascent on the class; use objective = 'ga', not {ctx.recipe.objective!r}")
        if ctx.recipe.optimizer != "sgd":
            raise ConfigError(
                f"cupid chooses the direction of the step, which {ctx.recipe.optimizer} rescales weight by weight; "
                "use optimizer = 'sgd'"
            )
        if ctx.recipe.trainable.lora_rank:
            raise ConfigError("cupid routes the gradient of weights, but LoRA trains factors; set lora_rank to 0")
        self.items: ItemSet = self.task.forget_train
        self.log: dict[str, float] = {}
        self.kept: dict[str, Tensor] | None = None
        weights = {name: p.detach() for name, p in ctx.trained.items()}
        device = ctx.model.device
        ids, labels = self.items.ids.to(device), self.items.labels.to(device)
        radius = self.options.radius * math.sqrt(inner(weights, weights))
        self.found = sharpness(item_loss(self.task, self.model), weights, ids, labels, radius)
        self.causal = self._partition(self.found, ctx.seed)
        mean = float(self.found.rise.mean())
        self.omega = self.found.rise / mean if self.options.normalise and abs(mean) > TINY else self.found.rise
        self.mask = self._pathway(weights, ids[self.causal], labels[self.causal], ctx.seed)
        self.seed = ctx.seed

    def _partition(self, found: ItemSharpness, seed: int) -> list[int]:
        n = len(found.rise)
        random = torch.rand(n, generator=generator(seed, "cupid partition"), dtype=torch.float64)
        scores = {"sharpness": found.rise, "loss": found.loss, "gradient_norm": found.norm, "random": random}
        order = scores[self.options.partition].argsort(descending=True, stable=True)
        return sorted(order[: n_causal(self.options.k, n)].tolist())

    def _pathway(self, weights: dict[str, Tensor], ids: Tensor, labels: Tensor, seed: int) -> dict[str, Tensor] | None:
        options = self.options
        if options.pathway == "none":
            return None
        if options.pathway == "random":
            random = generator(seed, "cupid pathway")
            scores = {n: torch.rand(w.shape, generator=random).to(w.device) for n, w in weights.items()}
        else:
            logits = item_logits(self.task, self.model)
            diagonal = curvature_diagonal(
                logits, weights, ids, labels, options.diagonal, probes=options.probes, seed=seed
            )
            scores = {name: 0.5 * w.square() * diagonal[name] for name, w in weights.items()}
        return top_half(scores, options.threshold)

    def _gradient(self, which: Sequence[int], ctx: StepContext, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Gradient of the mean cross-entropy over items of the forget set, each weighed where weights are given."""
        with torch.enable_grad():
            index = list(which)
            logits = self.task.logits(self.model, self.items.ids[index]).float()
            labels = self.items.labels[index].to(logits.device)
            each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
            loss = (each if weights is None else each * weights.to(each)).mean()
            found = torch.autograd.grad(loss, list(ctx.trained.values()), allow_unused=True)
        pairs = zip(ctx.trained.items(), found, strict=True)
        return {name: torch.zeros_like(p) if g is None else g for (name, p), g in pairs}

    def _causal_gradient(self, ctx: StepContext) -> dict[str, Tensor]:
        if self.options.refresh == "frozen" and self.kept is not None:
            return self.kept
        order = torch.randperm(len(self.causal), generator=generator(self.seed, "causal batch", ctx.step))
        drawn = [self.causal[i] for i in sorted(order[: self.options.causal_batch].tolist())]
        found = self._gradient(drawn, ctx)
        if self.options.refresh == "frozen":
            self.kept = found
        return found

    def __call__(self, grads: dict[str, Tensor], ctx: StepContext) -> dict[str, Tensor]:
        """Stage 3. The loop descends on the negated loss, so what is returned is the negated update."""
        options, batch = self.options, list(ctx.draw.forget)
        ascent = {name: -g for name, g in grads.items()}
        along = self._causal_gradient(ctx)
        omega = 1.0 if options.omega != "batch_mean" else float(self.omega[batch].mean())
        if options.project:
            causal, bias = split_along(ascent, along, options.projection)
            if options.omega == "per_item":
                weighed = self._gradient(batch, ctx, self.omega[batch])
                causal = split_along(weighed, along, options.projection)[0]
        else:
            rest = sorted(set(batch) - set(self.causal))
            causal = along
            bias = self._gradient(rest, ctx) if rest else {name: torch.zeros_like(g) for name, g in along.items()}
        update = routed(causal, bias, self.mask, omega)
        self.log = self._terms(ascent, along, causal, bias, update, omega)
        return {name: -u for name, u in update.items()}

    def _terms(
        self,
        ascent: dict[str, Tensor],
        along: dict[str, Tensor],
        causal: dict[str, Tensor],
        bias: dict[str, Tensor],
        update: dict[str, Tensor],
        omega: float,
    ) -> dict[str, float]:
        size = {k: math.sqrt(inner(v, v)) for k, v in (("f", ascent), ("c", along), ("u", update), ("p", causal))}
        mask = self.mask
        parts = routed(causal, {n: torch.zeros_like(b) for n, b in bias.items()}, mask, omega)
        rest = routed({n: torch.zeros_like(c) for n, c in causal.items()}, bias, mask, omega)
        return {
            "cupid_cos_batch_causal": inner(ascent, along) / max(size["f"] * size["c"], TINY),
            "cupid_projected_share": size["p"] / max(size["f"], TINY),
            "cupid_causal_over_bias": math.sqrt(inner(parts, parts)) / max(math.sqrt(inner(rest, rest)), TINY),
            "cupid_cos_update_ascent": inner(update, ascent) / max(size["u"] * size["f"], TINY),
            "cupid_omega": omega,
        }

    def terms(self) -> Mapping[str, float]:
        """How the last step was split; below 0, ``cupid_cos_update_ascent`` says that the forget loss may fall."""
        return self.log

    def tables(self) -> Sequence[Labelled]:
        """The partition, item by item, and the share of each tensor that is on the causal pathway."""
        n = len(self.items)
        bias = self.items.groups.get("bias")
        conflicting = np.full(n, np.nan) if bias is None else np.array([float(b == "conflicting") for b in bias])
        in_causal = np.zeros(n)
        in_causal[self.causal] = 1.0
        parts = [v.cpu().numpy() for v in (self.found.loss, self.found.norm, self.found.rise)]
        checks = rank_checks(parts[2], parts[1], parts[0], conflicting)
        out = [
            Labelled(
                "cupid.partition",
                np.stack([*parts, in_causal, conflicting], 1),
                (Axis("item", self.items.names), Axis("quantity", QUANTITIES)),
                n=n,
                mask_policy="items",
                config={**asdict(self.options), **checks},
                seed=self.seed,
                note="where both rank correlations of config exceed 0.99, sharpness says no more than the loss does",
            )
        ]
        if self.mask is not None:
            shares = [float(m.double().mean()) for m in self.mask.values()]
            sizes = {name: m.numel() for name, m in self.mask.items()}
            out.append(
                Labelled(
                    "cupid.pathway",
                    np.array(shares),
                    (Axis("module", tuple(self.mask)),),
                    n=sum(sizes.values()),
                    mask_policy="-",
                    config={"weights": sizes, "threshold": self.options.threshold, "pathway": self.options.pathway},
                    seed=self.seed,
                    note="share of each tensor's weights on the causal pathway; half of all weights are",
                )
            )
        return out

    def state(self) -> dict[str, Tensor]:
        """The causal gradient, where it is kept."""
        return {} if self.kept is None else {f"along/{name}": g for name, g in self.kept.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""
        along = {name.removeprefix("along/"): g for name, g in tensors.items()}
        self.kept = {name: g.to(self.model.device) for name, g in along.items()} or None


def rank_checks(rise: np.ndarray, norm: np.ndarray, loss: np.ndarray, conflicting: np.ndarray) -> dict[str, float]:
    """Rank correlations of sharpness with gradient norm and loss, and how well it finds conflicting items (AUC)."""
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    def rank(other: np.ndarray) -> float:
        if np.ptp(rise) == 0 or np.ptp(other) == 0:
            return float("nan")
        found: Any = spearmanr(rise, other)
        return float(found.statistic)

    known = not np.isnan(conflicting).any() and len(np.unique(conflicting)) == 2
    auc = float(roc_auc_score(conflicting, rise)) if known else float("nan")
    return {"spearman_gradient_norm": rank(norm), "spearman_loss": rank(loss), "auc_conflicting": auc}
