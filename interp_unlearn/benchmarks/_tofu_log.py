"""Saved TOFU evaluations: losses per question, from which utility and forget quality follow without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from interp_unlearn._core import FileFormatError, read_json

TOFU_LOG_SETS = ("forget", "retain", "real_authors", "world_facts")


@dataclass(frozen=True)
class TofuLosses:
    """Per-question results of one set; losses are mean negative log-likelihoods per token, in nats.

    Attributes:
        answer: Loss of the right answer.
        paraphrased: Loss of the paraphrased answer (of the right one, in sets without paraphrases).
        perturbed: Loss of each wrong answer.
        rouge_l_recall: ROUGE-L recall of the greedy answer.
    """

    answer: Float[np.ndarray, " n"]
    paraphrased: Float[np.ndarray, " n"]
    perturbed: Float[np.ndarray, "n k"]
    rouge_l_recall: Float[np.ndarray, " n"]


def read_tofu_log(path: str | Path) -> Mapping[str, TofuLosses]:
    """An evaluation log by set: forget, retain, real_authors, world_facts.

    Args:
        path: A JSON object with these sets; each has lists ``avg_gt_loss``, ``avg_paraphrased_loss``,
            ``average_perturb_loss`` (questions × wrong answers) and ``rougeL_recall``, or objects from row number to
            value, as published logs have them.

    Raises:
        FileFormatError: If a set or a list is missing, or lists differ in length.
    """
    data = read_json(path)
    try:
        return {name: _losses(data[name]) for name in TOFU_LOG_SETS}
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{path} is no TOFU evaluation log ({error!r}); it needs the sets {TOFU_LOG_SETS}"
        ) from error


def _losses(data: Mapping[str, object]) -> TofuLosses:
    def values(name: str) -> np.ndarray:
        found = data[name]
        if isinstance(found, dict):
            found = [found[row] for row in sorted(found, key=int)]
        return np.asarray(found, dtype=np.float64)

    names = ("avg_gt_loss", "avg_paraphrased_loss", "average_perturb_loss", "rougeL_recall")
    lists = [values(name) for name in names]
    if len({len(v) for v in lists}) != 1 or lists[2].ndim != 2:
        raise ValueError("lists of different lengths")
    return TofuLosses(*lists)
