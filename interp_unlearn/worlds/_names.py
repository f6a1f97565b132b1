"""Invented names that cannot be told from real ones by their length.

A made-up name usually splits into more tokens than a famous one, and a probe for "known" then merely counts tokens.
So the invented names copy, word by word, how many tokens the real names have in the model's own tokenizer.

Two ways to make a word:

- letters: a model of letter triples of the real names; right for countries, people and places;
- words: words of other real names in a new order; right for titles, whose words are ordinary ones.

A word of *one* token cannot be spelled freely: what is one token is in the vocabulary, because it is frequent. Short
pieces of the vocabulary that are neither words nor beginnings of known names serve there (``Muk``, ``Tiv``).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from interp_unlearn._core import DataError, numpy_rng
from interp_unlearn.worlds._files import read_data

Style = Literal["letters", "words"]
_UGLY = re.compile(r"^[^aeiouy]{3}|[^aeiouy]{4}|[^aeiouy]{3}$|^[^aeiouy]+$|shit|fuck")
_ORDINARY = re.compile(r"(?!Fuck|Sex|Porn|Shit|Jew)[A-Z][a-z'’]+")
STYLE_OF_TYPE: dict[str, Style] = {"movie": "words", "song": "words"}


def token_count(tokenizer: Any, text: str) -> int:
    """Tokens of a name inside a sentence (with a space before it); letters when there is no tokenizer."""
    if tokenizer is None:
        return len(text)
    return len(tokenizer(" " + text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class NameMatch:
    """How well two groups of names are matched in length.

    Attributes:
        known: How many known names have each length, as (length, names) pairs.
        unknown: The same of the unknown names.
        distance: Total variation between both distributions, 0 (equal) to 1.
        auc: How well the length alone tells unknown from known: 0.5 is chance.
        unit: ``"tokens"`` or ``"letters"``.
    """

    known: tuple[tuple[int, int], ...]
    unknown: tuple[tuple[int, int], ...]
    distance: float
    auc: float
    unit: str


def name_match(known: Sequence[str], unknown: Sequence[str], tokenizer: Any = None) -> NameMatch:
    """Measure how well ``unknown`` names are matched to ``known`` ones.

    Raises:
        DataError: If a group is empty.
    """
    if not known or not unknown:
        raise DataError("matching names needs at least one known and one unknown name")
    a = np.array([token_count(tokenizer, n) for n in known])
    b = np.array([token_count(tokenizer, n) for n in unknown])
    count_a, count_b = Counter(a.tolist()), Counter(b.tolist())
    lengths = sorted(count_a | count_b)
    distance = sum(abs(count_a[c] / len(a) - count_b[c] / len(b)) for c in lengths) / 2
    auc = float((b[:, None] > a[None, :]).mean() + 0.5 * (b[:, None] == a[None, :]).mean())
    return NameMatch(
        tuple(sorted(count_a.items())),
        tuple(sorted(count_b.items())),
        float(distance),
        auc,
        "letters" if tokenizer is None else "tokens",
    )


def match_names(like: Sequence[str], pool: Sequence[str], tokenizer: Any = None) -> list[int]:
    """For each name of ``like`` the index of another pool name of the same length, or of the nearest that is left.

    Exact partners are given out first, so that a name without one cannot take another's.
    """
    lengths = [token_count(tokenizer, n) for n in pool]
    wanted = [token_count(tokenizer, n) for n in like]
    free: dict[int, list[int]] = defaultdict(list)
    for index in reversed(range(len(pool))):
        free[lengths[index]].append(index)
    out: list[int | None] = [free[w].pop() if free[w] else None for w in wanted]
    for place, found in enumerate(out):
        if found is None:
            near = min((length for length, left in free.items() if left), key=lambda c: (abs(c - wanted[place]), c))
            out[place] = free[near].pop()
    return [i for i in out if i is not None]


def invent_names(
    tokenizer: Any,
    like: Sequence[str],
    n: int,
    seed: int = 0,
    exclude: Iterable[str] = (),
    *,
    style: Style = "letters",
) -> list[str]:
    """Names that look like those of ``like`` and belong to nobody.

    The i-th invented name copies the shape of a real one: the number of words, small words (``of``, ``the``),
    capitals, and the number of tokens of each word. Shapes are taken in equal shares, so with n a multiple of
    ``len(like)`` the token counts of both groups are distributed alike. A shape that cannot be filled is replaced by
    the one whose length is nearest.

    Args:
        tokenizer: The model's; None matches the number of letters instead.
        like: Real names of one type.
        n: How many.
        seed: Of the choice.
        exclude: Further names that must not come out, nor be contained in what comes out.
        style: How words are made, see the module's text.

    Raises:
        DataError: If ``like`` is empty, or so many different names cannot be made.
    """
    if not like:
        raise DataError("inventing names needs some real names to look like")
    rng = numpy_rng(seed, "invented names", sorted(like), n, style)
    order = rng.permutation(len(like))
    shapes = [like[int(order[i % len(like)])] for i in range(n)]
    maker = _Maker(tokenizer, sorted(like), rng, style)
    taboo = {x.casefold() for x in (*like, *exclude)}
    out: list[str] = []
    for shape in shapes:
        name = _invent(maker, shape, taboo, like)
        taboo.add(name.casefold())
        out.append(name)
    return out


def _invent(maker: _Maker, shape: str, taboo: set[str], like: Sequence[str]) -> str:
    """A new name of the shape of ``shape``, or else of the real name whose length is nearest."""
    length = maker.count(shape)
    models = {maker.pattern(shape): shape}
    for other in sorted(like, key=lambda o: (abs(maker.count(o) - length), o)):
        models.setdefault(maker.pattern(other), other)
    for loose in (False, True):
        for model in models.values():
            for _ in range(12):
                name = maker.name(model, loose)
                if name is not None and not _is_real(name, taboo):
                    return name
    raise DataError(f"no more names like {shape!r} can be invented; ask for fewer, or for a wider set of real names")


def _is_real(name: str, taboo: set[str]) -> bool:
    """Whether a name is a real one, or contains one (of four letters or more) as whole words."""
    lowered = name.casefold()
    if lowered in taboo:
        return True
    padded = f" {lowered} "
    return any(len(t) >= 4 and (f" {t} " in padded or (len(t) >= 5 and t in lowered)) for t in taboo)


class _Maker:
    """Makes words of a wanted length."""

    def __init__(self, tokenizer: Any, like: Sequence[str], rng: np.random.Generator, style: Style) -> None:
        self._tokenizer = tokenizer
        self._rng = rng
        self._style = style
        words = [w for name in like for w in name.split()]
        self._counts: dict[str, int] = {}
        self._by_count: dict[int, list[str]] = defaultdict(list)
        for word in sorted({w for w in words if _ORDINARY.fullmatch(w)}):
            self._by_count[self.count(word)].append(word)
        letters = sorted({w.lower() for w in words if w.isalpha() and len(w) > 2 and w[0].isupper()})
        self._next = _triples(letters) if letters else {}
        self._hopeless: set[int] = set()
        self._spares: dict[int, list[str]] = defaultdict(list)
        self._real = {w.lower() for w in words}
        self._fragments = _fragments(tokenizer, self._real) if tokenizer is not None and style == "letters" else []

    def count(self, text: str) -> int:
        if text not in self._counts:
            self._counts[text] = token_count(self._tokenizer, text)
        return self._counts[text]

    def pattern(self, name: str) -> tuple[int | str, ...]:
        """The shape of a name: the length of each word, small words as they are."""
        return tuple(self.count(w) if w[0].isupper() else w for w in name.split())

    def name(self, model: str, loose: bool = False) -> str | None:
        """A name of the shape of ``model``, or None if a word cannot be made; ``loose`` spells less like real names."""
        words = [self._word(w, loose) for w in model.split()]
        if any(w is None for w in words):
            return None
        return " ".join(w for w in words if w is not None)

    def _word(self, word: str, loose: bool) -> str | None:
        if not word[0].isupper():
            return word
        wanted = self.count(word)
        if self._style == "words":
            options = self._by_count[wanted]
            return options[self._draw(len(options))] if options else None
        if wanted == 1 and self._tokenizer is not None:
            return self._fragments[self._draw(len(self._fragments))] if self._fragments else None
        spares = self._spares[wanted]
        if spares or (wanted in self._hopeless and not loose):
            return spares.pop() if spares else None
        for _ in range(600):
            made = self._spell(0.5 if loose else 0.0)
            if made is None or any(r.startswith(made.lower()) for r in self._real):
                continue
            if self.count(made) == wanted:
                return made
            self._spares[self.count(made)].append(made)
        self._hopeless.add(wanted)  # no real name is spelled like this so briefly, or at such length
        return None

    def _draw(self, n: int) -> int:
        return int(self._rng.random() * n)

    def _spell(self, looseness: float) -> str | None:
        """One word after the letter triples of the real ones, or None if it came out too short or too long."""
        text = "^^"
        while len(text) < 16 and text[-1] != "$":
            state = text[-1:] if self._rng.random() < looseness else text[-2:]
            letters, edges = self._next[state]
            text += letters[int(np.searchsorted(edges, self._rng.random() * edges[-1], side="right"))]
        word = text[2:].rstrip("$")
        if not 4 <= len(word) <= 12 or _UGLY.search(word):
            return None
        return word.capitalize()


def _triples(words: Sequence[str]) -> dict[str, tuple[list[str], np.ndarray]]:
    """For each pair of letters, and each letter, the possible next ones and the running sum of their weights."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for word in words:
        padded = f"^^{word}$"
        for i in range(2, len(padded)):
            counts[padded[i - 2 : i]][padded[i]] += 1
            counts[padded[i - 1]][padded[i]] += 1
    out = {}
    for state, following in sorted(counts.items()):
        letters = sorted(following)
        weights = (
            np.array([following[c] for c in letters], dtype=float) ** 0.7
        )  # flatter, so that fewer real words return
        out[state] = letters, weights.cumsum()
    return out


