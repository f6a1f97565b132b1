"""Batches, masks, and the last token of a name."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_unlearn._core import DataError
from interp_unlearn.hooked import Batch, batch_from_ids, capture, name_span, span_last_token, tokenize, wrap

from .conftest import make_module, make_tokenizer, random_batch

TEXTS = [
    "The capital of Japan is",
    "Japan",
    "Japan borders no country. The currency of Japan",
    "people of São Tomé and Príncipe say",
    "日本 is Japan, 日本",
    "Who was Marie Curie?",
    "Ελλάδα, Greece",
]
NAMES = ["Japan", "Japan", "Japan", "São Tomé and Príncipe", "日本", "Marie Curie", "Ελλάδα"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("trim", [False, True])
def test_last_token_of_a_name(side, bos, trim):
    tokenizer = make_tokenizer(bos=bos, trim=trim)
    batch = tokenize(tokenizer, TEXTS, padding_side=side)
    spans = [name_span(text, name) for text, name in zip(TEXTS, NAMES, strict=True)]
    columns = span_last_token(batch, spans).tolist()
    for row, (text, (start, end)) in enumerate(zip(TEXTS, spans, strict=True)):
        kept = batch.tokens[row][: columns[row] + 1][batch.attended[row][: columns[row] + 1]].tolist()
        shorter = tokenizer.decode(kept[:-1], skip_special_tokens=True)
        through = tokenizer.decode(kept, skip_special_tokens=True)
        assert through.startswith(text[:end]), (text, through)  # the name is complete with this token …
        assert not shorter.startswith(text[:end])  # … and not before
        assert start < end


def test_a_name_that_merges_with_what_follows():
    tokenizer = make_tokenizer()
    text = "Japanese Japan"
    batch = tokenize(tokenizer, text)
    first = span_last_token(batch, [(0, 5)])
    assert batch.offsets is not None
    start, end = batch.offsets[0][int(first)]
    assert start < 5 <= end or end == 5


def test_span_errors():
    batch = tokenize(make_tokenizer(), ["Paris is", "Tokyo"])
    with pytest.raises(DataError, match="no token covers"):
        span_last_token(batch, [(0, 3), (90, 95)])
    with pytest.raises(DataError, match="2 prompts"):
        span_last_token(batch, [(0, 3)])
    with pytest.raises(DataError, match="made from texts"):
        span_last_token(batch_from_ids([[1, 2]]), [(0, 1)])
    with pytest.raises(DataError, match="does not occur"):
        name_span("Paris", "Rome")
    assert name_span("Rome to Rome", "Rome") == (8, 12)


def test_tokenize_needs_a_fast_tokenizer_and_text():
    with pytest.raises(DataError, match="no text"):
        tokenize(make_tokenizer(), [])

    class Slow:
        is_fast = False

    with pytest.raises(DataError, match="fast tokenizer"):
        tokenize(Slow(), ["a"])


def test_bos_is_special_and_pads_are_neither():
    batch = tokenize(make_tokenizer(bos=True), ["Paris", "The capital of France is"], padding_side="left")
    assert batch.special.sum(1).tolist() == [1, 1]
    assert torch.equal(batch.mask("all"), batch.attended)
    assert torch.equal(batch.mask("inner"), batch.mask("content"))  # the first attended token is BOS already
    plain = tokenize(make_tokenizer(), ["Paris", "The capital"], padding_side="left")
    assert (plain.mask("content").sum(1) - plain.mask("inner").sum(1)).tolist() == [1, 1]


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    side=st.sampled_from(["left", "right"]),
    data=st.data(),
)
def test_index_of_counts_attended_tokens(lengths, side, data):
    batch = random_batch(lengths, side)
    assert batch.lengths().tolist() == lengths
    nth = [data.draw(st.integers(-n, n - 1)) for n in lengths]
    columns = batch.index_of(torch.tensor(nth)[:, None])
    positions = batch.position_ids()
    for row, (n, length) in enumerate(zip(nth, lengths, strict=True)):
        assert batch.attended[row, columns[row, 0]]
        assert int(positions[row, columns[row, 0]]) == n % length
    assert batch.padded_inside_or_left() == (side == "left" and len(set(lengths)) > 1)


def test_rows_drop_columns_of_padding_only():
    batch = tokenize(make_tokenizer(), TEXTS, padding_side="left")
    part = batch.rows(slice(0, 2))
    assert len(part) == 2 and part.tokens.shape[1] == int(batch.lengths()[:2].max())
    assert part.texts == tuple(TEXTS[:2]) and part.offsets is not None
    assert len(part.offsets[0]) == part.tokens.shape[1]
    spans = [name_span(t, n) for t, n in zip(TEXTS[:2], NAMES[:2], strict=True)]
    columns = span_last_token(part, spans)
    whole = span_last_token(batch.rows(slice(0, 7)), [name_span(t, n) for t, n in zip(TEXTS, NAMES, strict=True)])
    for row in range(2):
        assert part.tokens[row, columns[row]] == batch.tokens[row, whole[row]]
    assert part.rows(slice(1, 2)).tokens.shape == (1, int(part.lengths()[1]))
    full = random_batch([3, 3]).rows(slice(0, 1))
    assert full.offsets is None and full.texts is None


def test_batch_from_ids_refuses_empty_rows():
    for ids in ([], [[1], []]):
        with pytest.raises(DataError, match="at least one"):
            batch_from_ids(ids)


def test_moving_a_batch_keeps_everything():
    batch = tokenize(make_tokenizer(), TEXTS[:2])
    moved = batch.to("cpu")
    assert isinstance(moved, Batch) and moved.offsets == batch.offsets and moved.texts == batch.texts


def test_an_empty_prompt_is_refused_where_the_tokenizer_puts_a_token_before_it():
    model = wrap(make_module("llama"), make_tokenizer(bos=True))
    for empty in ("", ["the capital", ""]):
        with pytest.raises(DataError, match="a prompt has no tokens"):
            capture(model, empty, ["hook_embed"])
