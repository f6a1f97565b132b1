"""SCRUB: max-steps away from the original on the forget items, then min-steps back to it on the rest, in turns.

While maximising (every other step of the first ``max_steps``)::

    L = -gamma KL(p_0 || p) on forget

and otherwise ``L = alpha KL(p_0 || p) + beta CE on retain``. After ``max_steps`` only min-steps follow, as published,
to mend what the max-steps broke.

Source: Kurmanji et al. 2023, "Towards Unbounded Machine Unlearning" (arXiv 2302.09880).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._answers import (
    Asked,
    answer_tokens,
    forget_items,
    reference_logits,
    retain_items,
)
from interp_unlearn.unlearn.objectives._retain import PoolOptions
from interp_unlearn.unlearn.objectives.bad_teaching import kl_to


@dataclass(frozen=True)
class SCRUBOptions(PoolOptions):
    """Options of SCRUB, beside those of `PoolOptions`.

    Attributes:
        beta: Weight of the cross-entropy in min-steps.
        max_steps: Steps of the first phase, in which every other step maximises; 0 never maximises.
        reference_gb: Largest size of the cached original distributions.
    """

    WEIGHTS: ClassVar[tuple[str, ...]] = ("gamma", "alpha", "beta")

    beta: float = 1.0
    max_steps: int = 20
    reference_gb: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta >= 0, f"options.beta is {self.beta}; use 0 or a positive weight")
        require(self.max_steps >= 0, f"options.max_steps is {self.max_steps}; use 0 or a number of steps")
        require(self.reference_gb > 0, f"options.reference_gb is {self.reference_gb}; use a positive number such as 4")


@OBJECTIVES.register("scrub")
class SCRUB(Objective):
    """Student that disobeys on the target and obeys elsewhere."""

    Options = SCRUBOptions
    options: SCRUBOptions

    @property
    def uses_retain(self) -> bool:
        """Always: min-steps read nothing else."""
        return True

    def prepare(self, ctx: Context) -> Pools:
        """Collect both sides with the original's logits."""
        options, self.model = self.options, ctx.model
        self.forget: list[Asked] = forget_items(ctx)
        self.retain: list[Asked] = retain_items(ctx.model, ctx.any_task, options.text_windows, options.text_tokens)
        teacher = reference_logits(ctx.model, [*self.forget, *self.retain], options.reference_gb)
        self.forget_teacher, self.retain_teacher = teacher[: len(self.forget)], teacher[len(self.forget) :]
        return Pools(tuple(i.item for i in self.forget), tuple(i.item for i in self.retain))

    def parts(self, draw: Draw) -> Iterator[Part]:
        """A max-step or a min-step, by the number of the step."""
        options = self.options
        if draw.step < options.max_steps and draw.step % 2 == 0:
            tokens = answer_tokens(self.model, [self.forget[i] for i in draw.forget])
            far = kl_to(torch.cat([self.forget_teacher[i] for i in draw.forget]), tokens.logits)
            yield Part("forget", -options.gamma * far, {"forget_kl": float(far.detach())})
            return
        tokens = answer_tokens(self.model, [self.retain[i] for i in draw.retain])
        near = kl_to(torch.cat([self.retain_teacher[i] for i in draw.retain]), tokens.logits)
        nll = -tokens.logprobs().mean()
        terms = {"retain_kl": float(near.detach()), "retain_nll": float(nll.detach())}
        yield Part("retain", options.alpha * near + options.beta * nll, terms)
