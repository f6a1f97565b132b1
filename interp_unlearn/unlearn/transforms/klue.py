"""KLUE: only the knowledge neurons of the forget samples move; everything else stays bit-identical.

Before the first step, neurons are ranked by their regularised attribution (`neurons.klue_scores`) and the best
``ratio`` of them is chosen; the gradient of any objective is then masked to their weights, and the weights are put back
where the mask is closed after each step, because momentum and decay move what has no gradient. The method's other two
parts are the objective ``ga`` and the sampler ``unforgotten``.

``control = "random"`` trains as many random neurons in the same layers instead. A claim that the *localisation* helps
needs that run beside it.

Reconstructed: the paper's text was not available; every field below that decides a result is an option for that reason.

Source: Yang et al. 2025, FaithUn (arXiv 2502.19207).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from interp_unlearn._core import Axis, ConfigError, Labelled, check_choice
from interp_unlearn.neurons import (
    AttributionConfig,
    KlueScores,
    NeuronSet,
    Regularised,
    klue_scores,
    matched_random,
    neuron_masks,
    select_neurons,
)
from interp_unlearn.neurons._select import Scope, Sign
from interp_unlearn.neurons._weights import NeuronWeights, weight_names
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import TRANSFORMS, Context, StepContext
from interp_unlearn.unlearn.transforms.mask import Mask

Control = Literal["none", "random"]


@dataclass(frozen=True)
class KLUEOptions(Regularised, AttributionConfig):
    """Options of KLUE, beside how superficial knowledge is taken out and how attributions are made.

    Attributes:
        ratio: Share of the neurons (of blocks whose weights are trained) that may move, 0 < ratio ≤ 1.
        weights: Which of their weights: ``down`` (value vector), ``up`` (key side), ``full``, or ``rows`` of the linear
            layer whose output is the scored site.
        control: ``none``, or ``random``: as many random neurons per layer instead of the chosen ones.
        relocalise: Choose anew every so many steps and reset the optimiser's moments, which would go on moving the old
            neurons; 0 chooses once.
        scope: Rank all layers together, or give each layer the same share.
        sign: ``positive`` takes neurons that support the answer; ``absolute`` also those that suppress it.
        method: ``gradient_activation`` (exact for KLUE) or ``integrated_gradients``.
    """

    method: Literal["gradient_activation", "integrated_gradients"] = "gradient_activation"
    ratio: float = 0.05
    weights: NeuronWeights = "down"
    control: Control = "none"
    relocalise: int = 0
    scope: Scope = "global"
    sign: Sign = "positive"

    def __post_init__(self) -> None:
        require(0 < self.ratio <= 1, f"klue.ratio is {self.ratio}; use a share above 0 and at most 1, e.g. 0.05")
        require(self.relocalise >= 0, f"klue.relocalise is {self.relocalise}; use 0 (once) or a number of steps")
        for name, kind in (("control", Control), ("scope", Scope), ("sign", Sign), ("weights", NeuronWeights)):
            check_choice(f"klue.{name}", getattr(self, name), kind)
        AttributionConfig.__post_init__(self)
        Regularised.__post_init__(self)


@TRANSFORMS.register("klue")
class KLUE(Mask):
    """Freeze all but the knowledge neurons.

    Attributes:
        neurons: The neurons that may move.
        chosen: The neurons with the largest scores (the same, unless a control runs).
        scores: The scores behind them.
    """

    Options = KLUEOptions
    modalities = ("language",)
    options: KLUEOptions
    neurons: NeuronSet
    chosen: NeuronSet
    scores: KlueScores

    def prepare(self, ctx: Context) -> None:
        """Score, choose, and build one 0/1 mask per trained parameter.

        Raises:
            ConfigError: If LoRA factors are trained, or no trained weight belongs to a neuron.
            DataError: If scores are all zero or not numbers, or no mismatched question can be found.
        """
        if ctx.recipe.trainable.lora_rank:
            raise ConfigError("klue moves columns of weights, but LoRA trains factors; set trainable.lora_rank to 0")
        self.context, options = ctx, self.options
        sites = options.sites(ctx.model.lm.n_layers)
        names = [weight_names(ctx.model, sites, options.weights, layer) for layer in range(len(sites))]
        self.layers = [layer for layer, wanted in enumerate(names) if all(name in ctx.trained for name in wanted)]
        if not self.layers:
            raise ConfigError(
                f"klue moves weights such as {names[0][0]}, but the recipe trains none of them; set trainable.modules "
                "to ['mlp_out'] for weights='down', ['mlp'] for the others"
            )
        self._localise()

    def _localise(self) -> None:
        ctx, options = self.context, self.options
        self.scores = klue_scores(
            ctx.model,
            ctx.task.forget_train.prompts,
            ctx.task.retain_train.prompts,
            config=options,
            regularised=options,
            seed=ctx.seed,
        )
        found = select_neurons(
            self._candidates(self.scores.score), options.ratio, scope=options.scope, sign=options.sign
        )
        by_layer = {self.layers[i]: neurons for i, neurons in found.by_layer.items()}
        self.chosen = NeuronSet(by_layer, self.scores.score.axes[0].labels, found.width, found.how, found.config)
        self.neurons = matched_random(self.chosen, ctx.seed) if options.control == "random" else self.chosen
        self._open_masks()

    def _open_masks(self) -> None:
        ctx = self.context
        opened = neuron_masks(ctx.model, self.neurons, self.options.weights)
        self.masks = {
            name: opened.get(name, torch.zeros_like(parameter, dtype=torch.bool))
            for name, parameter in ctx.trained.items()
        }

    def _candidates(self, score: Labelled) -> Labelled:
        """Scores of the layers whose weights are trained."""
        labels = tuple(score.axes[0].labels[layer] for layer in self.layers)
        axes = (Axis("layer", labels), score.axes[1])
        return Labelled(score.name, score.values[self.layers], axes, n=score.n, mask_policy=score.mask_policy)

    def __call__(self, grads: dict[str, Tensor], ctx: StepContext) -> dict[str, Tensor]:
        """Zero what must not move; before that, choose anew where it is due."""
        every = self.options.relocalise
        if every and ctx.step and ctx.step % every == 0:
            self._localise()
            ctx.optimizer.state.clear()
        return super().__call__(grads, ctx)

    def tables(self) -> Sequence[Labelled]:
        """The neurons chosen before the first step, the scores behind them, and what was taken for superficial."""
        return [self.neurons.to_labelled(), self.scores.score, self.scores.superficial]

    def state(self) -> dict[str, Tensor]:
        """The neurons that may move, where they change during training."""
        if not self.options.relocalise:
            return {}
        return {f"neurons/{layer}": torch.tensor(found) for layer, found in self.neurons.by_layer.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned; `chosen` and `scores` stay those of the first choice."""
        kept = {name.removeprefix("neurons/"): found for name, found in tensors.items()}
        if kept:
            by_layer = {int(layer): tuple(found.tolist()) for layer, found in kept.items()}
            self.neurons = replace(self.neurons, by_layer=by_layer)
            self._open_masks()
