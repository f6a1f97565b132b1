"""Geometric-disentanglement unlearning (GU): take out of a forget step what retain gradients would feel.

For a step D of the trained parameters a retain loss changes by ``g_r^T D`` to first order. With retain gradients
(covectors) G = [g_1 … g_m], Adam's denominators h, metric H = diag(h) and P = H^-1::

    null    d_perp = P g_f - P G K^-1 G^T P g_f        K = G^T P G        the steepest step with G^T d = 0
            step   = -lr (d_perp + P g_retain)         the second part inside span(P G): it lowers the retain loss
    signed  null, but the tangential parts that also lower the retain loss stay (at most kappa ||d_perp||_H of them)
    cone    min_D 1/2 ||D - D0||_M^2  s.t.  G^T D <= 0  on the step D0 that AdamW really took, M = diag(sqrt(v) + eps)

``null`` rewrites the gradient: the optimiser sees ``h d``, so that dividing by h gives d. Momentum, weight decay and
the next second moment still stand between that and the weights. ``cone`` comes after all of them and certifies the
step itself; a step that harms no covector is left as it is.

Works beside any objective. The retain covector of a step is the gradient of the objective's own retain part where it
has one; otherwise GU draws retain questions itself and takes the gradient of their answers' loss.

Source: arXiv 2511.17100; the cone is the authors' later form (their code of July 2026). See docs/methods/gu.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._pools import check_apart
from interp_unlearn.unlearn._protocols import TRANSFORMS, Context, StepContext, Transform, check_own_weights
from interp_unlearn.unlearn.objectives._answers import Asked, cross_entropy, retain_items
from interp_unlearn.unlearn.samplers.paired import shuffled
from interp_unlearn.unlearn.transforms._cone import independent, multipliers
from interp_unlearn.unlearn.transforms._covectors import Covectors, products

NEGLIGIBLE = 1e-6
"""Float32 noise: what is left of a forget gradient after projection, or a retain gradient beside the forget gradient,
counts as 0 below this part of its length."""
SAME = 1e-5
"""Two gradients are taken as equal in a coordinate up to this part of their summands."""
SCALES = tuple(0.5**i for i in range(1, 7))
"""Shorter steps that a budget tries, in order."""


@dataclass(frozen=True)
class GUOptions:
    """Options of GU.

    Attributes:
        mode: ``null`` (projects the forget gradient) or ``cone`` (corrects the step that was taken).
        rank: Retain covectors kept, the current one included.
        refresh_every: A new covector every so many steps.
        source: Whose gradient a covector is: the objective's retain part, GU's own answer loss (``nll``), or ``auto``:
            the objective's if it has a retain part.
        metric: ``adam``: the optimiser's denominators (all 1 before its first step, and with SGD); ``identity``: all 1.
        floor: Smallest denominator, relative to their root mean square, so that coordinates which had no gradient so
            far (LoRA's A) do not take the whole projection.
        tolerance: ``null``: a covector with less of its length outside the span of newer ones is left out.
        sign_aware: ``null``: keep the parts of the forget gradient that lower the retain loss too.
        tau: ``sign_aware``: a part stays if the product of forget and retain coefficient is above it.
        kappa: ``sign_aware``: what stays is at most so long, relative to the projected gradient.
        retain_step: ``null``: what becomes of the objective's own retain gradient: its part in the span of the
            covectors (all of it, when it is itself the covector), all of it, or nothing.
        budget: ``cone``: largest rise of the retain answers' loss that a step may cause, in nats per token; the step
            is halved up to six times, then left out. None switches the check off.
        text_windows: Windows of ``task.text_train`` among GU's own retain items.
        text_tokens: Longest window, in tokens.
    """

    mode: Literal["null", "cone"] = "null"
    rank: int = 8
    refresh_every: int = 1
    source: Literal["auto", "objective", "nll"] = "auto"
    metric: Literal["adam", "identity"] = "adam"
    floor: float = 1e-3
    tolerance: float = 1e-3
    sign_aware: bool = False
    tau: float = 0.0
    kappa: float = 0.5
    retain_step: Literal["subspace", "full", "drop"] = "subspace"
    budget: float | None = None
    text_windows: int = 0
    text_tokens: int = 32

    def __post_init__(self) -> None:
        require(1 <= self.rank <= 64, f"gu.rank is {self.rank}; use 1 to 64 covectors")
        require(self.refresh_every >= 1, f"gu.refresh_every is {self.refresh_every}; use at least 1")
        require(self.floor >= 0, f"gu.floor is {self.floor}; use 0 or a small positive number such as 1e-3")
        require(0 < self.tolerance < 1, f"gu.tolerance is {self.tolerance}; use a number between 0 and 1")
        require(self.kappa >= 0, f"gu.kappa is {self.kappa}; use 0 or a positive number")
        require(self.tau >= 0, f"gu.tau is {self.tau}; below 0 it would keep parts that raise the retain loss")
        require(self.text_windows >= 0, f"gu.text_windows is {self.text_windows}; use 0 or a number of windows")
        require(self.text_tokens >= 2, f"gu.text_tokens is {self.text_tokens}; use at least 2")
        cone = self.mode == "cone"
        require(not (cone and self.sign_aware), "gu.sign_aware belongs to mode = 'null'; a cone does so anyway")
        require(cone or self.budget is None, "gu.budget checks the step that was taken; it belongs to mode = 'cone'")
        require(
            self.budget is None or self.budget >= 0, f"gu.budget is {self.budget}; use 0 or a positive number of nats"
        )


@TRANSFORMS.register("gu")
class GU(Transform):
    """Geometric disentanglement around any objective.

    Attributes:
        last: Numbers of the last step: ``entanglement`` (part of the squared length of the forget gradient, or of the
            step, that was taken out), ``conflict`` (1 if the forget step would have raised the retain loss),
            ``covectors``, and with a budget the ``scale`` of the step.
    """

    Options = GUOptions
    options: GUOptions
    wants_sides = True

    def prepare(self, ctx: Context) -> None:
        """Decide where covectors come from.

        Raises:
            ConfigError: If the objective's retain part is asked for and it has none.
            DataError: If GU needs retain items of its own and the task has none.
        """
        options, name = self.options, ctx.recipe.objective
        has_part = bool(ctx.pools.retain)
        if options.source == "objective" and not has_part:
            raise ConfigError(
                f"gu.source is 'objective', but objective {name!r} has no retain part here; use 'nll' (or 'auto')"
            )
        self.own = options.source == "nll" or (options.source == "auto" and not has_part)
        self.model, self.seed = ctx.model, ctx.seed
        self.batch_size = ctx.recipe.retain_batch_size
        self.items: list[Asked] = []
        if self.own or options.budget is not None:
            self.items = retain_items(ctx.model, ctx.any_task, options.text_windows, options.text_tokens)
        if not self.items and (self.own or options.budget is not None):
            raise DataError(
                f"transform 'gu' keeps a forget step away from retain gradients, but the task has no retain question "
                f"and gu.text_windows is {options.text_windows}; give known reference entities or general text "
                f"(objective {name!r} brings no retain data of its own)"
            )
        if self.own:
            check_apart(ctx.any_task)
            if not ctx.recipe.trainable.lora_rank:  # LoRA factors are in place during a step, which is when GU asks
                check_own_weights(ctx, "gu")
        self.covectors = Covectors(ctx.trained, options.rank)
        self.last: dict[str, float] = {}
        self._warned = False

    # -- covectors ---------------------------------------------------------------------------------------------------

    def _drawn(self, step: int) -> list[Asked]:
        size = min(self.batch_size, len(self.items))
        start = step // self.options.refresh_every * size
        return [self.items[i] for i in shuffled(self.seed, "gu", start, size, len(self.items))]

    def _collect(self, ctx: StepContext) -> None:
        """Push this step's retain gradient."""
        if ctx.step % self.options.refresh_every:
            return
        if not self.own:
            forget, retain = length(ctx.sides["forget"]), length(ctx.sides["retain"])
            if retain > NEGLIGIBLE * forget:  # a term that holds something starts at 0, give or take rounding
                self.covectors.push(ctx.sides["retain"])
            elif ctx.step >= self.options.refresh_every and not len(self.covectors):
                self._say_once(
                    f"transform 'gu' protects nothing: the objective's retain part has had no gradient in "
                    f"{ctx.step + 1} steps; set gu.source to 'nll', or give the retain part a weight"
                )
            return
        with torch.enable_grad():
            loss = cross_entropy(self.model, self._drawn(ctx.step))
            found = torch.autograd.grad(loss, list(ctx.trained.values()), allow_unused=True)
        pairs = zip(ctx.trained.items(), found, strict=True)
        self.covectors.push({n: torch.zeros_like(p) if g is None else g for (n, p), g in pairs})

    def _inverse_metric(self, ctx: StepContext) -> dict[str, Tensor]:
        """Diagonal of P: ``1 / h``, with h as in AdamW and not below the floor."""
        group = ctx.optimizer.param_groups[0]
        states = {name: ctx.optimizer.state.get(p, {}) for name, p in ctx.trained.items()}
        has_denominators = "betas" in group and all("exp_avg_sq" in state for state in states.values())
        if self.options.metric == "identity" or not has_denominators:  # SGD has none, AdamW none before its first step
            return {n: torch.ones(p.shape, device=p.device) for n, p in ctx.trained.items()}
        denominators, square, count = {}, 0.0, 0
        for name, state in states.items():
            second = state["exp_avg_sq"].float() / (1 - group["betas"][1] ** float(state["step"]))
            square += float(second.double().sum())
            count += second.numel()
            denominators[name] = second.sqrt_().add_(group["eps"])
        floor = self.options.floor * (square / count) ** 0.5
        return {name: h.clamp_(min=floor).reciprocal_() for name, h in denominators.items()}

    # -- null space --------------------------------------------------------------------------------------------------

    def __call__(self, grads: dict[str, Tensor], ctx: StepContext) -> dict[str, Tensor]:
        """Take a covector; in mode ``null`` project the forget gradient and put the retain step beside it."""
        self.last = {}
        self._collect(ctx)
        if self.options.mode == "cone" or not len(self.covectors):
            return grads
        inverse = self._inverse_metric(ctx)
        forget, retain, held = split(grads, ctx.sides)
        for name, mask in held.items():
            inverse[name] = inverse[name] * ~mask
        out = self.project(forget, retain, inverse)
        return {name: g.to(grads[name].dtype) for name, g in out.items()}

    def project(
        self, forget: dict[str, Tensor], retain: Mapping[str, Tensor], inverse: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Raw-equivalent gradient of the joint step: times P it is the step.

        Args:
            forget: Raw forget gradient.
            retain: Raw gradient of the objective's retain part (may be 0).
            inverse: Diagonal of P; 0 where a coordinate is held.

        Returns:
            ``g_perp (+ what sign awareness keeps) + retain step``, float32.
        """
        vectors = self.covectors
        out = {n: torch.where(inverse[n] > 0, g, 0).float().contiguous().clone() for n, g in forget.items()}
        gram, both = vectors.products(inverse, [out, retain])
        kept = independent(gram, self.options.tolerance)
        before = products(out, out, inverse)
        self.last = {"entanglement": 0.0, "conflict": float(both[0, 0] < 0), "covectors": float(len(kept))}
        lower = torch.linalg.cholesky(gram[kept][:, kept])
        first = both[:, 0]
        rest = first
        for _ in range(4):  # once, and again for what rounding left
            vectors.add(out, -self._solve(lower, rest, kept), inverse)
            rest = vectors.products(inverse, [out], gram=False)[1][:, 0]
            bound = 1e-8 * (gram.diagonal() * products(out, out, inverse)).sqrt()
            if bool((rest[kept].abs() <= bound[kept]).all()):
                break
        after = products(out, out, inverse)
        if after <= NEGLIGIBLE**2 * before:
            after = 0.0
            for g in out.values():
                g.zero_()
            self._say_entangled(before)
        self.last["entanglement"] = 1 - after / before if before else 0.0
        if self.options.sign_aware:
            vectors.add(out, self._agreeing(lower, first, gram, kept, after), inverse)
        if self.options.retain_step == "subspace":
            vectors.add(out, self._solve(lower, both[:, 1], kept), inverse)
        elif self.options.retain_step == "full":
            out = {n: g + torch.where(inverse[n] > 0, retain[n], 0) for n, g in out.items()}
        return out

    @staticmethod
    def _solve(lower: Tensor, b: Tensor, kept: list[int]) -> Tensor:
        """Coefficients ``K^-1 b`` on the kept covectors, 0 on the others."""
        out = torch.zeros_like(b)
        if kept:
            out[kept] = torch.cholesky_solve(b[kept, None], lower)[:, 0]
        return out

    def _agreeing(self, lower: Tensor, forget: Tensor, gram: Tensor, kept: list[int], after: float) -> Tensor:
        """Coefficients of the tangential components of the forget gradient that lower the retain loss as well.

        In the orthonormal basis Q that Gram–Schmidt makes of the covectors, newest first, the newest retain gradient
        has one component only, so what can stay is the forget gradient's part along it.
        """
        out = torch.zeros_like(forget)
        if not kept:
            return out
        solve = lambda b: torch.linalg.solve_triangular(lower, b[:, None], upper=False)[:, 0]  # noqa: E731
        a, b = solve(forget[kept]), solve(gram[kept, 0])
        b = torch.where(b.abs() > NEGLIGIBLE * b.norm(), b, torch.zeros_like(b))
        a = torch.where(a * b > self.options.tau, a, torch.zeros_like(a))
        size = float(a.norm())
        cap = self.options.kappa * after**0.5
        a = a * min(1.0, cap / size) if size else a
        out[kept] = torch.linalg.solve_triangular(lower.T, a[:, None], upper=True)[:, 0]
        return out

    def _say_entangled(self, before: float) -> None:
        if before:
            self._say_once(
                "transform 'gu' left nothing of the forget gradient: it lies in the span of the retain gradients, so "
                "no step forgets without touching them; use other retain data, a smaller gu.rank or mode = 'cone'"
            )

    def _say_once(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(text, stacklevel=3)

    # -- cone --------------------------------------------------------------------------------------------------------

    def after_step(self, ctx: StepContext) -> None:
        """Mode ``cone``: the step nearest to the one that was taken which raises no covector's loss to first order."""
        if self.options.mode != "cone":
            return
        taken = {n: (p.detach().float() - ctx.before[n].float()) for n, p in ctx.trained.items()}
        inverse = self._inverse_metric(ctx)
        inverse = {n: w * (taken[n] != 0) for n, w in inverse.items()}
        if len(self.covectors) and self.into_cone(taken, inverse):
            put(ctx, taken, 1.0)
        if self.options.budget is not None:
            self.last["scale"] = self._within_budget(ctx, taken, self.options.budget)

    def into_cone(self, step: dict[str, Tensor], inverse: Mapping[str, Tensor]) -> bool:
        """Project ``step`` (float32, in place) onto ``G^T D <= 0``; say whether it changed.

        Args:
            step: The step that was taken.
            inverse: Diagonal of M^-1; 0 where the step left a coordinate as it was.
        """
        ones = {n: (w > 0).float() for n, w in inverse.items()}
        gram, _ = self.covectors.products(inverse, [])
        _, b = self.covectors.products(ones, [step], gram=False)
        lam = multipliers(gram, b[:, 0])
        self.last = {"entanglement": 0.0, "conflict": float(b[0, 0] > 0), "covectors": float(len(self.covectors))}
        if not bool(lam.any()):
            return False
        away = {n: torch.zeros(d.shape, device=d.device) for n, d in step.items()}
        self.covectors.add(away, lam, inverse)
        size = sum(float((d.square() / inverse[n].where(inverse[n] > 0, 1)).sum()) for n, d in step.items())
        self.last["entanglement"] = products(away, away, inverse) / size
        for name, d in step.items():
            d -= away[name] * inverse[name]
        return True

    def _within_budget(self, ctx: StepContext, step: dict[str, Tensor], budget: float) -> float:
        """Put back the largest of ``step``, ``step / 2`` … ``step / 64`` whose retain loss stays in budget, else 0."""
        items = self._drawn(ctx.step)
        whole = {name: parameter.detach().clone() for name, parameter in ctx.trained.items()}
        now = float(cross_entropy(self.model, items))
        put(ctx, step, 0.0)
        start = float(cross_entropy(self.model, items))
        if now - start <= budget:
            for name, parameter in ctx.trained.items():
                parameter.copy_(whole[name])
            return 1.0
        for scale in SCALES:
            put(ctx, step, scale)
            if float(cross_entropy(self.model, items)) - start <= budget:
                return scale
        put(ctx, step, 0.0)
        return 0.0

    def terms(self) -> dict[str, float]:
        """`last`, for the log."""
        return {f"gu_{name}": value for name, value in self.last.items()}

    # -- state -------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """The covectors and whether the warning was given."""
        return {**self.covectors.state(), "warned": torch.tensor(self._warned)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""
        self.covectors.load_state(tensors)
        self._warned = bool(tensors.get("warned", False))


def length(vector: Mapping[str, Tensor]) -> float:
    """Euclidean length over all parameters."""
    return sum(float(g.float().square().sum()) for g in vector.values()) ** 0.5


def put(ctx: StepContext, step: Mapping[str, Tensor], scale: float) -> None:
    """``theta = theta_before + scale * step``, exactly ``theta_before`` where that is 0."""
    for name, parameter in ctx.trained.items():
        parameter.copy_(ctx.before[name] + (scale * step[name]).to(parameter.dtype))


def split(
    grads: Mapping[str, Tensor], sides: Mapping[str, Mapping[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Forget and retain share of a gradient that earlier transforms may have changed, and where they hold it still.

    Masks, clipping and weighting multiply each coordinate of the sum by some factor; the same factor goes to both
    sides.

    Returns:
        Forget share, retain share (their sum is ``grads``), and True where an earlier transform made a gradient 0.
    """
    forget, retain, held = {}, {}, {}
    for name, g in grads.items():
        f, r = sides["forget"][name], sides["retain"][name]
        total = f + r
        held[name] = (g == 0) & (total != 0)
        if torch.equal(g, total):
            forget[name], retain[name] = f, r
            continue
        same = (g - total).abs() <= SAME * (f.abs() + r.abs())
        factor = torch.where(same | (total == 0), torch.ones_like(g), g / total)
        factor = factor.masked_fill(held[name], 0.0).nan_to_num(nan=1.0, posinf=1.0, neginf=1.0)
        retain[name] = factor * r
        forget[name] = g - retain[name]
    return forget, retain, held
