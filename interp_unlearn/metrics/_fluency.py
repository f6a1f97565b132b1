"""Is it still language? n-gram entropy (Zhang et al. 2018, as in RWKU, arXiv 2406.10890), repetition, a classifier."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from interp_unlearn._core import DataError

ORDERS = (2, 3)
WEIGHTS = (2 / 3, 4 / 3)
WORDS = re.compile(r"\w+|[^\w\s]")

Classifier = Callable[[Sequence[str]], np.ndarray]
"""Texts to class probabilities, (text, class)."""


def text_words(text: str) -> list[str]:
    """Runs of letters and digits, and single other signs; case is kept."""
    return WORDS.findall(text)


def ngram_entropy(text: str) -> float:
    """Mean of 2/3 H_2 and 4/3 H_3, in bits.

    H_n is the entropy of the frequencies of n successive words, 0 where there are fewer. It grows with length: a text
    of w words has at most about log2(w). Words are those of `text_words` (published code uses a tokenizer of English,
    which differs at contractions).
    """
    words = text_words(text)
    return float(np.mean([weight * _entropy(words, n) for n, weight in zip(ORDERS, WEIGHTS, strict=True)]))


def repetition(text: str) -> float:
    """1 - distinct / all triples of words, 0 to 1; NaN for fewer than 3 words."""
    counts = _ngrams(text_words(text), 3)
    return 1 - len(counts) / counts.total() if counts else float("nan")


def class_probability(texts: Sequence[str], classifier: Classifier, *, index: int = 0) -> Float[np.ndarray, " n"]:
    """Probability that a text classifier gives to one class, for instance "clean" against "gibberish".

    Args:
        texts: Generations.
        classifier: Texts to class probabilities, (text, class); see `text_classifier`.
        index: Of the class; published evaluations take class 0.

    Raises:
        DataError: If the classifier has no such class.
    """
    found = np.asarray(classifier(list(texts)), dtype=np.float64)
    if found.ndim != 2 or len(found) != len(texts) or not 0 <= index < found.shape[1]:
        raise DataError(
            f"the classifier gave an array of shape {found.shape} for {len(texts)} texts; class {index} of each text "
            "is needed"
        )
    return found[:, index]


def text_classifier(folder: str | Path, *, batch_size: int = 16) -> Classifier:
    """A sequence classifier in a local folder, as a function from texts to class probabilities.

    Args:
        folder: Hugging Face model and tokenizer, safetensors weights; the network is not used.
        batch_size: Texts per forward pass.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if not Path(folder).is_dir():
        raise DataError(f"{folder} is not a folder; give the local folder of a text classifier")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    model.eval()

    @torch.no_grad()
    def classify(texts: Sequence[str]) -> np.ndarray:
        found = []
        for start in range(0, len(texts), batch_size):
            batch = tokenizer(
                list(texts[start : start + batch_size]), padding=True, truncation=True, return_tensors="pt"
            )
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            found.append(logits.float().softmax(-1).numpy())
        return np.concatenate(found)

    return classify


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _entropy(words: Sequence[str], n: int) -> float:
    counts = np.array(list(_ngrams(words, n).values()), dtype=np.float64)
    share = counts / max(counts.sum(), 1.0)
    return float((share * -np.log2(share)).sum())
