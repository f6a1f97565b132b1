"""Porter's stemmer (1980) with the later corrections that ROUGE implementations use; needs no other package.

The corrections are those of the stemmer behind the common ``rouge_score`` package: a few irregular words, *flies* →
*fli* but *dies* → *die*, *-y* → *-i* only after a consonant, *-bli*, *-fulli* and *-logi* endings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import pairwise

IRREGULAR = {
    "skies": "sky",
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "innings": "inning",
    "outings": "outing",
    "cannings": "canning",
}
UNCHANGED = {"sky", "news", "inning", "outing", "canning", "howe", "proceed", "exceed", "succeed"}

DOUBLE_ENDINGS = {
    "ational": "ate",
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "izer": "ize",
    "bli": "ble",
    "alli": "al",
    "entli": "ent",
    "eli": "e",
    "ousli": "ous",
    "ization": "ize",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "iveness": "ive",
    "fulness": "ful",
    "ousness": "ous",
    "aliti": "al",
    "iviti": "ive",
    "biliti": "ble",
    "fulli": "ful",
}
DERIVED_ENDINGS = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
LAST_ENDINGS = (
    "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize".split()  # noqa: SIM905
)


def _consonant(word: str, i: int) -> bool:
    if word[i] in "aeiou":
        return False
    return word[i] != "y" or i == 0 or not _consonant(word, i - 1)


def _measure(stem: str) -> int:
    """How often a vowel is followed by a consonant."""
    kinds = [_consonant(stem, i) for i in range(len(stem))]
    return sum(b and not a for a, b in pairwise(kinds))


def _has_vowel(stem: str) -> bool:
    return any(not _consonant(stem, i) for i in range(len(stem)))


def _closed_syllable(word: str) -> bool:
    """Ends consonant–vowel–consonant (not w, x, y), or is vowel–consonant."""
    n = len(word)
    if n == 2:
        return not _consonant(word, 0) and _consonant(word, 1)
    if n < 3:
        return False
    return _consonant(word, n - 3) and not _consonant(word, n - 2) and _consonant(word, n - 1) and word[-1] not in "wxy"


def _ending(word: str, endings: Iterable[str]) -> str | None:
    """The longest of ``endings`` that ``word`` has."""
    return max((e for e in endings if word.endswith(e)), key=len, default=None)


def _plural(word: str) -> str:
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    ending = _ending(word, ("ed", "ing"))
    if ending is None or not _has_vowel(word[: -len(ending)]):
        return word
    stem = word[: -len(ending)]
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if len(stem) >= 2 and stem[-1] == stem[-2] and _consonant(stem, len(stem) - 1):
        return stem if stem[-1] in "lsz" else stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _closed_syllable(stem) else stem


def _last_y(word: str) -> str:
    ok = word.endswith("y") and len(word) > 2 and _consonant(word, len(word) - 2)
    return word[:-1] + "i" if ok else word


def _double(word: str) -> str:
    if word.endswith("alli") and _measure(word[:-4]) > 0:
        return _double(word[:-2])
    if word.endswith("logi"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    return _swap(word, DOUBLE_ENDINGS, lambda stem, _: _measure(stem) > 0)


def _swap(word: str, endings: dict[str, str], holds: Callable[[str, str], bool]) -> str:
    ending = _ending(word, endings)
    if ending is None or not holds(word[: -len(ending)], ending):
        return word
    return word[: -len(ending)] + endings[ending]


def _last(word: str) -> str:
    def holds(stem: str, ending: str) -> bool:
        return _measure(stem) > 1 and (ending != "ion" or stem[-1] in "st")

    return _swap(word, dict.fromkeys(LAST_ENDINGS, ""), holds)


def _tidy(word: str) -> str:
    if word.endswith("e"):
        stem = word[:-1]
        if _measure(stem) > 1 or (_measure(stem) == 1 and not _closed_syllable(stem)):
            word = stem
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


@lru_cache(maxsize=65536)
def porter_stem(word: str) -> str:
    """The stem of a lower-case word.

    Example:
        >>> porter_stem("countries"), porter_stem("running"), porter_stem("generalization")
        ('countri', 'run', 'gener')
    """
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) <= 2 or word in UNCHANGED:
        return word
    word = _last_y(_past(_plural(word)))
    word = _swap(_double(word), DERIVED_ENDINGS, lambda stem, _: _measure(stem) > 0)
    return _tidy(_last(word))
