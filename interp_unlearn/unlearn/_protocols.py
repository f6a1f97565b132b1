"""What an objective, a gradient transform and a sampler must offer, and what the loop gives them.

The loop asks the sampler for indices, the objective for loss parts at these indices, back-propagates part by part,
lets the transforms rewrite the gradient, and takes one optimiser step. Anything a method needs from the *original*
weights it computes in ``prepare``, which runs before the first step; on resume it runs again, on the original
weights, before the state is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from interp_unlearn._core import ConfigError, Labelled, Registry
from interp_unlearn.hooked import HookedModel, Intervention
from interp_unlearn.worlds import EVERY_MODALITY, AnyTask, LabelledTask, Modality, Task, text_task
from interp_unlearn.worlds._types import Prompt

Side = Literal["forget", "retain"]


@dataclass(frozen=True)
class Item:
    """One thing that can be drawn into a step: a prompt with its labels, so that samplers can pair by topic.

    Attributes:
        entity: Entity id, or empty (general text).
        relation: Relation asked, or empty.
        kind: What the item is for, e.g. ``"answer"``, ``"known"``, ``"unknown"``, ``"text"``.
        neighbour: Of a retain item: ``direct``, ``indirect`` or ``general``; set by the loop (see `label_pools`).
        target: Of a direct or indirect retain item: id of the target entity that it is a neighbour of.
        question: The question it is, so that a sampler can ask whether it is still answered; None for other items.
    """

    entity: str = ""
    relation: str = ""
    kind: str = "answer"
    neighbour: str = ""
    target: str = ""
    question: Prompt | None = None


@dataclass(frozen=True)
class Pools:
    """What an objective can be asked about; draws are indices into these."""

    forget: tuple[Item, ...]
    retain: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Draw:
    """Indices of one step into `Pools`.

    Attributes:
        forget: Items of the forget side.
        retain: Items of the retain side.
        step: The step they are drawn for, set by the loop; whatever an objective draws by itself depends on it.
    """

    forget: tuple[int, ...]
    retain: tuple[int, ...] = ()
    step: int = 0


@dataclass(frozen=True)
class Part:
    """One summand of a step's loss, back-propagated on its own (its graph is freed before the next part runs).

    Attributes:
        side: Whether it forgets or retains; transforms may ask for both gradients apart.
        loss: Scalar with graph, weights included.
        terms: Unweighted values for the log.
    """

    side: Side
    loss: Tensor
    terms: Mapping[str, float]


@dataclass(frozen=True)
class Context:
    """What ``prepare`` receives.

    Attributes:
        model: The opened model, with its original weights.
        any_task: What to forget and what to keep, whatever the model reads.
        recipe: The recipe (a `Recipe`).
        saes: The SAEs given by the user, by site; empty when none.
        trained: Parameters that the optimiser moves, by name.
        pools: The objective's pools (empty while the objective itself prepares).
        seed: The recipe's seed.
    """

    model: HookedModel
    any_task: AnyTask
    recipe: Any
    saes: Mapping[str, Any]
    trained: Mapping[str, nn.Parameter]
    pools: Pools
    seed: int

    @property
    def task(self) -> Task:
        """The task of a language model, for methods that need text.

        Raises:
            ConfigError: If the task is about a graph or images.
        """
        return text_task(self.any_task, f"objective {self.recipe.objective!r}, its transforms or its sampler")

    def labelled(self, *modalities: str) -> LabelledTask:
        """The task of a model that sorts nodes, edges or images into classes.

        Args:
            modalities: Those that the method works on; none means any.

        Raises:
            ConfigError: If the task is another.
        """
        found = self.any_task
        if isinstance(found, LabelledTask) and (not modalities or found.modality in modalities):
            return found
        raise ConfigError(
            f"objective {self.recipe.objective!r}, or one of its transforms or its sampler, works on "
            f"{' or '.join(modalities) or 'graph or image'} tasks, but the task is about {found.world} "
            f"({found.modality}); choose another method"
        )


@dataclass(frozen=True)
class StepContext:
    """What a transform receives at each step.

    Attributes:
        step: Index of the step, from 0.
        lr: Learning rate of this step.
        trained: Parameters that the optimiser moves.
        before: Their values before this step.
        optimizer: The optimiser (AdamW's state holds the moments, by parameter).
        sides: Gradients of the forget and the retain parts apart, if a transform asked for them
            (`Transform.wants_sides`).
        draw: Indices of this step into the pools.
    """

    step: int
    lr: float
    trained: Mapping[str, nn.Parameter]
    before: Mapping[str, Tensor]
    optimizer: torch.optim.Optimizer
    sides: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    draw: Draw = Draw(())


class Objective:
    """Base of objectives: options, references, loss parts.

    Subclasses set `Options` (a frozen dataclass) and define `prepare` and `parts`. A method that changes no weight but
    what the model does while it runs sets ``trains = False`` and returns its `Intervention`; it has no parts.
    ``modalities`` says what the models may read that it works on.
    """

    Options: ClassVar[type]
    trains: ClassVar[bool] = True
    modalities: ClassVar[tuple[Modality, ...]] = EVERY_MODALITY

    def __init__(self, options: Any) -> None:
        self.options = options

    @property
    def uses_retain(self) -> bool:
        """Whether `parts` reads the retain side of a draw; if not, no retain data is needed."""
        return False

    def added(self, model: HookedModel, task: AnyTask) -> Mapping[str, nn.Parameter] | None:  # noqa: ARG002
        """Parameters that the method trains in place of the model's own, which stay frozen; called before `prepare`.

        None for methods that move the model's weights. Added parameters are kept by `intervention`.
        """
        return None

    def prepare(self, ctx: Context) -> Pools:
        """Compute everything that depends on the original weights, once; return what can be drawn."""
        raise NotImplementedError

    def parts(self, draw: Draw) -> Iterator[Part]:
        """Yield the summands of the loss at ``draw``."""
        raise NotImplementedError

    def finish(self, trained: Mapping[str, nn.Parameter]) -> None:
        """Change the weights once more after the last step, early stop included (no gradient is recorded).

        Args:
            trained: Parameters that the optimiser moved, by name (LoRA factors where LoRA is trained).
        """

    def intervention(self) -> Intervention | None:
        """What is to be done to the model while it runs, beside the weights; None if the weights are all."""
        return None

    def stop_levels(self) -> dict[str, float]:
        """Term name to the value below which going on would be over-fitting, for `Stop` without a number."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Tensors that change during training and cannot be recomputed from the original weights."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""


class Transform:
    """Base of gradient transforms, applied in the recipe's order between back-propagation and the optimiser."""

    Options: ClassVar[type]
    wants_sides: ClassVar[bool] = False
    modalities: ClassVar[tuple[Modality, ...]] = EVERY_MODALITY

    def __init__(self, options: Any) -> None:
        self.options = options

    def prepare(self, ctx: Context) -> None:
        """Check that the combination is possible and compute what depends on the original weights."""

    def __call__(self, grads: dict[str, Tensor], ctx: StepContext) -> dict[str, Tensor]:
        """Return the gradient that the optimiser shall see; every trained parameter has an entry."""
        raise NotImplementedError

    def after_step(self, ctx: StepContext) -> None:
        """Correct the weights after the optimiser's step (momentum and decay move what has no gradient)."""

    def finish(self, trained: Mapping[str, nn.Parameter], before: Mapping[str, Tensor]) -> None:
        """Correct the weights after the objective changed them once more, at the end of the run (`Objective.finish`).

        Args:
            trained: Parameters that the optimiser moved, by name.
            before: Their values before the objective's last change.
        """

    def terms(self) -> Mapping[str, float]:
        """Numbers of the step just taken, for the log."""
        return {}

    def tables(self) -> Sequence[Labelled]:
        """What `prepare` found that a reader should see; saved with the run."""
        return ()

    def state(self) -> dict[str, Tensor]:
        """Tensors that change during training (histories, masks found on the way)."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""


def check_own_weights(ctx: Context, transform: str) -> None:
    """Refuse parameters that the model computes with during a step only: LoRA factors, an objective's operators.

    Raises:
        ConfigError: If the recipe trains such parameters.
    """
    own = dict(ctx.model.module.named_parameters())
    if not all(own.get(name) is parameter for name, parameter in ctx.trained.items()):
        what = "LoRA factors" if ctx.recipe.trainable.lora_rank else f"parameters that {ctx.recipe.objective!r} adds"
        raise ConfigError(
            f"transform {transform!r} takes gradients of the model's own weights, but the recipe trains {what}; set "
            "trainable.lora_rank to 0, use another objective, or leave the transform out"
        )


class Sampler:
    """Base of samplers: which items meet in which step.

    A draw is a pure function of seed, step and what `state` returns; most samplers have no state, so resuming needs no
    position.
    """

    Options: ClassVar[type]

    def __init__(self, options: Any) -> None:
        self.options = options

    def prepare(self, pools: Pools, *, batch_size: int, retain_batch_size: int, seed: int) -> None:
        """Remember the pools; nothing is drawn yet."""
        self.pools = pools
        self.batch_size = batch_size
        self.retain_batch_size = retain_batch_size
        self.seed = seed

    @property
    def epoch_length(self) -> int:
        """Forget items drawn until every unit of the sampler (an item, or a pair) has come once."""
        return len(self.pools.forget)

    def watch(self, ctx: Context) -> None:
        """Look at the original model, for samplers that follow what it still knows; called once, after `prepare`."""

    def draw(self, step: int) -> Draw:
        """Indices of step ``step`` (from 0)."""
        raise NotImplementedError

    def after_step(self, step: int) -> dict[str, float]:  # noqa: ARG002
        """Look at the model before step ``step`` is drawn; returns numbers for the log."""
        return {}

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to draw, which ends the run early."""
        return False

    def state(self) -> dict[str, Tensor]:
        """Tensors that decide draws and cannot be recomputed from the original weights."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""


OBJECTIVES: Registry[type[Objective]] = Registry("objective")
TRANSFORMS: Registry[type[Transform]] = Registry("transform")
SAMPLERS: Registry[type[Sampler]] = Registry("sampler")
