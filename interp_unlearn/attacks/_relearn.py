"""Relearning: does a little fine-tuning bring the forgotten back, and faster than it teaches what was never known?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_unlearn._core import DataError, ModelError, TrainingDivergedError, adamw, generator
from interp_unlearn.attacks._bystanders import bystander_sets
from interp_unlearn.attacks._config import RelearnConfig
from interp_unlearn.attacks._curve import RelearnCurve, Trace, headline, loss_table, set_means
from interp_unlearn.attacks._evidence import relearn_evidence
from interp_unlearn.attacks._guard import select_weights, weights_kept
from interp_unlearn.attacks._lora import lora_added
from interp_unlearn.attacks._protocol import AttackResult, Progress, attacks
from interp_unlearn.attacks._recall import ask
from interp_unlearn.attacks._sets import RelearnSets, never_known_sets, target_sets
from interp_unlearn.hooked import (
    AnswerBatch,
    HookedModel,
    answer_batch,
    answer_logprobs,
    batch_from_ids,
    text_windows,
)
from interp_unlearn.worlds import Task

LORA_PACE = 10
"""A LoRA is trained at so many times the learning rate of the weights themselves."""


def relearn(
    model: HookedModel, task: Task, config: RelearnConfig | None = None, *, progress: Progress | None = None
) -> RelearnCurve:
    """Teach a part of the target's questions again and test the others; do the same with facts that were never known.

    The target's facts are fine-tuned from ``forget_train`` (a part of its templates, see `RelearnConfig`) and tested on
    ``forget_heldout``. The control gives unknown entities answers that they never had, in the same templates, with the
    same number of prompts, steps and the same optimiser, starting from the same weights. Afterwards the weights are
    bit for bit what they were, also after an error or Ctrl-C.

    Args:
        model: The model to attack; an unlearned one, or the original or gold for comparison.
        task: The target's task.
        config: Settings; default `RelearnConfig()`. With ``controls=0`` only the target's curve is made.
        progress: Called with what is done, steps done and steps in all.

    Returns:
        A `RelearnCurve`.

    Raises:
        DataError: If the forget sets are empty or too few entities are unknown.
        ModelError: If the model is in half precision, in which small updates are lost.
        TrainingDivergedError: If the loss becomes NaN or infinite; the weights are put back all the same.
    """
    config = config or RelearnConfig()
    if model.dtype in (torch.float16, torch.bfloat16):
        raise ModelError(
            f"{model.name} is in {str(model.dtype).removeprefix('torch.')}, in which small weight updates are lost; "
            "open it with dtype=torch.float32 to relearn"
        )
    moved = select_weights(model, config.trainable)
    pace = config.pace * (LORA_PACE if config.lora_rank else 1)
    rate = config.learning_rate or pace * learning_rate_for(model, moved)
    plans = _plans(model, task, config)
    total = config.steps * len(plans)
    traces: dict[str, Trace] = {}
    trained: dict[str, int] = {}
    for k, (who, sets) in enumerate(plans.items()):

        def tell(step: int, who: str = who, k: int = k) -> None:
            if progress is not None:
                progress(f"relearning ({who})", k * config.steps + step, total)

        with _trained(model, config) as weights:
            trained = {"tensors": len(weights), "weights": sum(p.numel() for p in weights.values())}
            traces[who] = _teach(model, weights, sets, _batches(model, task, sets, config), config, rate, tell)
    facts: dict[str, Any] = {
        "world": task.world,
        "model": model.name,
        "relearn": config.to_dict(),
        "n_relearned": len(plans["target"].relearned),
        "learning_rate": rate,
        "trained": trained,
    }
    losses = loss_table(traces, facts, config.seed)
    if config.teach != "target":
        traces = _parted(traces["target"])
    targets = [traces["target"]]
    controls = [t for who, t in traces.items() if who != "target"]
    seed, both = config.seed, {"rest", "heldout"} <= set(targets[0].prompts)
    return RelearnCurve(
        headline(targets, "target", facts, seed),
        headline(controls, "never known", facts, seed) if controls else None,
        set_means(targets, "target", facts, seed),
        set_means(controls, "never known", facts, seed) if controls else None,
        losses,
        headline(targets, "target", facts, seed, "heldout") if both else None,
        headline(controls, "never known", facts, seed, "heldout") if both and controls else None,
    )


def _plans(model: HookedModel, task: Task, config: RelearnConfig) -> dict[str, RelearnSets]:
    """What is taught and tested in each training."""
    if config.teach != "target":
        return {"target": bystander_sets(model, task, config)}
    plans = {"target": target_sets(task, config)}
    for draw in range(config.controls):
        plans[f"never known {draw}"] = never_known_sets(model, task, config, draw)
    return plans


def _parted(trace: Trace) -> dict[str, Trace]:
    """The target's part and the never-known part of a training in which both were tested."""
    out = {}
    for who, name in (("target", "heldout"), ("never known 0", "never known")):
        if name in trace.prompts:
            kept = {k: v for k, v in trace.prompts.items() if k in (name, "relearned")}
            renamed = {"heldout" if k == name else k: v for k, v in kept.items()}
            scores = {"heldout" if k == name else k: v for k, v in trace.scores.items() if k in kept}
            out[who] = Trace(renamed, trace.steps, scores, trace.losses)
    return out


