"""Random labels: teach the forget items wrong classes, drawn once; the objective of SalUn.

``L = gamma CE(forget, random wrong class) + alpha CE(retain)``. With the transform ``saliency_mask`` it is SalUn,
without it plain relabelling.

Source: Golatkar et al. 2020 (relabelling); Fan et al. 2024, SalUn (arXiv 2310.12508).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from interp_unlearn._core import generator
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw
from interp_unlearn.unlearn.objectives._answers import answer_tokens
from interp_unlearn.unlearn.objectives._forget_retain import ForgetRetain
from interp_unlearn.unlearn.objectives._retain import RetainOptions


@dataclass(frozen=True)
class RandomLabelsOptions(RetainOptions):
    """Options of random labels; see `RetainOptions`."""


@OBJECTIVES.register("random_labels")
class RandomLabels(ForgetRetain):
    """Cross-entropy on wrong classes, for labelled items."""

    Options = RandomLabelsOptions
    modalities = ("graph", "image")

    def refer(self, ctx: Context) -> None:
        """Draw a wrong class for each forget item, uniformly over the others."""
        task = ctx.labelled()
        labels = task.forget_train.labels
        shift = torch.randint(1, len(task.classes), labels.shape, generator=generator(ctx.seed, "random labels"))
        self.wrong = (labels + shift) % len(task.classes)

    def forget_loss(self, draw: Draw) -> tuple[Tensor, Mapping[str, float]]:
        """Cross-entropy on the wrong classes."""
        tokens = answer_tokens(self.model, self.asked(draw))
        loss = torch.nn.functional.cross_entropy(tokens.logits, self.wrong[list(draw.forget)].to(tokens.logits.device))
        return loss, {"forget_wrong": float(loss.detach()), "forget_nll": -float(tokens.logprobs().detach().mean())}
