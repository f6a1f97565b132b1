"""KLUE's regularised score: neurons that know *this* fact, not neurons that push the answer whatever is asked.

For a forget sample (x, y) and questions x'_n about other facts, whose answer is not y::

    S_i(x, y) = (1/N) sum_n A_i(x'_n, y)                 superficial: y is supported on mismatched questions too
    R_i(x, y) = A_i(x, y) - alpha S_i(x, y)
    score_i   = mean over samples of R_i

Reconstructed from second-hand descriptions: the paper's text was not available, so alpha, N, the clamp, the
normalisation and the hard exclusion are options, and none of their defaults is the authors'.

Source: Yang et al. 2025, FaithUn (arXiv 2502.19207).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp_unlearn._core import ConfigError, DataError, Labelled, check_choice, numpy_rng
from interp_unlearn.hooked import HookedModel
from interp_unlearn.neurons._attribute import attribute
from interp_unlearn.neurons._config import AttributionConfig
from interp_unlearn.neurons._result import Attribution, Over, over
from interp_unlearn.neurons._select import chosen, share
from interp_unlearn.worlds._types import Prompt


@dataclass(frozen=True)
class Regularised:
    """How superficial knowledge is taken out of the scores.

    Attributes:
        alpha: Weight of the superficial score; 0 gives the plain attribution, and no mismatched question is needed.
        contexts: Mismatched questions per sample (fewer where the pool has fewer).
        clamp: Use ``max(S, 0)``: a neuron that suppresses the answer on other questions is not rewarded for it, which
            with a large alpha would raise its rank.
        normalise: Divide each sample's A, and each mismatched A, by its sum of absolute values first: the probability
            of y after x' is far below that after x, so raw values need a large alpha.
        exclude: Share of neurons with the largest superficial score that cannot be chosen at all; 0 for none.
        over_samples: Mean over samples, or the largest.
    """

    alpha: float = 10.0
    contexts: int = 5
    clamp: bool = True
    normalise: bool = False
    exclude: float = 0.0
    over_samples: Over = "mean"

    def __post_init__(self) -> None:
        check_choice("over_samples", self.over_samples, Over)
        if self.alpha < 0:
            raise ConfigError(f"alpha is {self.alpha}; use 0 (plain attribution) or a positive weight")
        if self.contexts < 1:
            raise ConfigError(f"contexts is {self.contexts}; use at least 1, or alpha=0 for plain attribution")
        if not 0 <= self.exclude < 1:
            raise ConfigError(f"exclude is {self.exclude}; use a share from 0 up to, not including, 1")


@dataclass(frozen=True)
class KlueScores:
    """Scores of all neurons, each with axes (layer, neuron).

    Attributes:
        score: The regularised score; NaN never, ``-inf`` where `Regularised.exclude` rules a neuron out.
        plain: Mean attribution on the forget samples.
        superficial: Mean attribution on mismatched questions (zero with ``alpha = 0`` and no exclusion).
        gap: Completeness gap of the attributions behind it.
        contexts: The mismatched questions of each sample.
    """

    score: Labelled
    plain: Labelled
    superficial: Labelled
    gap: float
    contexts: tuple[tuple[str, ...], ...]


def draw_contexts(
    forget: Sequence[Prompt], pool: Sequence[Prompt], count: int, seed: int
) -> tuple[tuple[str, ...], ...]:
    """Questions of ``pool`` for each forget sample that ask another fact and have another answer, at random.

    Raises:
        DataError: If the pool has none for a sample.
    """
    drawn = []
    for i, sample in enumerate(forget):
        answers = {a.casefold() for a in (sample.answer, *sample.also)}
        texts = [
            p.text
            for p in pool
            if (p.entity, p.relation) != (sample.entity, sample.relation)
            and not answers & {a.casefold() for a in (p.answer, *p.also)}
        ]
        texts = list(dict.fromkeys(texts))
        if not texts:
            raise DataError(
                f"no mismatched question for {sample.text!r}: the retain questions are empty or all have its answer; "
                "give retain data, or set alpha to 0"
            )
        order = numpy_rng(seed, "mismatched contexts", i).permutation(len(texts))[:count]
        drawn.append(tuple(texts[k] for k in order))
    return tuple(drawn)


def klue_scores(
    model: HookedModel,
    forget: Sequence[Prompt],
    pool: Sequence[Prompt],
    *,
    config: AttributionConfig | None = None,
    regularised: Regularised | None = None,
    seed: int = 0,
) -> KlueScores:
    """KLUE's score of every neuron.

    Costs one forward and one backward per forget sample and per mismatched question, and the completeness check of
    `AttributionConfig.completeness_prompts` (by default four more prompts, one forward per layer each).

    Args:
        model: A language model with a tokenizer.
        forget: Forget samples; give the same wording that is trained on.
        pool: Where mismatched questions are drawn from: retain questions, never evaluation ones.
        config: How attributions are made.
        regularised: How superficial knowledge is taken out.
        seed: Decides the mismatched questions.

    Raises:
        DataError: If there is no forget sample, or no mismatched question for one.
    """
    if not forget:
        raise DataError("there is no forget sample to attribute")
    options = regularised or Regularised()
    needs = options.alpha > 0 or options.exclude > 0
    contexts = draw_contexts(forget, pool, options.contexts, seed) if needs else ((),) * len(forget)
    prompts = [p.text for p in forget] + [text for texts in contexts for text in texts]
    answers = [p.answer for p in forget]
    answers += [p.answer for p, texts in zip(forget, contexts, strict=True) for _ in texts]
    found: Attribution = attribute(model, prompts, answers, config)
    values = found.scores.values
    if options.normalise:
        size = np.abs(values).sum((1, 2), keepdims=True)
        values = np.divide(values, size, out=np.zeros_like(values), where=size > 0)
    plain, mismatched = values[: len(forget)], values[len(forget) :]
    superficial = np.zeros_like(plain)
    ends = np.cumsum([len(texts) for texts in contexts])
    for i, (end, texts) in enumerate(zip(ends, contexts, strict=True)):
        if texts:
            superficial[i] = mismatched[end - len(texts) : end].mean(0)
    taken = np.maximum(superficial, 0) if options.clamp else superficial
    each = plain - options.alpha * taken
    score = each.mean(0) if options.over_samples == "mean" else each.max(0)
    mean = superficial.mean(0)
    if options.exclude:
        score = np.where(chosen(mean, share(options.exclude, mean.size)), -np.inf, score)
    settings = {f: getattr(options, f) for f in Regularised.__dataclass_fields__}
    more = {"regularised": settings, "completeness_gap": found.gap, "samples": len(forget)}

    def labelled(name: str, array: np.ndarray) -> Labelled:
        made = over(found.scores, name, array, **more)
        config = {k: v for k, v in made.config.items() if k != "logprob"}
        return Labelled(name, array, made.axes, n=len(forget), mask_policy=made.mask_policy, config=config, seed=seed)

    return KlueScores(
        labelled("neurons.klue", score),
        labelled("neurons.plain", plain.mean(0)),
        labelled("neurons.superficial", mean),
        found.gap,
        contexts,
    )
