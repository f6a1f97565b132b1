"""D2DGN: distil from a preserver on what is kept, and from a destroyer on what is deleted.

Preserver T_p: the original, on its own graph E. Destroyer T_d: the same architecture with random weights, never
trained, on E_r = E without what is deleted. Student S, on E_r::

    L_keep^resp   = mean over E_r and E_neg (or kept nodes) of KL( T_p || S )
    L_forget^resp = mean over E_d (or deleted nodes)        of KL( T_d || S )
    L_keep^feat   = sum over layers l of MSE( Z^l_S[V_r], Z^l_Tp[V_r] )      V_d: ends of E_d, or deleted nodes
    L_forget^feat = sum over layers l of MSE( Z^l_S[V_d], Z^l_Td[V_d] )      V_r: all other nodes
    L = sum over k of weight_k ( alpha L_keep^k + (1 - alpha) L_forget^k )   weight: beta for resp, 1 - beta for feat

An edge is a Bernoulli variable with p = sigmoid of its score, so KL there is that of two Bernoulli variables. An
untrained destroyer gives p near 0.5: deleted edges become undecided, not absent. Teachers' outputs are cached; no
teacher is kept.

Source: Sinha, Mandal, Kankanhalli, "Distill to Delete", arXiv 2309.16173. The abstract gives the two teachers, KL on
responses and MSE on embeddings; how they are weighted and where messages pass is reconstructed, see docs/graphs.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import fresh_weights
from interp_unlearn.probes import swapped
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import OBJECTIVES, TRANSFORMS, Context, Draw, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._answers import choices
from interp_unlearn.unlearn.objectives._graphs import (
    complement,
    fill,
    graph_task_of,
    kl_classes,
    layers,
    squared_error,
)
from interp_unlearn.worlds import without_deleted


@dataclass(frozen=True)
class D2DGNOptions:
    """Options of D2DGN.

    Attributes:
        alpha: Weight of what is kept; the rest is the weight of what is deleted.
        beta: Weight of responses; the rest is the weight of node embeddings. 1: responses only, 0: embeddings only.
        init: The student starts from the original weights, or from random ones.
    """

    alpha: float = 0.5
    beta: float = 0.5
    init: Literal["original", "random"] = "original"

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            require(0 <= getattr(self, name) <= 1, f"options.{name} is {getattr(self, name)}; use 0 to 1")
        require(self.init in ("original", "random"), f"options.init is {self.init!r}; use 'original' or 'random'")


@OBJECTIVES.register("d2dgn")
class D2DGN(Objective):
    """Two frozen teachers, one student."""

    Options = D2DGNOptions
    modalities = ("graph",)
    options: D2DGNOptions

    @property
    def uses_retain(self) -> bool:
        """Only with a positive weight of what is kept."""
        return self.options.alpha > 0

    def prepare(self, ctx: Context) -> Pools:
        """Cache both teachers' outputs, then put the student where it begins.

        Raises:
            ConfigError: If the student begins from random weights, but LoRA is trained.
        """
        self.model, self.task = ctx.model, graph_task_of(ctx)
        task, module, self.sites = self.task, ctx.model.module, self.task.sites(ctx.model)
        forget, retain = choices(task, task.forget_train), choices(task, task.retain_train)
        self.forget_ids, self.retain_ids = task.forget_train.ids, task.retain_train.ids
        self.gone, self.kept = task.deleted_nodes, complement(task.deleted_nodes, task.graph.n_nodes)
        self.preserver, output = layers(self.model, task, self.sites)
        self.keep_logits = task.read(output, self.retain_ids)
        with without_deleted(task, self.model), swapped(self.model, fresh_weights(module, ctx.seed)):
            self.destroyer, output = layers(self.model, task, self.sites)
        self.forget_logits = task.read(output, self.forget_ids)
        if self.options.init == "random":
            if ctx.recipe.trainable.lora_rank:
                raise ConfigError(
                    "options.init = 'random' draws the student's weights anew, but LoRA trains factors; set "
                    "lora_rank to 0 or init to 'original'"
                )
            fill(ctx.trained, fresh_weights(module, ctx.seed + 1))
        self.apart = any(TRANSFORMS[name].wants_sides for name, _ in ctx.recipe.transforms)
        return Pools(tuple(c.item for c in forget), tuple(c.item for c in retain))

    def parts(self, draw: Draw) -> Iterator[Part]:
        """Both terms from one pass; from one pass each where a transform asks for their gradients apart."""
        alpha = self.options.alpha
        if self.apart:
            forget, terms = self.forget_loss(draw, *self.student())
            yield Part("forget", (1 - alpha) * forget, terms)
            keep, terms = self.keep_loss(draw, *self.student())
            yield Part("retain", alpha * keep, terms)
            return
        seen = self.student()
        forget, forgotten = self.forget_loss(draw, *seen)
        keep, kept = self.keep_loss(draw, *seen)
        yield Part("forget", alpha * keep + (1 - alpha) * forget, {**forgotten, **kept})

    def student(self) -> tuple[dict[str, Tensor], Tensor]:
        """Z of every layer and the output, on the graph without what is deleted (the loop sees to that)."""
        return layers(self.model, self.task, self.sites)

    def keep_loss(self, draw: Draw, z: dict[str, Tensor], output: Tensor) -> tuple[Tensor, dict[str, float]]:
        """``beta L_keep^resp + (1 - beta) L_keep^feat``."""
        index = torch.tensor(draw.retain, dtype=torch.long)
        response = kl_classes(self.keep_logits[index], self.task.read(output, self.retain_ids[index]))
        feature = sum(
            (squared_error(self.preserver[s][self.kept], z[s][self.kept]) for s in self.sites), output.sum() * 0.0
        )
        return self._mixed("keep", response, feature)

    def forget_loss(self, draw: Draw, z: dict[str, Tensor], output: Tensor) -> tuple[Tensor, dict[str, float]]:
        """``beta L_forget^resp + (1 - beta) L_forget^feat``."""
        index = torch.tensor(draw.forget, dtype=torch.long)
        response = kl_classes(self.forget_logits[index], self.task.read(output, self.forget_ids[index]))
        feature = sum(
            (squared_error(self.destroyer[s][self.gone], z[s][self.gone]) for s in self.sites), output.sum() * 0.0
        )
        return self._mixed("forget", response, feature)

    def _mixed(self, side: str, response: Tensor, feature: Tensor) -> tuple[Tensor, dict[str, float]]:
        beta = self.options.beta
        terms = {f"{side}_response": float(response.detach()), f"{side}_feature": float(feature.detach())}
        return beta * response + (1 - beta) * feature, terms
