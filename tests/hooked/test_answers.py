"""Scores of answers against a naive loop over single texts."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers

from interp_unlearn._core import DataError
from interp_unlearn.hooked import answer_batch, answer_ids, answer_logprobs, score_answers, wrap

from .conftest import make_module, make_tokenizer, shared_model

PROMPTS = [
    "The capital of Japan is",
    "Who was Marie Curie? She was a",
    "The currency of Japan is the",
    "日本 is",
    "Príncipe lies near",
    "Is",
]
ANSWERS = ["Tokyo", "physicist born in Warsaw", "yen", "Japan", "Gabon; São Tomé", "Ελλάδα"]
MODEL = {bos: wrap(make_module("qwen2"), make_tokenizer(bos=bos)) for bos in (False, True)}


def naive(model, prompt, answer):
    """Log-probability of the answer's tokens, how many, and whether greedy decoding gives them; one text at a time."""
    tokenizer = model.tokenizer
    head = tokenizer(prompt)["input_ids"]
    ids = tokenizer(f"{prompt} {answer}")["input_ids"]
    assert ids[: len(head)] == head
    total, exact = 0.0, True
    for at in range(len(head), len(ids)):
        logits = model(torch.tensor([ids[:at]]))[0, -1]
        total += float(logits.log_softmax(-1)[ids[at]])
        exact = exact and int(logits.argmax()) == ids[at]
    return total, len(ids) - len(head), exact


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 32])
@torch.no_grad()
def test_against_a_naive_loop(bos, batch_size):
    model = MODEL[bos]
    scores = score_answers(model, PROMPTS, ANSWERS, batch_size=batch_size)
    for i, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        logprob, n, exact = naive(model, prompt, answer)
        assert float(scores.logprob[i]) == pytest.approx(logprob, abs=1e-4)
        assert int(scores.n_tokens[i]) == n and bool(scores.exact[i]) == exact
        assert float(scores.probability[i]) == pytest.approx(torch.tensor(logprob / n).exp().item(), abs=1e-5)


@settings(max_examples=10)
@given(
    st.lists(st.tuples(st.sampled_from(PROMPTS), st.sampled_from(ANSWERS)), min_size=1, max_size=6), st.integers(1, 6)
)
def test_order_and_batches_do_not_matter(pairs, batch_size):
    model = MODEL[False]
    prompts, answers = [p for p, _ in pairs], [a for _, a in pairs]
    scores = score_answers(model, prompts, answers, batch_size=batch_size)
    for i in range(len(pairs)):
        alone = score_answers(model, [prompts[i]], [answers[i]])
        assert float(scores.logprob[i]) == pytest.approx(float(alone.logprob[0]), abs=1e-4)
        assert bool(scores.exact[i]) == bool(alone.exact[0])


def test_exact_means_greedy_decoding_produces_it():
    model = MODEL[False]
    prompts = ["The capital of Japan is", "Marie"]
    texts = model.generate(prompts, max_new_tokens=3)
    for prompt, text in zip(prompts, texts, strict=True):
        ids = model.tokenizer(prompt)["input_ids"]
        for _ in range(3):
            ids.append(int(model([ids])[0, -1].argmax()))
        encoded = answer_batch(model, [prompt], [text.strip() or "x"])
        if encoded.batch.tokens[0].tolist() == ids:
            assert bool(score_answers(model, [prompt], [text.strip()]).exact[0])


def test_logprobs_carry_gradients():
    model = wrap(make_module("llama"), make_tokenizer())
    encoded = answer_batch(model, PROMPTS[:2], ANSWERS[:2])
    values = answer_logprobs(model, encoded)
    assert values.shape == encoded.batch.tokens.shape and not values[~encoded.answer].any()
    scores = score_answers(model, PROMPTS[:2], ANSWERS[:2])
    torch.testing.assert_close(values.sum(1).detach(), scores.logprob, rtol=1e-4, atol=1e-4)
    values.sum().backward()
    assert model.module.lm_head.weight.grad is not None
    assert len(encoded) == 2


def test_scores_ignore_dropout():
    model = wrap(make_module("gpt2", resid_pdrop=0.5, embd_pdrop=0.5), make_tokenizer())
    still = score_answers(model, PROMPTS, ANSWERS)
    model.module.train()
    again = score_answers(model, PROMPTS, ANSWERS)
    assert torch.equal(still.logprob, again.logprob) and model.module.training


def test_bad_answers():
    model = MODEL[False]
    with pytest.raises(DataError, match="needs a tokenizer"):
        score_answers(shared_model("llama"), ["a"], ["b"])
    with pytest.raises(DataError, match="2 prompts but 1 answers"):
        score_answers(model, ["a", "b"], ["c"])
    with pytest.raises(DataError, match="2 prompts but 1 answers"):
        answer_batch(model, ["a", "b"], ["c"])
    with pytest.raises(DataError, match="is empty"):
        score_answers(model, ["a"], ["  "])
    with pytest.raises(DataError, match="no token that counts"):
        score_answers(model, ["Tokyo", ""], ["is", "is"])  # one token, with nothing before it to predict it from
    with pytest.raises(DataError, match="context of 64"):
        score_answers(model, ["Paris"], ["Paris " * 80])


def test_logits_at_chosen_positions_are_those_of_a_whole_pass(family):
    model = shared_model(family)
    batch = model.batch([[3, 4, 5, 6], [7, 8]])
    where = torch.tensor([[False, True, False, True], [True, False, False, False]])
    expected = model.forward(batch)[where]
    torch.testing.assert_close(model.forward_at(batch, where), expected, rtol=1e-5, atol=1e-6)
    head = model.submodule(model.lm.unembed)
    seen = []
    with head.register_forward_hook(lambda _module, _args, output: seen.append(output.shape[:2])):
        assert torch.equal(model.forward_at(batch, where), expected)
    assert seen == [batch.tokens.shape] and not head._forward_pre_hooks


def test_ids_of_an_answer_after_a_prompt_where_the_tokenizer_begins_texts_with_a_space():
    """Llama 2 writes a space of its own before every text, so that an answer behind a space begins with two."""
    vocabulary = {
        "<unk>": 0,
        "▁is": 1,
        "▁Tokyo": 2,
        "▁▁Tokyo": 3,
        "▁": 4,
        **{c: 5 + i for i, c in enumerate("isTokyo")},
    }
    merges = [
        ("i", "s"),
        ("▁", "is"),
        ("T", "o"),
        ("To", "k"),
        ("Tok", "y"),
        ("Toky", "o"),
        ("▁", "Tokyo"),
        ("▁", "▁Tokyo"),
    ]
    vocabulary |= {piece: 20 + i for i, piece in enumerate(("is", "To", "Tok", "Toky", "Tokyo"))}
    inner = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    assert tokenizer(" Tokyo")["input_ids"] == [3]
    assert answer_ids(tokenizer, ["Tokyo"]) == [[2]]
    assert answer_ids(make_tokenizer(bos=True), ANSWERS) == [
        make_tokenizer()(f" {answer}", add_special_tokens=False)["input_ids"] for answer in ANSWERS
    ]
