"""A model on TOFU: per-question metrics, so that tests of distributions have lists, and the two published summaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from interp_unlearn._core import Axis, ConfigError, DataError, Labelled
from interp_unlearn.benchmarks import TofuLosses, TofuSplit
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics._greedy import continue_greedily
from interp_unlearn.metrics._membership import ATTACKS, K, membership_scores
from interp_unlearn.metrics._memorisation import Convention, exact_memorisation, extraction_strength
from interp_unlearn.metrics._rouge import rouge_l, rouge_n
from interp_unlearn.metrics._tokens import TokenScores, token_scores
from interp_unlearn.metrics._truth import (
    ForgetQuality,
    forget_quality,
    log_truth_ratio,
    model_utility,
    normalised_probability,
    truth_ratio,
)

TOFU_METRICS = (
    "loss",
    "probability",
    "paraphrased_probability",
    "normalised_probability",
    "log_truth_ratio",
    "exact_memorisation",
    "extraction_strength",
    "rouge_l_recall",
    "rouge_1_recall",
    *(f"mia_{attack}" for attack in ATTACKS),
)
NORMALISED = ("real_authors", "world_facts")  # sets whose utility uses the probability among options


@dataclass(frozen=True)
class TofuConfig:
    """How TOFU is asked.

    Attributes:
        template: The prompt; ends where the answer begins, ``{question}`` is replaced. Use the model's own format.
        question: Which wording is asked.
        end_token: Count the tokenizer's end token in losses, as published code does.
        convention: Of extraction strength.
        max_new_tokens: Of the greedy answer that ROUGE reads; 0 leaves ROUGE out.
        k: Share of tokens of Min-k.
        batch_size: Prompts per forward pass.
    """

    template: str = "Question: {question}\nAnswer:"
    question: Literal["original", "paraphrased"] = "original"
    end_token: bool = True
    convention: Convention = "published"
    max_new_tokens: int = 200
    k: float = K
    batch_size: int = 16

    def __post_init__(self) -> None:
        if "{question}" not in self.template or self.template != self.template.rstrip():
            raise ConfigError(
                f"the template {self.template!r} must contain {{question}} and end without a space: the answer is "
                "joined with one"
            )
        if self.max_new_tokens < 0 or self.batch_size < 1:
            raise ConfigError("max_new_tokens must be 0 or more, and batch_size at least 1")


def tofu_scores(model: HookedModel, split: TofuSplit, config: TofuConfig | None = None) -> Labelled:
    """Metrics of every question of a split.

    Args:
        model: A language model with a tokenizer.
        split: From `load_tofu`.
        config: How; the default follows published evaluations (but for the chat format, which depends on the model).

    Returns:
        Axes ("row", "metric") with `TOFU_METRICS`, see `metric_facts`. NaN where a split has no paraphrase or no wrong
        answers, or ROUGE was left out. ``mia_*`` are scores of one example, higher = less likely a member.

    Raises:
        DataError: If the split is empty, paraphrased questions are asked for and missing, or a question with its answer
            is longer than the context.
    """
    config = config or TofuConfig()
    rows = split.rows
    if not rows:
        raise DataError(f"the split {split.name} has no rows")
    wording = [r.question if config.question == "original" else r.paraphrased_question for r in rows]
    if not all(wording):
        raise DataError(f"{split.name} has no paraphrased questions; ask the original ones, or load a perturbed split")
    prompts = [config.template.replace("{question}", q) for q in wording]
    answers = [r.answer for r in rows]

    def scored(asked: list[str], given: list[str]) -> TokenScores:
        return token_scores(model, asked, given, end_token=config.end_token, batch_size=config.batch_size)

    own = scored(prompts, answers)
    right = own.loss()
    paraphrased = np.full(len(rows), np.nan)
    if any(r.paraphrased_answer for r in rows):
        paraphrased = scored(prompts, [r.right for r in rows]).loss()
    log_ratio, share = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    k = min(len(r.perturbed) for r in rows)
    if k:
        pairs = [(p, wrong) for p, r in zip(prompts, rows, strict=True) for wrong in r.perturbed[:k]]
        wrong_losses = scored([p for p, _ in pairs], [w for _, w in pairs]).loss().reshape(len(rows), k)
        log_ratio = log_truth_ratio(np.where(np.isnan(paraphrased), right, paraphrased), wrong_losses)
        share = normalised_probability(right, wrong_losses)
    rouge = np.full((len(rows), 2), np.nan)
    if config.max_new_tokens:
        written = continue_greedily(model, prompts, config.max_new_tokens, batch_size=config.batch_size)
        texts = [(written[p], a) for p, a in zip(prompts, answers, strict=True)]
        rouge = np.array([(rouge_l(text, a).recall, rouge_n(text, a, 1).recall) for text, a in texts])
    columns = {
        "loss": right,
        "probability": np.exp(-right),
        "paraphrased_probability": np.exp(-paraphrased),
        "normalised_probability": share,
        "log_truth_ratio": log_ratio,
        "exact_memorisation": exact_memorisation(own),
        "extraction_strength": extraction_strength(own, convention=config.convention),
        "rouge_l_recall": rouge[:, 0],
        "rouge_1_recall": rouge[:, 1],
        **{f"mia_{a}": membership_scores(own, a, texts=answers, k=config.k) for a in ATTACKS},
    }
    return Labelled(
        f"TOFU {split.name}",
        np.stack([columns[name] for name in TOFU_METRICS], axis=1),
        (Axis("row", tuple(str(i) for i in range(len(rows)))), Axis("metric", TOFU_METRICS)),
        n=1,
        mask_policy="answer tokens, end token in losses" if config.end_token else "answer tokens",
        config={"split": split.name, **{f: getattr(config, f) for f in config.__dataclass_fields__}},
        note="one question per row; the truth ratio's right answer is the paraphrased one where there is one",
    )


def tofu_log_scores(losses: TofuLosses, split: str) -> Labelled:
    """The same table from a saved evaluation log; what the log does not have is NaN."""
    columns = {
        "loss": losses.answer,
        "probability": np.exp(-losses.answer),
        "paraphrased_probability": np.exp(-losses.paraphrased),
        "normalised_probability": normalised_probability(losses.answer, losses.perturbed),
        "log_truth_ratio": log_truth_ratio(losses.paraphrased, losses.perturbed),
        "rouge_l_recall": losses.rouge_l_recall,
    }
    empty = np.full(len(losses.answer), np.nan)
    return Labelled(
        f"TOFU {split}",
        np.stack([columns.get(name, empty) for name in TOFU_METRICS], axis=1),
        (Axis("row", tuple(str(i) for i in range(len(empty)))), Axis("metric", TOFU_METRICS)),
        n=1,
        mask_policy="answer tokens, end token in losses",
        config={"split": split},
        note="from a saved evaluation log",
    )


def tofu_utility(sets: Mapping[str, Labelled]) -> tuple[float, Labelled]:
    """Model utility, and the nine numbers it is made of.

    Args:
        sets: Tables of `tofu_scores` (or `tofu_log_scores`) for "retain", "real_authors" and "world_facts".

    Returns:
        The harmonic mean, and axes ("set", "metric") of its parts.

    Raises:
        DataError: If a set is missing.
    """
    numbers = {
        name: {
            "probability": table.at(metric="normalised_probability" if name in NORMALISED else "probability").mean(),
            "rouge_l_recall": table.at(metric="rouge_l_recall").mean(),
            "truth_ratio": truth_ratio(table.at(metric="log_truth_ratio"), "retain").mean(),
        }
        for name, table in sets.items()
    }
    utility = model_utility(numbers)
    metrics = ("probability", "rouge_l_recall", "truth_ratio")
    parts = Labelled(
        "model utility, parts",
        np.array([[numbers[s][m] for m in metrics] for s in numbers]),
        (Axis("set", tuple(numbers)), Axis("metric", metrics)),
        n=min(len(t.axes[0].labels) for t in sets.values()),
        mask_policy=next(iter(sets.values())).mask_policy,
        config={"utility": utility},
        note="probability is normalised over options on real_authors and world_facts; truth_ratio is max(0, 1 - TR)",
    )
    return utility, parts


def tofu_forget_quality(edited: Labelled, gold: Labelled) -> ForgetQuality:
    """Kolmogorov–Smirnov test of the truth ratios of the forget set, from two tables of `tofu_scores`."""
    return forget_quality(edited.at(metric="log_truth_ratio"), gold.at(metric="log_truth_ratio"))
