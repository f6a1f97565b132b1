"""KLUE's sample selection and stop rule: train only on what is not yet forgotten; stop at chance.

Every epoch (or every few steps) each forget question is asked again; only those still answered are drawn until the next
time. Forgotten samples would keep the largest ascent gradients, which is what makes gradient ascent collapse. The run
ends when at most ``stop_at`` of the questions (a whole-number fraction; 1/3 is chance among three options) are still
answered. Retain items are drawn as in ``paired``.

Source: Yang et al. 2025, FaithUn (arXiv 2502.19207); when a sample counts as answered is an option, because the paper's
protocol is known in outline only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interp_unlearn._core import ConfigError, NothingToForgetError, numpy_rng
from interp_unlearn.hooked import HookedModel, score_answers
from interp_unlearn.metrics import score_candidates
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._protocols import SAMPLERS, Context, Draw, Pools
from interp_unlearn.unlearn.samplers.paired import Paired, PairedOptions
from interp_unlearn.worlds._types import Prompt


@dataclass(frozen=True)
class UnforgottenOptions(PairedOptions):
    """Options of the unforgotten sampler, beside those of `PairedOptions`.

    Attributes:
        known: When a question counts as answered: ``choice`` (a right answer has a higher log-probability per token
            than the first ``options`` wrong ones), ``exact`` (greedy decoding gives it), or ``probability`` (its
            probability per token is above ``threshold``).
        options: Wrong answers that a right one must beat; 2 makes chance 1/3.
        threshold: For ``known = "probability"``.
        every: Ask again every so many steps; 0 after each epoch over the unforgotten items.
        stop_at: Numerator and denominator of the share of answered questions at which the run ends; [0, 1] goes on
            until none is left.
    """

    known: Literal["choice", "exact", "probability"] = "choice"
    options: int = 2
    threshold: float = 0.5
    every: int = 0
    stop_at: tuple[int, int] = (1, 3)

    def __post_init__(self) -> None:
        require(self.options >= 1, f"sampler_options.options is {self.options}; use at least 1")
        require(0 < self.threshold < 1, f"sampler_options.threshold is {self.threshold}; use a number between 0 and 1")
        require(self.every >= 0, f"sampler_options.every is {self.every}; use 0 (each epoch) or a number of steps")
        above, below = self.stop_at
        require(
            0 <= above < below,
            f"sampler_options.stop_at is [{above}, {below}]; give a fraction of the questions below 1 such as [1, 3]",
        )


def answered(model: HookedModel, questions: Sequence[Prompt], options: UnforgottenOptions) -> list[bool]:
    """Whether the model still answers each question.

    Raises:
        ConfigError: If ``known = "choice"`` and a question has no wrong answers to choose from.
    """
    texts = [q.text for q in questions]
    if options.known != "choice":
        scores = score_answers(model, texts, [q.answer for q in questions])
        if options.known == "exact":
            return scores.exact.tolist()
        return (scores.probability > options.threshold).tolist()
    bare = next((q.text for q in questions if not q.options), None)
    if bare is not None:
        raise ConfigError(
            f"sampler_options.known is 'choice', but {bare!r} has no wrong answers to choose from; use 'exact'"
        )
    right = [(q.answer, *q.also) for q in questions]
    candidates = [(*mine, *q.options[: options.options]) for mine, q in zip(right, questions, strict=True)]
    found = []
    for mine, scores in zip(right, score_candidates(model, texts, candidates).per_prompt, strict=True):
        mean = scores.logprob / scores.n_tokens
        found.append(bool(mean[: len(mine)].max() > mean[len(mine) :].max()))
    return found


def enough_forgotten(n_answered: int, n_questions: int, stop_at: tuple[int, int]) -> bool:
    """Whether at most ``stop_at`` of the questions are answered; in whole numbers, so 11 of 33 is 1/3."""
    return n_answered * stop_at[1] <= n_questions * stop_at[0]


@SAMPLERS.register("unforgotten")
class Unforgotten(Paired):
    """Only items that are not yet forgotten."""

    Options = UnforgottenOptions
    options: UnforgottenOptions

    def prepare(self, pools: Pools, *, batch_size: int, retain_batch_size: int, seed: int) -> None:
        """Nothing is forgotten until `watch` has asked."""
        super().prepare(pools, batch_size=batch_size, retain_batch_size=retain_batch_size, seed=seed)
        self.start, self.alive = 0, torch.ones(len(pools.forget), dtype=torch.bool)

    def watch(self, ctx: Context) -> None:
        """Ask every question for the first time.

        Raises:
            ConfigError: If the objective's forget items are not questions.
            NothingToForgetError: If the model answers so few that the run would be over.
        """
        asked = [item.question for item in self.pools.forget]
        self.model, self.questions = ctx.model, [q for q in asked if q is not None]
        if len(self.questions) < len(asked):
            raise ConfigError(
                f"sampler 'unforgotten' asks which questions are still answered, but items of objective "
                f"{ctx.recipe.objective!r} are not questions; use sampler 'paired'"
            )
        self._ask(0)
        if self.exhausted:
            raise NothingToForgetError(
                f"the model answers {int(self.alive.sum())} of {len(asked)} forget questions, which is already at or "
                f"below sampler_options.stop_at = {list(self.options.stop_at)}; choose a target that it knows"
            )

    def _ask(self, step: int) -> None:
        self.start = step
        self.alive = torch.tensor(answered(self.model, self.questions, self.options))

    @property
    def exhausted(self) -> bool:
        """Whether few enough questions are answered."""
        return enough_forgotten(int(self.alive.sum()), len(self.alive), self.options.stop_at)

    def draw(self, step: int) -> Draw:
        """The next unforgotten items of this epoch; the last batch of an epoch may be smaller."""
        items = self.alive.nonzero()[:, 0].tolist()
        order = numpy_rng(self.seed, "unforgotten", self.start).permutation(len(items))
        batches = -(-len(items) // self.batch_size)
        first = (step - self.start) % batches * self.batch_size
        return Draw(tuple(items[i] for i in order[first : first + self.batch_size]), super().draw(step).retain)

    def after_step(self, step: int) -> dict[str, float]:
        """Ask again where it is due; logs the share of answered questions at the last time."""
        epoch = -(-int(self.alive.sum()) // self.batch_size)
        if step - self.start >= (self.options.every or epoch):
            self._ask(step)
        return {"answered": float(self.alive.double().mean())}

    def state(self) -> dict[str, Tensor]:
        """Which items are unforgotten, and since which step."""
        return {"alive": self.alive, "start": torch.tensor(self.start)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""
        self.alive, self.start = tensors["alive"].bool(), int(tensors["start"])
