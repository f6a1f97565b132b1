"""ROUGE: how many words (or pairs of words) two texts share. Lin, 2004; tokens and stemming as in ``rouge_score``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from interp_unlearn._core import ConfigError
from interp_unlearn.metrics._stem import porter_stem

SEPARATORS = re.compile(r"[^a-z0-9]+")
STEM_FROM = 4  # letters; shorter words are left as they are


@dataclass(frozen=True)
class Rouge:
    """Overlap of a prediction with a reference, each 0 to 1.

    Attributes:
        precision: Overlap over the prediction's count.
        recall: Overlap over the reference's count.
        f1: Harmonic mean of the two.
    """

    precision: float
    recall: float
    f1: float


def rouge_words(text: str, *, stem: bool = True) -> list[str]:
    """Lower-case runs of ASCII letters and digits, stemmed if longer than three characters."""
    words = SEPARATORS.sub(" ", text.lower()).split()
    return [porter_stem(w) if stem and len(w) >= STEM_FROM else w for w in words]


def rouge_n(prediction: str, reference: str, n: int = 1, *, stem: bool = True) -> Rouge:
    """ROUGE-N: multiset overlap of n-grams of words.

    Args:
        prediction: What the model wrote.
        reference: What is right.
        n: Words per unit.
        stem: Whether word forms of one stem are equal.
    """
    if n < 1:
        raise ConfigError(f"rouge n is {n}; use 1 for words, 2 for pairs of words")
    return rouge_n_words(rouge_words(prediction, stem=stem), rouge_words(reference, stem=stem), n)


def rouge_n_words(prediction: Sequence[str], reference: Sequence[str], n: int = 1) -> Rouge:
    """ROUGE-N of texts that are words already (see `rouge_words`)."""
    found, wanted = (
        Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (list(prediction), list(reference))
    )
    return _from_counts((found & wanted).total(), found.total(), wanted.total())


def rouge_l(prediction: str, reference: str, *, stem: bool = True) -> Rouge:
    """ROUGE-L: longest common subsequence of words."""
    a, b = rouge_words(prediction, stem=stem), rouge_words(reference, stem=stem)
    row = [0] * (len(b) + 1)
    for word in a:
        corner = 0
        for j, other in enumerate(b, start=1):
            corner, row[j] = row[j], corner + 1 if word == other else max(row[j], row[j - 1])
    return _from_counts(row[-1], len(a), len(b))


def _from_counts(overlap: int, predicted: int, wanted: int) -> Rouge:
    precision = overlap / predicted if predicted else 0.0
    recall = overlap / wanted if wanted else 0.0
    total = precision + recall
    return Rouge(precision, recall, 2 * precision * recall / total if total else 0.0)
