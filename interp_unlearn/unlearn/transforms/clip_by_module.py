"""Clip the gradient of each parameter on its own, so that no single module takes the whole step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import TRANSFORMS, StepContext, Transform


@dataclass(frozen=True)
class ClipByModuleOptions:
    """Options of `ClipByModule`.

    Attributes:
        norm: Largest L2 norm of one parameter's gradient.
    """

    norm: float = 1.0

    def __post_init__(self) -> None:
        require(self.norm > 0, f"clip_by_module.norm is {self.norm}; use a positive number")


@TRANSFORMS.register("clip_by_module")
class ClipByModule(Transform):
    """Scale down gradients above ``norm``."""

    Options = ClipByModuleOptions

    def __call__(self, grads: dict[str, Tensor], ctx: StepContext) -> dict[str, Tensor]:  # noqa: ARG002
        """``g * min(1, norm / ||g||)`` for each parameter."""
        return {n: g * min(1.0, self.options.norm / max(float(g.norm()), 1e-12)) for n, g in grads.items()}
