import numpy as np
import pytest
import torch

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import answer_batch, answer_logprobs
from interp_unlearn.probes import FisherConfig, diagonal_fisher, fisher_erasure, fisher_evidence
from interp_unlearn.probes._fisher import BINS


def test_it_is_the_mean_of_squared_gradients_one_question_at_a_time(model, task):
    prompts = task.forget_heldout.prompts[:3]
    fisher = diagonal_fisher(model, prompts, [1, 3])
    name = "model.layers.1.mlp.down_proj.weight"
    weight = dict(model.module.named_parameters())[name]
    squares = []
    for p in prompts:
        loss = answer_logprobs(model, answer_batch(model, [p.text], [p.answer])).sum()
        squares.append(torch.autograd.grad(loss, weight)[0].square())
    torch.testing.assert_close(fisher.diagonal[name], torch.stack(squares).mean(0), rtol=1e-4, atol=1e-12)
    assert fisher.traces.shape == (3, 2)
    total = sum(float(fisher.diagonal[n].sum()) for n in fisher.by_layer[1])
    assert fisher.traces[:, 0].mean() == pytest.approx(total, rel=1e-4)
    assert all(".layers.1." in n or ".layers.3." in n for n in fisher.diagonal)
    assert all(p.grad is None and p.requires_grad for p in model.module.parameters())
    counts = fisher.histogram()
    assert counts.shape == (2, len(BINS))
    np.testing.assert_allclose(counts.sum(1), 1)


def test_erasure_by_hand():
    original = {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([[1.0, 5.0]])}
    gold = {"a": torch.tensor([3.0, 2.0]), "b": torch.tensor([[9.0, 1.0]])}
    edited = {"a": torch.tensor([2.0, 9.0]), "b": torch.tensor([[1.0, 0.0]])}
    # the two weights that gained most: b[0] (8, nothing of it) and a[0] (2, half of it)
    score, count, where = fisher_erasure(original, edited, gold, 0.5)
    assert (score, count, where) == (pytest.approx(0.25), 2, {"a": 0.5, "b": 0.5})
    assert fisher_erasure(original, original, gold, 0.5)[0] == 0
    assert fisher_erasure(original, gold, gold, 0.5)[0] == 1
    assert np.isnan(fisher_erasure(gold, original, gold, 0.5)[0])


def test_evidence_with_and_without_gold(phases, hidden, gold):
    found = fisher_evidence(phases(hidden, gold), FisherConfig(max_prompts=3, share=0.01))
    trace, erasure = found.evidence
    assert (trace.name, erasure.name) == ("fisher.trace/forget", "fisher.erasure/0.01")
    assert trace.value > trace.control + 0.5  # the forgotten answers are far more sensitive, the neighbours' are not
    assert trace.interval is not None and trace.interval[0] <= trace.value <= trace.interval[1]
    assert 0 <= erasure.value <= 1 and erasure.control is not None
    table = found.tables["fisher.histogram"]
    assert [a.name for a in table.axes] == ["phase", "set", "layer", "power of ten"]
    assert table.axes[0].labels == ("before", "after", "gold")
    without = fisher_evidence(phases(hidden), FisherConfig(max_prompts=2)).evidence[1]
    assert np.isnan(without.value) and "no gold" in without.reason
    large = fisher_evidence(phases(hidden, gold), FisherConfig(max_prompts=1, max_weights=10)).evidence[1]
    assert "max_weights" in large.reason
    same = fisher_evidence(phases(), FisherConfig(max_prompts=2)).evidence[0]
    assert same.value == 0 and same.control == 0
    with pytest.raises(ConfigError, match="share"):
        FisherConfig(share=0.0)
