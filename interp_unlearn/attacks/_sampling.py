"""Sampling: a right answer that greedy decoding no longer gives may be among a few samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.attacks._ask_config import AskConfig
from interp_unlearn.attacks._asked import Groups
from interp_unlearn.attacks._asking import Asked, Asking, Tell
from interp_unlearn.attacks._protocol import AttackResult, Progress
from interp_unlearn.attacks._recall import UNATTACKED, ask
from interp_unlearn.hooked import HookedModel, answer_batch, answer_logits, evaluating
from interp_unlearn.worlds import Prompt, Task


@dataclass(frozen=True)
class SamplingConfig(AskConfig):
    """How answers are sampled.

    Attributes:
        temperatures: Logits are divided by these.
        samples: Numbers of samples; a setting for each temperature and number.
        top_p: Share of probability that sampling is restricted to (nucleus sampling); 1 leaves all tokens.
    """

    attack: ClassVar[str] = "sampling"

    temperatures: tuple[float, ...] = (0.7, 1.0)
    samples: tuple[int, ...] = (1, 4, 16)
    top_p: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        ok = bool(self.temperatures) and all(t > 0 for t in self.temperatures)
        self.require(ok, "temperatures", "use positive numbers such as 0.7")
        self.require(bool(self.samples) and all(k >= 1 for k in self.samples), "samples", "use numbers from 1")
        self.require(0 < self.top_p <= 1, "top_p", "it is a share, above 0 and at most 1")


def sampled_logprobs(
    logits: Float[Tensor, "n vocab"], temperature: float, top_p: float = 1.0
) -> Float[Tensor, "n vocab"]:
    """Log-probabilities that sampling draws from.

    Args:
        logits: Raw logits.
        temperature: Divides them.
        top_p: Only the likeliest tokens whose probabilities before them add up to less than this are kept.
    """
    logprobs = (logits / temperature).log_softmax(-1)
    if top_p >= 1:
        return logprobs
    ordered, order = logprobs.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    dropped = torch.zeros_like(logprobs, dtype=torch.bool).scatter(-1, order, before >= top_p)
    return logprobs.masked_fill(dropped, -torch.inf).log_softmax(-1)


@torch.no_grad()
def answer_chances(
    model: HookedModel,
    prompts: Sequence[Prompt],
    temperatures: Sequence[float],
    *,
    top_p: float = 1.0,
    batch_size: int = 32,
) -> Float[np.ndarray, "temperature prompt"]:
    """Probability that one sample begins with a right answer, at each temperature.

    It is the product over the answer's tokens of the probabilities that sampling draws from, summed over right answers;
    other ways to cut an answer into tokens are not counted. A model whose logits are not finite gives 0.

    Args:
        model: A language model with a tokenizer.
        prompts: Questions.
        temperatures: Of sampling.
        top_p: As in `sampled_logprobs`.
        batch_size: Prompts per forward pass.
    """
    chances = np.zeros((len(temperatures), len(prompts)))
    pairs = [(i, a) for i, p in enumerate(prompts) for a in dict.fromkeys((p.answer, *p.also))]
    for start in range(0, len(pairs), batch_size):
        rows = pairs[start : start + batch_size]
        encoded = answer_batch(model, [prompts[i].text for i, _ in rows], [a for _, a in rows])
        with evaluating(model.module):
            logits = answer_logits(model, encoded)
        at, columns = encoded.answer.nonzero(as_tuple=True)
        ids = encoded.batch.tokens[at, columns]
        for t, temperature in enumerate(temperatures):
            picked = sampled_logprobs(logits, temperature, top_p).gather(1, ids[:, None])[:, 0]
            total = torch.zeros(len(rows), device=logits.device).index_add(0, at, picked).exp().nan_to_num(0.0)
            np.add.at(chances[t], [i for i, _ in rows], total.double().cpu().numpy())
    return chances.clip(0.0, 1.0)


def _ask(model: HookedModel, _task: Task, groups: Groups, config: SamplingConfig, tell: Tell) -> Asked:
    scores = {}
    for done, (name, prompts) in enumerate(groups.items()):
        greedy = ask(model, prompts, config.batch_size)
        chances = answer_chances(model, prompts, config.temperatures, top_p=config.top_p, batch_size=config.batch_size)
        rows = [greedy]
        rows += [np.stack([1 - (1 - one) ** k, greedy[:, 1]], axis=1) for one in chances for k in config.samples]
        scores[name] = np.stack(rows)
        tell(done + 1, len(groups))
    labels = [f"T={t:g}, best of {k}" for t in config.temperatures for k in config.samples]
    return Asked((UNATTACKED, *labels), scores, {})


SAMPLING = Asking("sampling", "sampling answers", "full", SamplingConfig, _ask)


def sampling_attack(
    model: HookedModel, task: Task, config: SamplingConfig | None = None, *, progress: Progress | None = None
) -> AttackResult:
    """How likely is it that the best of k samples is right?

    Nothing is drawn: with ``p`` the probability that one sample begins with a right answer, the best of k independent
    samples is right with probability ``1 − (1 − p)^k``, which is what sampling with many seeds would come to.

    Args:
        model: The model to attack.
        task: Names the target and holds the questions.
        config: Settings; default `SamplingConfig()`.
        progress: Called with what is done, steps done and steps in all.

    Returns:
        ``recovery/sampling`` and the curve ``attack.sampling``.

    Raises:
        DataError: If there is no question about the target.
    """
    return SAMPLING(model, task, config, progress=progress)
