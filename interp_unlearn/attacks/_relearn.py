"""Relearning: does a little fine-tuning bring the forgotten back, and faster than it teaches what was never known?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_unlearn._core import ModelError, TrainingDivergedError, adamw, generator
from interp_unlearn.attacks._config import RelearnConfig
from interp_unlearn.attacks._curve import RelearnCurve, Trace, headline, loss_table, set_means
from interp_unlearn.attacks._evidence import relearn_evidence
from interp_unlearn.attacks._guard import select_weights, weights_kept
from interp_unlearn.attacks._protocol import AttackResult, Progress, attacks
from interp_unlearn.attacks._sets import RelearnSets, never_known_sets, target_sets
from interp_unlearn.hooked import AnswerBatch, HookedModel, answer_batch, answer_logprobs
from interp_unlearn.metrics import score_candidates
from interp_unlearn.worlds import Prompt, Task


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
    weights = select_weights(model, config.trainable)
    rate = config.learning_rate or learning_rate_for(model, weights)
    plans: dict[str, RelearnSets] = {"target": target_sets(task, config)}
    for draw in range(config.controls):
        plans[f"never known {draw}"] = never_known_sets(model, task, config, draw)
    total = config.steps * len(plans)
    traces: dict[str, Trace] = {}
    for k, (who, sets) in enumerate(plans.items()):

        def tell(step: int, who: str = who, k: int = k) -> None:
            if progress is not None:
                progress(f"relearning ({who})", k * config.steps + step, total)

        with weights_kept(model, weights):
            traces[who] = _teach(model, weights, sets, config, rate, tell)
    facts: dict[str, Any] = {
        "world": task.world,
        "model": model.name,
        "relearn": config.to_dict(),
        "n_relearned": len(plans["target"].relearned),
        "learning_rate": rate,
        "trained": {"tensors": len(weights), "weights": sum(p.numel() for p in weights.values())},
    }
    targets = [traces["target"]]
    controls = [t for who, t in traces.items() if who != "target"]
    return RelearnCurve(
        headline(targets, "target", facts, config.seed),
        headline(controls, "never known", facts, config.seed) if controls else None,
        set_means(targets, "target", facts, config.seed),
        set_means(controls, "never known", facts, config.seed) if controls else None,
        loss_table(traces, facts, config.seed),
    )


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
    config: RelearnConfig,
    rate: float,
    tell: Callable[[int], None],
) -> Trace:
    """Fine-tune on ``sets.relearned`` for the step budget, asking the tests on the way."""
    trace = Trace(sets.tests)
    optimiser = adamw(weights.values(), lr=rate, weight_decay=config.weight_decay)
    batches = _batches(model, sets.relearned, config)
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


def _batches(model: HookedModel, prompts: Sequence[Prompt], config: RelearnConfig) -> Iterator[AnswerBatch]:
    """Batches without end: everything at once if it fits, else a shuffled pass after the other."""

    def encode(chosen: Sequence[Prompt]) -> AnswerBatch:
        return answer_batch(model, [p.text for p in chosen], [p.answer for p in chosen])

    if len(prompts) <= config.batch_size:
        everything = encode(prompts)
        while True:
            yield everything
    random = generator(config.seed, "relearn batches")
    while True:
        order = torch.randperm(len(prompts), generator=random).tolist()
        for start in range(0, len(order), config.batch_size):
            yield encode([prompts[i] for i in order[start : start + config.batch_size]])


def _ask(model: HookedModel, sets: RelearnSets) -> dict[str, np.ndarray]:
    """Probability of the answer and exact match (any right answer counts) of each test prompt, (prompt, metric)."""
    asked = [p for prompts in sets.tests.values() for p in prompts]
    scored = score_candidates(
        model, [p.text for p in asked], [(p.answer, *p.also) for p in asked], shared_prefix=False
    ).per_prompt
    values = np.array([[float(s.probability[0]), float(s.exact.any())] for s in scored])
    out, start = {}, 0
    for name, prompts in sets.tests.items():
        out[name] = values[start : start + len(prompts)]
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
