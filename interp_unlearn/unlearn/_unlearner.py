"""`Unlearner`: the one loop that runs every recipe, one step at a time, resumable at any step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from interp_unlearn._core import (
    ConfigError,
    DataError,
    FileFormatError,
    Labelled,
    TrainingDivergedError,
    adamw,
    config_hash,
)
from interp_unlearn.hooked import HookedModel, Intervention, gradients_of, together
from interp_unlearn.unlearn._gradients import accumulate, square_sum
from interp_unlearn.unlearn._last_step import LastStep
from interp_unlearn.unlearn._pools import check_apart, label_pools
from interp_unlearn.unlearn._protocols import OBJECTIVES, SAMPLERS, TRANSFORMS, Context, Draw, Pools, Side, StepContext
from interp_unlearn.unlearn._recipe import Recipe
from interp_unlearn.unlearn._stop import StopRule
from interp_unlearn.unlearn._trainable import Trainable
from interp_unlearn.unlearn._trained import AddedSet, LoraSet, NoWeights, WeightSet, trained_set
from interp_unlearn.worlds import AnyTask, LabelledTask, task_to_json, without_deleted

MOMENTS = ("exp_avg", "exp_avg_sq")
HALF = (torch.float16, torch.bfloat16)


class Unlearner:
    """Runs ``recipe`` on ``model`` in place.

    References (answer log-probabilities, activations, means of latents) are computed here, once, from the weights the
    model has now; no second model is kept. To resume after a kill: open the model with its original weights again,
    make the `Unlearner` with the same task and recipe, and `load_state`.

    Args:
        model: The opened model; its weights change in place (`restore` undoes that).
        task: What to forget and what to keep.
        recipe: How.
        sae: One SAE or several (each knows its site), for objectives that read latents.

    Raises:
        ConfigError: If recipe, model and SAE do not fit together.
        DataError: If the forget set is empty or is the retain set, or the objective needs retain data that the task
            lacks.
    """

    def __init__(self, model: HookedModel, task: AnyTask, recipe: Recipe, sae: Any = None) -> None:
        self.model = model
        self.task = task
        self.recipe = recipe
        self.step_index = 0
        self._stopped = False
        self._warned = False
        self._check_modality()
        given: Sequence[Any] = () if sae is None else sae if isinstance(sae, (list, tuple)) else (sae,)
        self.objective = OBJECTIVES[recipe.objective](recipe.options)
        self._check_trains()
        self._set = self._trained_set()
        self._warn_of_half_precision()
        saes = {s.site: s for s in given}
        if len(saes) != len(given):
            raise ConfigError(f"several SAEs read {', '.join(saes)}; give one SAE for each site")
        context = Context(model, task, recipe, saes, self._set.trained, Pools(()), recipe.seed)
        with torch.no_grad(), gradients_of(model.module):
            self.pools = label_pools(self.objective.prepare(context), task)
            self._check_pools()
            context = Context(model, task, recipe, saes, self._set.trained, self.pools, recipe.seed)
            self.transforms = [TRANSFORMS[name](options) for name, options in recipe.transforms]
            with without_deleted(task, model):  # gradients are taken of the graph that training sees
                for transform in self.transforms:
                    transform.prepare(context)
            self.sampler = SAMPLERS[recipe.sampler](recipe.sampler_options)
            self.sampler.prepare(
                self.pools, batch_size=recipe.batch_size, retain_batch_size=recipe.retain_batch_size, seed=recipe.seed
            )
            self.sampler.watch(context)
        self._rule = StopRule(recipe.stop, self.objective)
        self._optimizer = self._make_optimizer()
        self._last = LastStep(self._set, self._optimizer, copies=bool(self.transforms))

    def _make_optimizer(self) -> torch.optim.Optimizer:
        recipe = self.recipe
        moved = list(self._set.trained.values()) or [torch.zeros(0)]
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(moved, lr=recipe.lr, weight_decay=recipe.weight_decay)
        return adamw(moved, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)

    def _trained_set(self) -> WeightSet | LoraSet | AddedSet | NoWeights:
        if not self.objective.trains:
            return NoWeights(self.model)
        added = self.objective.added(self.model, self.task)
        if added is not None:
            if self.recipe.trainable != Trainable():
                raise ConfigError(
                    f"objective {self.recipe.objective!r} trains parameters of its own and freezes the model, so "
                    "recipe.trainable chooses nothing; leave it out"
                )
            return AddedSet(self.model, added)
        return trained_set(self.model, self.recipe.trainable, self.recipe.seed)

    @contextmanager
    def _installed(self) -> Iterator[None]:
        """The model as training needs it, without what the deletion takes away."""
        with self._set.installed(), without_deleted(self.task, self.model):
            yield

    def _check_modality(self) -> None:
        named = [("objective", self.recipe.objective, OBJECTIVES[self.recipe.objective])]
        named += [("transform", name, TRANSFORMS[name]) for name, _ in self.recipe.transforms]
        for kind, name, part in named:
            if self.task.modality not in part.modalities:
                others = OBJECTIVES if kind == "objective" else TRANSFORMS
                fitting = sorted(n for n in others if self.task.modality in others[n].modalities)
                raise ConfigError(
                    f"{kind} {name!r} works on {' and '.join(part.modalities)} models, but the task is about "
                    f"{self.task.world} ({self.task.modality}); use one of {', '.join(fitting)}"
                )

    def _check_trains(self) -> None:
        if not self.objective.trains and (self.recipe.transforms or self.recipe.stop is not None):
            what = "recipe.transforms" if self.recipe.transforms else "recipe.stop"
            raise ConfigError(
                f"objective {self.recipe.objective!r} changes no weight, so {what} has nothing to act on; leave it out"
            )

    def _warn_of_half_precision(self) -> None:
        half = {str(p.dtype).removeprefix("torch.") for p in self._set.trained.values() if p.dtype in HALF}
        if half and self.changes_weights:
            warnings.warn(
                f"the trained weights of {self.model.name} are in {' and '.join(sorted(half))}, in which most updates "
                "at unlearning rates round to nothing, so the method may do far less than its recipe says; open the "
                "model with dtype=torch.float32",
                stacklevel=3,
            )

    def _check_pools(self) -> None:
        if not self.pools.forget:
            raise DataError(
                "the forget set is empty: the task has no training question or mention of the target; "
                "choose another target, other relations, or a world with training templates"
            )
        if self.objective.uses_retain:
            check_apart(self.task)
        if self.objective.uses_retain and not self.pools.retain:
            raise DataError(
                f"objective {self.recipe.objective!r} needs retain data, but the task has none; give known reference "
                "entities, or set the weight of the retain term to 0"
            )

    # -- running -----------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether all steps were taken or the stop rule fired (at once for a method that changes no weight)."""
        return self._stopped or not self.objective.trains or self.step_index >= self.recipe.steps

    @property
    def stopped_early(self) -> bool:
        """Whether the stop rule fired, or the sampler has nothing left to draw."""
        return self._stopped

    @property
    def stop_level(self) -> float | None:
        """The level under which the stop rule fires, or None without a rule."""
        return self._rule.level

    @property
    def eval_due(self) -> bool:
        """Whether the recipe asks for an evaluation now (after the step just taken)."""
        every = self.recipe.eval_every
        return every > 0 and self.step_index > 0 and self.step_index % every == 0

    def step(self) -> dict[str, float]:
        """Take one optimiser step.

        Returns:
            ``loss`` (weighted sum), every term of the objective, ``grad_norm`` (before clipping), ``lr``.

        Raises:
            TrainingDivergedError: If the loss or the gradient is not finite; the weights of the last finite loss are
                kept (to rounding; the original ones where these cannot be had).
            ConfigError: If the run is already done.
        """
        if self.done:
            raise ConfigError(f"the run is done after {self.step_index} steps; make a new Unlearner to go on")
        recipe, trained = self.recipe, self._set.trained
        lr = recipe.learning_rate(self.step_index)
        with self._installed():
            draw = replace(self.sampler.draw(self.step_index), step=self.step_index)
            grads, sides, record = self._gradients(draw)
            with torch.no_grad():
                self._last.remember()
                before = self._last.before
                context = StepContext(self.step_index, lr, trained, before, self._optimizer, sides, draw)
                for transform in self.transforms:
                    grads = transform(grads, context)
                norm = math.sqrt(sum(square_sum(g) for g in grads.values()))
                self._check_finite(norm, "gradient")
                if norm == 0 and not self._warned:
                    self._warned = True
                    warnings.warn(
                        f"nothing moved: the gradient of objective {recipe.objective!r} is exactly zero at step "
                        f"{self.step_index}; check that the trained parameters lie at or below the layer of the loss",
                        stacklevel=2,
                    )
                scale = min(1.0, recipe.clip / (norm + 1e-6)) if recipe.clip else 1.0
                grads = dict(grads)
                for name, parameter in trained.items():
                    gradient = grads.pop(name)
                    if scale != 1.0:  # a transform may keep what it returned; without one, nobody else holds it
                        gradient = gradient * scale if self.transforms else gradient.mul_(scale)
                    parameter.grad = gradient
                for group in self._optimizer.param_groups:
                    group["lr"] = lr
                self._optimizer.step()
                self._optimizer.zero_grad(set_to_none=True)
                for transform in self.transforms:
                    transform.after_step(context)
                    record.update(transform.terms())
                record.update(self.sampler.after_step(self.step_index + 1))
        self.step_index += 1
        self._stopped = self._rule.follow(record, self.step_index) or self.sampler.exhausted
        if self.done:
            self._finish()
        return {**record, "grad_norm": norm, "lr": lr}

    def _finish(self) -> None:
        """The objective's last change of the weights, corrected by the transforms."""
        with self._installed(), torch.no_grad():
            before = {name: p.detach().clone() for name, p in self._set.trained.items()} if self.transforms else {}
            self.objective.finish(self._set.trained)
            for transform in self.transforms:
                transform.finish(self._set.trained, before)

    def _gradients(self, draw: Draw) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], dict[str, float]]:
        """Back-propagate part by part; gradients in sum, by side where a transform asks, and the log record."""
        trained = self._set.trained
        apart = any(t.wants_sides for t in self.transforms)
        found: dict[str, dict[str, Tensor]] = {side: {} for side in (get_args(Side) if apart else ("sum",))}
        loss, record = 0.0, {}
        for part in self.objective.parts(draw):
            value = float(part.loss.detach())
            for term, number in part.terms.items():
                self._check_finite(number, term, undo=True)
            self._check_finite(value, f"{part.side} loss", undo=True)
            loss += value
            record.update(part.terms)
            if part.loss.requires_grad:
                accumulate(part.loss, trained, found[part.side if apart else "sum"])
        first, *others = (
            {name: own[name] if name in own else torch.zeros_like(p) for name, p in trained.items()}
            for own in found.values()
        )
        if not apart:
            return first, {}, {"loss": loss, **record}
        whole = {name: sum((other[name] for other in others), start=gradient) for name, gradient in first.items()}
        return whole, dict(zip(found, (first, *others), strict=True)), {"loss": loss, **record}

    def _check_finite(self, value: float, what: str, *, undo: bool = False) -> None:
        """Refuse to go on from a number that is not finite; a loss takes the step that led to it back (``undo``)."""
        if math.isfinite(value):
            return
        taken = self.step_index
        if undo:
            taken = self._last.undo(self.recipe.learning_rate(max(0, taken - 1)), taken)
        kept = f"the weights after step {taken - 1}" if taken else "the original weights"
        raise TrainingDivergedError(
            f"the {what} is {value} at step {self.step_index} of objective {self.recipe.objective!r}; "
            f"{kept} were kept. Lower recipe.lr (now {self.recipe.lr:g}) or recipe.steps"
        )

    # -- weights and state -------------------------------------------------------------------------------------------

    @property
    def originals(self) -> dict[str, Tensor]:
        """Original values of the weights that may change, by real parameter name, on the CPU."""
        return self._set.originals

    def changed(self) -> dict[str, Tensor]:
        """Current values of the weights that may have changed, by real parameter name, as CPU copies (LoRA: merged)."""
        return {name: p.detach().to("cpu", copy=True) for name, p in self._set.weights().items()}

    def tables(self) -> list[Labelled]:
        """What the transforms found before the first step, to be saved with the run."""
        return [table for transform in self.transforms for table in transform.tables()]

    @property
    def changes_weights(self) -> bool:
        """Whether the method moves weights of the model; if not, its intervention is all there is to keep."""
        return isinstance(self._set, WeightSet | LoraSet)

    @property
    def intervention(self) -> Intervention | None:
        """What the deletion takes away and the method does while the model runs, beside the weights, or None."""
        removal = self.task.removal() if isinstance(self.task, LabelledTask) else None
        return together(removal, self.objective.intervention())

    def edited(self) -> AbstractContextManager[Any]:
        """The model as the method leaves it: measure it inside this block.

        Where only weights change, the block does nothing.
        """
        found = self.intervention
        return nullcontext(self.model) if found is None else found.applied(self.model)

    def restore(self) -> None:
        """Put the original weights back into the model."""
        self._set.restore()

    def _facts(self) -> dict[str, str]:
        return {"recipe": config_hash(self.recipe.to_dict()), "task": config_hash(task_to_json(self.task))}

    def state(self, *, copy: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What an exact resume needs beyond the original weights: tensors for safetensors, facts for JSON.

        Args:
            copy: False gives the tensors in use where they are on the CPU, to be written before the next step: a copy
                takes three times the memory of what is trained.
        """
        held: dict[str, Tensor] = {f"trained/{name}": p for name, p in self._set.trained.items()}
        held.update({f"before/{name}": t for name, t in self._last.before.items()})
        for name, parameter in self._set.trained.items():
            for moment, value in self._optimizer.state.get(parameter, {}).items():
                held[f"adamw/{moment}/{name}"] = torch.as_tensor(value)
        tensors = {name: t.detach().to("cpu", copy=copy) for name, t in held.items()}
        tensors.update({f"objective/{k}": v for k, v in self.objective.state().items()})
        tensors.update({f"sampler/{k}": v for k, v in self.sampler.state().items()})
        for i, transform in enumerate(self.transforms):
            tensors.update({f"transform/{i}/{k}": v for k, v in transform.state().items()})
        facts = {"kind": "unlearner", "step": self.step_index, "stopped": self._stopped}
        return tensors, {**facts, **self._rule.state(), "warned": self._warned, **self._facts()}

    def load_state(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            FileFormatError: If the state belongs to another recipe or task, or lacks tensors.
        """
        mine = self._facts()
        for what in ("recipe", "task"):
            if facts.get("kind") != "unlearner" or facts.get(what) != mine[what]:
                raise FileFormatError(
                    f"the saved state belongs to another {what}; resume with the files of its own run folder"
                )
        under = lambda prefix: {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}  # noqa: E731
        self._set.load(under("trained/"))
        self._last.load(under("before/"))
        self.step_index = int(facts["step"])
        self._stopped, self._warned = bool(facts["stopped"]), bool(facts["warned"])
        self._rule.load_state(facts)
        if self.step_index and self.recipe.optimizer == "adamw":
            self._load_moments(tensors)
        self.objective.load_state(under("objective/"))
        self.sampler.load_state(under("sampler/"))
        for i, transform in enumerate(self.transforms):
            transform.load_state(under(f"transform/{i}/"))

    def _load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._set.trained.items():
            missing = [m for m in (*MOMENTS, "step") if f"adamw/{m}/{name}" not in tensors]
            if missing:
                raise FileFormatError(
                    f"the saved state lacks the optimiser's {missing[0]} of {name}; it may be truncated"
                )
            moments = {m: tensors[f"adamw/{m}/{name}"].to(parameter.device, copy=True) for m in MOMENTS}
            where = parameter.device if self._optimizer.defaults["fused"] else "cpu"
            steps = tensors[f"adamw/step/{name}"].to(where, copy=True)
            self._optimizer.state[parameter] = {"step": steps, **moments}


def unlearn(
    model: HookedModel,
    task: AnyTask,
    recipe: Recipe,
    sae: Any = None,
    on_step: Callable[[Unlearner, dict[str, float]], None] | None = None,
) -> Unlearner:
    """Run a whole recipe.

    Args:
        model: The opened model, changed in place.
        task: What to forget and what to keep.
        recipe: How.
        sae: SAE or SAEs for objectives that read latents.
        on_step: Called after each step with the unlearner and the step's numbers.

    Returns:
        The finished `Unlearner` (`changed`, `restore`).
    """
    unlearner = Unlearner(model, task, recipe, sae)
    while not unlearner.done:
        record = unlearner.step()
        if on_step is not None:
            on_step(unlearner, record)
    return unlearner
