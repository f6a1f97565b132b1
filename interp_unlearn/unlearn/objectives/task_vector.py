"""Task vector: learn the forget set by heart, then go the other way.

Train on the target's answers, ``L = CE(forget)``, from theta_0 to theta_+; at the end of the run::

    theta = theta_0 - scale (theta_+ - theta_0)

Until then the weights are theta_+: evaluations under way see a model that knows the target better. There is no retain
data and nothing bounds the damage but ``scale`` and the number of steps.

With LoRA the negation is exact too: the delta is a product B A, and B is multiplied by -scale.

Source: Ilharco et al. 2023 (arXiv 2212.04089), as in the MUSE benchmark (arXiv 2407.06460).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_unlearn._core import ConfigError
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._answers import cross_entropy, forget_items


@dataclass(frozen=True)
class TaskVectorOptions:
    """Options of the task vector.

    Attributes:
        scale: How far to go the other way, in lengths of the learned change; 0 gives the original model back.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        require(self.scale >= 0, f"options.scale is {self.scale}; use 0 or a positive number such as 1")


def negated(original: Float[Tensor, "*shape"], learned: Float[Tensor, "*shape"], scale: float) -> Tensor:
    """``original - scale (learned - original)``."""
    return original - scale * (learned - original)


@OBJECTIVES.register("task_vector")
class TaskVector(Objective):
    """Negated fine-tuning on the forget set."""

    Options = TaskVectorOptions
    options: TaskVectorOptions

    def prepare(self, ctx: Context) -> Pools:
        """Keep the starting point of everything that moves."""
        self.model = ctx.model
        self.forget = forget_items(ctx)
        low_rank = ctx.recipe.trainable.lora_rank > 0
        self.start = {
            name: torch.zeros_like(p) if low_rank else p.detach().clone()
            for name, p in ctx.trained.items()
            if not low_rank or name.endswith(".lora_B")
        }
        return Pools(tuple(q.item for q in self.forget))

    def parts(self, draw: Draw) -> Iterator[Part]:
        """One part: the cross-entropy of the target's answers, to be learned."""
        nll = cross_entropy(self.model, [self.forget[i] for i in draw.forget])
        yield Part("forget", nll, {"forget_nll": float(nll.detach())})

    def finish(self, trained: Mapping[str, nn.Parameter]) -> None:
        """Go the other way.

        Raises:
            ConfigError: If training changed nothing.
        """
        if all(torch.equal(trained[name], start) for name, start in self.start.items()):
            raise ConfigError(
                "training on the forget set changed no weight, so there is no task vector; raise lr or steps"
            )
        for name, start in self.start.items():
            trained[name].copy_(negated(start, trained[name], self.options.scale))
