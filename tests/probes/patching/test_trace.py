import json

import numpy as np
import pytest
import torch

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import Edit, capture, edit, score_answers, wrap
from interp_unlearn.probes import TraceConfig, causal_trace, embedding_std, forced, trace_evidence
from interp_unlearn.probes._trace import _noise, indirect_share

from ...tiny_models import tiny_module


def test_noise_reaches_the_name_alone_and_repeats(model, task):
    rows = forced(model, task.forget_heldout.prompts)
    first, again = (_noise(rows, 48, 0.5, 7, 0)(rows, slice(0, 4))[0] for _ in range(2))
    other = _noise(rows, 48, 0.5, 7, 1)(rows, slice(0, 4))[0]
    zero = torch.zeros(*rows.encoded.batch.tokens.shape, 48)
    one = first.change(zero)
    assert torch.equal(one.abs().sum(-1) > 0, rows.at("name"))
    assert torch.equal(one, again.change(zero)) and not torch.equal(one, other.change(zero))
    assert float(one[rows.at("name")].std()) == pytest.approx(0.5, rel=0.15)
    part = rows.rows(slice(2, 4))
    some = _noise(rows, 48, 0.5, 7, 0)(part, slice(2, 4))[0].change(zero[2:4, : part.name.shape[1]])
    torch.testing.assert_close(some[part.at("name")], one[2:4][rows.at("name")[2:4]])


def test_noise_is_measured_in_what_the_embedding_gives(model):
    """Gemma multiplies its embeddings by the root of their width, and noise is added to the product."""
    weight = model.submodule(model.lm.embed).weight
    assert embedding_std(model) == pytest.approx(float(weight.detach().std()), rel=1e-5)
    gemma = wrap(tiny_module("gemma3", vocab=50, width=16))
    ids = torch.arange(50)[None]
    given = capture(gemma, ids, ["hook_embed"])["hook_embed"]
    assert embedding_std(gemma) == pytest.approx(float(given.std()), rel=1e-5)
    assert embedding_std(gemma) == pytest.approx(
        4 * float(gemma.submodule(gemma.lm.embed).weight.detach().std()), rel=1e-3
    )


def test_the_noised_answer_is_that_of_a_plain_edit(model, task):
    prompt = task.forget_heldout.prompts[1]
    config = TraceConfig(draws=1, seed=3)
    traced = causal_trace(model, [prompt], config)
    rows = forced(model, [prompt])
    change = _noise(rows, 48, 3.0 * embedding_std(model), 3, 0)(rows, slice(0, 1))[0].change
    with edit(model, Edit("hook_embed", change)):
        plain = score_answers(model, [prompt.text], [prompt.answer])
    tokens = float(plain.n_tokens[0])
    assert traced.config["noised"][0] == pytest.approx(float(plain.logprob[0]) / tokens, abs=1e-4)
    assert traced.config["clean"][0] > traced.config["noised"][0]


def test_restoring_everything_that_can_matter_restores_the_answer(model, task):
    traced = causal_trace(model, task.forget_heldout.prompts, TraceConfig(places=("all", "name", "answer"), draws=2))
    curves = indirect_share(traced).curves[0]
    np.testing.assert_allclose(curves[0], 1, atol=1e-4)  # all tokens clean at any block
    assert curves[2, -1] == pytest.approx(1, abs=1e-4)  # the tokens that predict, at the last block
    assert curves[1, -1] == pytest.approx(0, abs=1e-4)  # the name at the last block: nothing reads it any more
    assert curves[1, 0] > curves[1, 2]


def test_evidence(phases, hidden):
    config = TraceConfig(draws=1, max_prompts=2, stride=2)
    one, two = (trace_evidence(phases(hidden), config) for _ in range(2))
    names = ["trace.total/name", *(f"trace.indirect/{p}" for p in ("name", "name_end", "prompt_end"))]
    assert [e.name for e in one.evidence] == names
    total = one.evidence[0]
    assert np.isfinite(total.value) and total.control > 0 and total.interval is not None
    assert set(one.tables) == {"trace.before", "trace.after"}
    assert json.dumps([e.to_json() for e in one.evidence]) == json.dumps([e.to_json() for e in two.evidence])


def test_no_effect_and_a_broken_model_have_reasons(phases, noise):
    none = trace_evidence(phases(), TraceConfig(draws=1, max_prompts=1, stride=4, min_total=1e6)).evidence[1]
    assert np.isnan(none.value) and "no effect to trace" in none.reason
    broken = trace_evidence(
        phases({n: v * float("nan") for n, v in noise(1.0).items()}), TraceConfig(draws=1, stride=4)
    )
    assert all("broken" in e.reason for e in broken.evidence)
    with pytest.raises(ConfigError, match="noise"):
        TraceConfig(noise=0.0)
