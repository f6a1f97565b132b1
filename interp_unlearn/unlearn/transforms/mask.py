"""Let only some rows or columns of some weights move; everything else stays bit-identical.

A zero gradient is not enough for that: AdamW's momentum and weight decay move weights without a gradient. So the mask
is applied to the gradient (before clipping, which then sees only what counts) and again to the weights after the
optimiser's step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from interp_unlearn._core import ConfigError, nearest
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import TRANSFORMS, Context, StepContext, Transform


@dataclass(frozen=True)
class MaskOptions:
    """Options of `Mask`.

    Attributes:
        parameters: Patterns on trained parameter names that the mask lets move; all others stay.
        rows: Indices along the first axis that may move; empty means all.
        columns: Indices along the second axis that may move; empty means all (neurons of a ``down_proj`` are columns).
    """

    parameters: tuple[str, ...] = ("*",)
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(bool(self.parameters), "mask.parameters is empty; name at least one pattern, e.g. '*.down_proj.weight'")
        require(min((*self.rows, *self.columns, 0)) >= 0, "mask.rows and mask.columns count from 0")


@TRANSFORMS.register("mask")
class Mask(Transform):
    """Freeze all but chosen rows and columns."""

    Options = MaskOptions

    def prepare(self, ctx: Context) -> None:
        """Build one 0/1 mask per trained parameter.

        Raises:
            ConfigError: If a pattern matches nothing, an index lies outside, or rows and columns are asked of LoRA
                factors.
        """
        options: MaskOptions = self.options
        if ctx.recipe.trainable.lora_rank and (options.rows or options.columns):
            raise ConfigError(
                "mask.rows and mask.columns choose parts of weights, but LoRA trains factors; set lora_rank to 0"
            )
        for pattern in options.parameters:
            if not any(fnmatchcase(name, pattern) for name in ctx.trained):
                raise ConfigError(
                    f"mask.parameters: {pattern!r} matches no trained parameter{nearest(pattern, ctx.trained)}"
                )
        self.masks: dict[str, Tensor] = {}
        for name, parameter in ctx.trained.items():
            self.masks[name] = torch.zeros_like(parameter, dtype=torch.bool)
            if any(fnmatchcase(name, pattern) for pattern in options.parameters):
                self._open(name, self.masks[name])

    def _open(self, name: str, mask: Tensor) -> None:
        rows, columns = self.options.rows, self.options.columns
        if columns and mask.dim() < 2:
            raise ConfigError(f"mask.columns: {name} has one axis; leave it out of mask.parameters")
        if (rows and max(rows) >= mask.shape[0]) or (columns and max(columns) >= mask.shape[1]):
            raise ConfigError(f"mask: {name} has shape {tuple(mask.shape)}; an index lies outside")
        every = torch.ones_like(mask)
        if rows:
            every.fill_(False)[list(rows)] = True
        if columns:
            allowed = torch.zeros_like(mask)
            allowed[:, list(columns)] = True
            every &= allowed
        mask |= every

    def __call__(self, grads: dict[str, Tensor], ctx: StepContext) -> dict[str, Tensor]:  # noqa: ARG002
        """Zero what must not move."""
        return {name: gradient * self.masks[name] for name, gradient in grads.items()}

    def after_step(self, ctx: StepContext) -> None:
        """Put the old values back where the mask is closed."""
        self.finish(ctx.trained, ctx.before)

    def finish(self, trained: Mapping[str, nn.Parameter], before: Mapping[str, Tensor]) -> None:
        """Put the old values back where the mask is closed."""
        for name, parameter in trained.items():
            parameter.copy_(torch.where(self.masks[name], parameter, before[name]))
