import copy
import dataclasses

import numpy as np
import pytest
import torch

from interp_unlearn._core import DataError
from interp_unlearn.metrics import TokenScores, token_scores

PROMPTS = ["the capital of Avia is", "people of Borland call their capital", "Fenn has the capital"]
ANSWERS = ["Rosa", "New Tula", "Old Milo Sal"]


def by_hand(model, prompt, answer):
    """Log-softmax rows that predict the answer's tokens, and these tokens."""
    ids = model.tokenizer(f"{prompt} {answer}", return_tensors="pt")["input_ids"]
    n = len(answer.split())
    with torch.no_grad():
        logp = model.module(input_ids=ids).logits[0].double().log_softmax(-1)
    return logp[-n - 1 : -1], ids[0, -n:]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_every_number_is_that_of_the_whole_distribution(knowing, batch_size):
    found = token_scores(knowing, PROMPTS, ANSWERS, batch_size=batch_size)
    assert found.counts.tolist() == [1, 2, 3]
    for i, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        logp, ids = by_hand(knowing, prompt, answer)
        p = logp.exp()
        mean = (p * logp).sum(-1)
        expected = {
            "logprob": logp.gather(1, ids[:, None])[:, 0],
            "right": (logp.argmax(-1) == ids).double(),
            "entropy": -mean,
            "variance": (p * logp.square()).sum(-1) - mean.square(),
            "confidence": p.amax(-1),
        }
        for name, value in expected.items():
            assert np.allclose(found.per_answer(name)[i], value.numpy(), atol=1e-4), name
    assert np.allclose(found.loss()[1], -found.per_answer("logprob")[1].mean())
    assert np.allclose(found.first("entropy"), [v[0] for v in found.per_answer("entropy")])


def test_scores_are_kept_and_cut(knowing):
    found = token_scores(knowing, PROMPTS, ANSWERS)
    again = TokenScores.from_tensors(found.to_tensors("x."), "x.")
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.to_tensors().values(), found.to_tensors().values(), strict=True)
        if not a.isnan().any()
    )
    cut = found.rows([2, 0])
    assert cut.counts.tolist() == [3, 1]
    assert np.array_equal(cut.loss(), found.loss()[[2, 0]])
    assert np.array_equal(cut.per_answer("logprob")[0], found.per_answer("logprob")[2])


def test_the_end_token_counts_in_the_loss_and_nowhere_else(make_model, tokenizer):
    with pytest.raises(DataError, match="no end token"):
        token_scores(make_model(), PROMPTS, ANSWERS, end_token=True)
    ending = copy.deepcopy(tokenizer)
    ending.eos_token = "[PAD]"  # also the padding token: it must be told by its place
    model = make_model(tok=ending)
    plain, ended = (token_scores(model, PROMPTS, ANSWERS, end_token=end) for end in (False, True))
    assert torch.equal(plain.counts, ended.counts)
    assert torch.allclose(plain.logprob, ended.logprob, atol=1e-5)
    assert torch.equal(plain.right, ended.right)
    assert plain.end.isnan().all()
    for i, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        ids = ending(f"{prompt} {answer}", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            last = model.module(input_ids=ids).logits[0, -1].log_softmax(-1)[ending.eos_token_id]
        assert ended.end[i] == pytest.approx(float(last), abs=1e-4)
        total = plain.per_answer("logprob")[i].sum() + float(last)
        assert ended.loss()[i] == pytest.approx(-total / (len(answer.split()) + 1), abs=1e-4)
    assert np.allclose(ended.loss(end=False), plain.loss(), atol=1e-5)


def test_the_end_token_must_fit_into_the_context_too(make_model, tokenizer):
    ending = copy.deepcopy(tokenizer)
    ending.eos_token = "[PAD]"
    model = make_model(tok=ending)
    n = len(ending(f"{PROMPTS[0]} {ANSWERS[0]}")["input_ids"])
    model.shape = dataclasses.replace(model.lm, n_ctx=n)
    assert len(token_scores(model, PROMPTS[:1], ANSWERS[:1])) == 1
    with pytest.raises(DataError, match=f"need {n + 1} tokens.*holds {n}.*end_token=False"):
        token_scores(model, PROMPTS[:1], ANSWERS[:1], end_token=True)


def test_a_collapsed_model_shows(make_model):
    model = make_model()
    with torch.no_grad():
        model.submodule(model.lm.unembed).weight.fill_(float("nan"))
    found = token_scores(model, PROMPTS, ANSWERS)
    assert not found.right.any()
    assert np.isnan(found.loss()).all()
    assert found.entropy.isnan().all()


def test_no_answer_is_refused(model):
    with pytest.raises(DataError, match="at least one prompt"):
        token_scores(model, [], [])
