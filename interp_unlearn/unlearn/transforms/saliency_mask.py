"""Saliency mask of SalUn: only the weights with the largest gradient of the forget loss may move.

``m = 1`` at the ``share`` of weights with the largest ``|∇_θ CE(forget)|`` at the original weights, over all trained
weights together. With the objective ``random_labels`` this is SalUn; it wraps any other objective on labelled items
likewise. Weights outside the mask stay bit-identical.

Source: Fan et al. 2024, SalUn (arXiv 2310.12508).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from interp_unlearn._core import Axis, Labelled
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import TRANSFORMS, Context, check_own_weights
from interp_unlearn.unlearn.transforms.mask import Mask

BATCH = 64


@dataclass(frozen=True)
class SaliencyMaskOptions:
    """Options of the saliency mask.

    Attributes:
        share: Share of the weights that may move.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, f"saliency_mask.share is {self.share}; use a share above 0 and at most 1")


@TRANSFORMS.register("saliency_mask")
class SaliencyMask(Mask):
    """Freeze the weights that the forget loss hardly touches."""

    Options = SaliencyMaskOptions
    modalities = ("graph", "image")

    def prepare(self, ctx: Context) -> None:
        """One gradient over the forget set.

        Raises:
            ConfigError: If the task has no labelled items, or other parameters than the model's own are trained.
        """
        check_own_weights(ctx, "saliency_mask")
        task = ctx.labelled()
        items = task.forget_train
        total = {name: torch.zeros_like(p) for name, p in ctx.trained.items()}
        with torch.enable_grad():
            for p in ctx.trained.values():
                p.requires_grad_(True)
            for ids, labels in zip(items.ids.split(BATCH), items.labels.split(BATCH), strict=True):
                logits = task.logits(ctx.model, ids).float()
                loss = torch.nn.functional.cross_entropy(logits, labels.to(logits.device), reduction="sum")
                found = torch.autograd.grad(loss / len(items), list(ctx.trained.values()), allow_unused=True)
                for name, g in zip(total, found, strict=True):
                    if g is not None:
                        total[name] += g
        size = torch.cat([g.abs().flatten() for g in total.values()])
        chosen = torch.zeros(len(size), dtype=torch.bool, device=size.device)
        chosen[size.argsort(descending=True, stable=True)[: math.ceil(self.options.share * len(size))]] = True
        parts = chosen.split([g.numel() for g in total.values()])
        self.masks = {name: part.view(g.shape) for (name, g), part in zip(total.items(), parts, strict=True)}

    def tables(self) -> Sequence[Labelled]:
        """Share of each tensor that may move."""
        shares = np.array([float(m.double().mean()) for m in self.masks.values()])
        return [
            Labelled(
                "saliency_mask.share",
                shares,
                (Axis("module", tuple(self.masks)),),
                n=sum(m.numel() for m in self.masks.values()),
                mask_policy="-",
                config={"share": self.options.share},
                note="share of each tensor's weights that may move",
            )
        ]
