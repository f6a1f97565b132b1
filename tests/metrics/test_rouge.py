"""ROUGE by hand, and the stemmer against the one that ROUGE implementations use."""

from pathlib import Path

import pytest

from interp_unlearn._core import ConfigError
from interp_unlearn.metrics import rouge_l, rouge_n, rouge_words
from interp_unlearn.metrics._stem import porter_stem

STEMS = {
    "caresses": "caress",
    "ponies": "poni",
    "flies": "fli",
    "dies": "die",
    "cats": "cat",
    "agreed": "agre",
    "feed": "feed",
    "plastered": "plaster",
    "motoring": "motor",
    "conflated": "conflat",
    "hopping": "hop",
    "falling": "fall",
    "filing": "file",
    "happy": "happi",
    "enjoy": "enjoy",
    "relational": "relat",
    "conditional": "condit",
    "vietnamization": "vietnam",
    "triplicate": "triplic",
    "adjustment": "adjust",
    "adoption": "adopt",
    "probate": "probat",
    "controlling": "control",
    "skies": "sky",
    "news": "news",
    "geology": "geolog",
    "rationally": "ration",
    "tried": "tri",
    "died": "die",
    "is": "is",
}


@pytest.mark.parametrize(("word", "stem"), STEMS.items())
def test_known_stems(word, stem):
    assert porter_stem(word) == stem


def test_stems_equal_nltk_on_words_of_our_docs():
    porter = pytest.importorskip("nltk.stem.porter").PorterStemmer()
    text = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
    words = sorted(set(rouge_words(text, stem=False)))[::2]
    endings = ("s", "ed", "ing", "ly", "ness", "ization", "ational", "fully", "logy", "y", "ies", "ment", "able")
    words += [w + e for w in words[::20] for e in endings]
    assert len(words) > 300
    assert {w: porter_stem(w) for w in words} == {w: porter.stem(w) for w in words}


def test_words_are_lower_case_ascii_runs_and_short_ones_keep_their_form():
    assert rouge_words("The author's CATS, running!") == ["the", "author", "s", "cat", "run"]
    assert rouge_words("his cats", stem=False) == ["his", "cats"]
    assert rouge_words("his") == ["his"]  # three letters: not stemmed
    assert rouge_words(" … ") == []


def test_rouge_counts_each_word_as_often_as_it_occurs():
    score = rouge_n("the the cat", "the cat sat")
    assert (score.precision, score.recall) == (2 / 3, 2 / 3)
    assert score.f1 == pytest.approx(2 / 3)
    pairs = rouge_n("the cat sat down", "a cat sat", 2)
    assert (pairs.precision, pairs.recall) == (1 / 3, 1 / 2)
    assert rouge_n("", "a b").f1 == rouge_n("a", "").f1 == 0.0
    assert rouge_n("countries", "country").f1 == 1.0
    assert rouge_n("countries", "country", stem=False).f1 == 0.0


def test_rouge_l_is_the_longest_common_subsequence():
    score = rouge_l("police killed the gunman", "police kill the gunman", stem=False)
    assert (score.precision, score.recall) == (3 / 4, 3 / 4)
    assert rouge_l("the gunman police killed", "police killed the gunman").recall == 2 / 4


def test_order_below_one_is_refused():
    with pytest.raises(ConfigError, match="rouge n is 0"):
        rouge_n("a", "b", 0)
