"""Invented names: matched in length, nobody's, and the same for the same seed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_unlearn._core import DataError
from interp_unlearn.worlds import invent_names, name_match
from interp_unlearn.worlds._names import match_names, token_count


def test_token_counts_are_distributed_alike(countries, people, pieces):
    for world in (countries, people):
        real = [e.name for e in world.entities]
        invented = invent_names(pieces, real, len(real))
        match = name_match(real, invented, pieces)
        assert match.unit == "tokens"
        assert match.distance < 0.02
        assert match.auc == pytest.approx(0.5, abs=0.02)


def test_without_tokenizer_letters_are_matched(countries):
    match = name_match([e.name for e in countries.entities], [e.name for e in countries.unknown])
    assert match.unit == "letters"
    assert match.auc == pytest.approx(0.5, abs=0.05)


def test_matched_by_hand():
    match = name_match(["ab", "abc", "abcd"], ["xy", "xyz", "wxyz"])
    assert (match.distance, match.auc) == (0, 0.5)
    match = name_match(["ab", "ab"], ["abc", "ab"])
    assert (match.distance, match.auc) == (0.5, 0.75)
    with pytest.raises(DataError, match="at least one"):
        name_match([], ["a"])


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_names_are_new_distinct_and_repeatable(countries, pieces, seed):
    real = [e.name for e in countries.entities]
    names = invent_names(pieces, real, 40, seed, exclude=["Atlantis"])
    assert names == invent_names(pieces, list(reversed(real)), 40, seed, exclude=["Atlantis"]) or set(real)
    assert len({n.casefold() for n in names}) == 40
    words = {w for r in real for w in r.casefold().split() if len(w) >= 4} - {"and"}
    for name in names:
        assert name.casefold() not in {r.casefold() for r in real}
        assert not any(r.casefold() in f" {name.casefold()} ".split() for r in real)
        assert not any(w.startswith(name.casefold()) for w in words)
        assert all(w[0].isupper() or w in ("the", "and", "of") for w in name.split())


def test_the_shape_of_names_is_kept(people):
    names = invent_names(None, ["Vincent van Gogh", "Ludwig van Beethoven", "Leonardo da Vinci"], 6)
    assert all(len(n.split()) == 3 and n.split()[1] in ("van", "da") for n in names)


def test_titles_are_made_of_ordinary_words():
    titles = ["Red River", "Blue Moon", "Old Song", "Green Fields", "Cold Winter", "Long Road"]
    words = {w for t in titles for w in t.split()}
    made = invent_names(None, titles, 6, style="words")
    assert not set(made) & set(titles)
    assert all(set(m.split()) <= words for m in made)


def test_excluded_names_do_not_come_out(countries):
    real = [e.name for e in countries.entities]
    first = invent_names(None, real, 30)
    again = invent_names(None, real, 30, exclude=first)
    assert not {n.casefold() for n in first} & {n.casefold() for n in again}


def test_impossible_requests_are_said():
    with pytest.raises(DataError, match="some real names"):
        invent_names(None, [], 3)
    with pytest.raises(DataError, match="no more names"):
        invent_names(None, ["Red Moon", "Old Song"], 50, style="words")


def test_match_names_prefers_the_same_length():
    assert match_names(["aaa", "bbbb", "cc"], ["wwwww", "xxxx", "yyy", "zz"]) == [2, 1, 3]
    assert match_names(["aaaaaa", "bbbb"], ["xxxx", "yyyyy"]) == [1, 0]  # the exact partner stays with its own
    assert token_count(None, "abc") == 3


@pytest.mark.model
@pytest.mark.parametrize("name", ["countries", "people"])
def test_names_are_matched_in_the_tokens_of_the_default_model(name):
    from interp_unlearn.worlds import load_world
    from interp_unlearn.zoo._entries import model_folder
    from interp_unlearn.zoo._load import load_tokenizer

    tokenizer = load_tokenizer(model_folder("smollm2-135m"))
    world = load_world(name, tokenizer=tokenizer)
    match = name_match([e.name for e in world.entities], [e.name for e in world.unknown], tokenizer)
    assert match.distance < 0.05
    assert match.auc == pytest.approx(0.5, abs=0.02)