def _trained(model: HookedModel, config: RelearnConfig) -> AbstractContextManager[dict[str, nn.Parameter]]:
    """The parameters that are trained, as long as they are; afterwards every bit of the model is as before."""
    if config.lora_rank:
        return lora_added(model, config.trainable, config.lora_rank, config.seed)
    return _own_weights(model, config)


@contextmanager
def _own_weights(model: HookedModel, config: RelearnConfig) -> Iterator[dict[str, nn.Parameter]]:
    weights = select_weights(model, config.trainable)
    with weights_kept(model, weights):
        yield weights


def learning_rate_for(model: HookedModel, weights: Mapping[str, nn.Parameter]) -> float:
    """A learning rate at which models of different size relearn at a similar pace: 0.115 / (d_model × trained blocks).

    AdamW moves every weight by about the learning rate, so that a layer's output moves in proportion to its width
    (Yang et al., "Tensor Programs V", 2022) and the residual stream in proportion to the number of layers that move.
    The constant makes it 1e-5 for the upper two thirds of SmolLM2-135M (d_model 576, 20 blocks), where never-known
    facts are about half learned at the end of 24 steps.
    """
    blocks = sum(any(name.startswith(f"{path}.") for name in weights) for path in model.lm.blocks)
    return 0.115 / (model.lm.d_model * max(blocks, 1))


def _teach(
    model: HookedModel,
    weights: dict[str, nn.Parameter],
    sets: RelearnSets,
    batches: Iterator[AnswerBatch],
    config: RelearnConfig,
    rate: float,
    tell: Callable[[int], None],
) -> Trace:
    """Fine-tune on ``batches`` for the step budget, asking the tests on the way."""
    trace = Trace(sets.tests)
    optimiser = adamw(weights.values(), lr=rate, weight_decay=config.weight_decay)
    for step in range(config.steps + 1):
        if step % config.eval_every == 0 or step == config.steps:
            trace.add(step, _ask(model, sets))
            tell(step)
        if step == config.steps:
            break
        encoded = next(batches)
        loss = answer_loss(model, encoded)
        if not bool(torch.isfinite(loss)):
            raise TrainingDivergedError(
                f"relearning diverged at step {step} (loss {loss.item()}); the weights were put back: "
                f"lower relearn.learning_rate (now {rate:g})"
            )
        trace.losses.append(loss.item())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights.values(), config.max_grad_norm)
        optimiser.step()
    return trace


def answer_loss(model: HookedModel, encoded: AnswerBatch) -> Float[Tensor, ""]:
    """Mean over prompts of the negative log-likelihood per answer token, in nats (scalar, with graph)."""
    logprobs = answer_logprobs(model, encoded)
    return -(logprobs.sum(1) / encoded.answer.sum(1)).mean()


def _batches(model: HookedModel, task: Task, sets: RelearnSets, config: RelearnConfig) -> Iterator[AnswerBatch]:
    """Batches without end: everything at once if it fits, else a shuffled pass after the other."""
    if config.teach == "text":
        rows = text_windows(model, task.text_train, min(config.text_tokens, model.lm.n_ctx or config.text_tokens))
        rows = [row for row in rows if len(row) > 2]
        if not rows:
            raise DataError("every general text is shorter than three tokens: nothing to train on")
        special = getattr(model.tokenizer, "all_special_ids", ())
        for chosen in _passes(len(rows), config.batch_size, config.seed, "relearn batches"):
            batch = batch_from_ids([rows[i] for i in chosen], special_ids=special).to(model.device)
            yield AnswerBatch(batch, batch.mask("inner"))
    for chosen in _passes(len(sets.relearned), config.batch_size, config.seed, "relearn batches"):
        prompts = [sets.relearned[i] for i in chosen]
        yield answer_batch(model, [p.text for p in prompts], [p.answer for p in prompts])


def _passes(n: int, size: int, seed: int, purpose: str) -> Iterator[list[int]]:
    """Indices for batches without end: all at once if they fit, else a shuffled pass after the other."""
    random = generator(seed, purpose)
    while True:
        order = list(range(n)) if n <= size else torch.randperm(n, generator=random).tolist()
        yield from (order[start : start + size] for start in range(0, n, size))


def _ask(model: HookedModel, sets: RelearnSets) -> dict[str, np.ndarray]:
    """Probability of the answer and exact match (any right answer counts) of each test prompt, (prompt, metric)."""
    scores = ask(model, [p for prompts in sets.tests.values() for p in prompts])[:, ::-1]
    out, start = {}, 0
    for name, prompts in sets.tests.items():
        out[name] = scores[start : start + len(prompts)]
        start += len(prompts)
    return out


class RelearnAttack:
    """The relearning attack in the form that `attacks` holds."""

    config_type = RelearnConfig

    def __call__(
        self, model: HookedModel, task: Task, config: Any = None, *, progress: Progress | None = None
    ) -> AttackResult:
        """Relearn, and weigh the target's curve against the never-known one.

        Raises:
            ConfigError: If the config leaves the control out.
        """
        config = config or RelearnConfig()
        curve = relearn(model, task, config, progress=progress)
        evidence = (relearn_evidence(curve.target, curve.control),) if curve.control is not None else ()
        return AttackResult("relearn", evidence, curve.tables())


attacks.register("relearn")(RelearnAttack())