@cache
def _not_names() -> frozenset[str]:
    return frozenset(w.lower() for w in read_data("not_invented.json")["words"])


def _fragments(tokenizer: Any, real: set[str]) -> list[str]:
    """Pieces of the vocabulary that can stand for a name of one token, sorted.

    Kept are pieces of three or four letters with a capital and a leading space that hold a vowel, have no twin in
    small letters, do not begin a longer piece with a capital, do not begin a real name of the table, and are not on
    the list of words and names.
    """
    vocabulary: Iterable[str] = tokenizer.get_vocab()
    pieces = {p.replace("Ġ", " ").replace("▁", " ") for p in vocabulary}
    begins: set[str] = set()
    for piece in pieces:
        if re.fullmatch(r" [A-Z][a-z]+", piece):
            begins.update(piece[1:end] for end in range(3, len(piece)))
    ok: Callable[[str], bool] = lambda w: (  # noqa: E731
        w not in begins
        and f" {w.lower()}" not in pieces
        and bool(set(w.lower()) & set("aeiouy"))
        and bool(set(w.lower()) - set("aeiouy"))
        and w.lower() not in _not_names()
        and not any(r.startswith(w.lower()) for r in real)
    )
    found = {p[1:] for p in pieces if re.fullmatch(r" [A-Z][a-z]{2,3}", p)}
    return sorted(w for w in found if ok(w) and token_count(tokenizer, w) == 1)
