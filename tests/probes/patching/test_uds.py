import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.hooked import capture, edit, patch, score_answers
from interp_unlearn.probes import (
    LivePhases,
    UDSConfig,
    depth_states,
    forced,
    forced_spans,
    pick_prompts,
    removal,
    swapped,
    uds_evidence,
    unlearning_depth,
)
from interp_unlearn.probes._uds import layer_erasure
from interp_unlearn.worlds import QASet


def test_both_stages_by_hand():
    d1 = np.array([[0.0, 1.0, 3.0], [0.01, 0.04, 0.05]])
    d2 = np.array([[9.0, 0.5, 6.0], [1.0, 1.0, 1.0]])
    score, ler = layer_erasure(d1, d2, 0.05)
    assert score[0] == pytest.approx((1 * 0.5 + 3 * 1) / 4)
    assert np.isnan(score[1])  # 0.05 is not above the threshold
    np.testing.assert_allclose(ler[0], [np.nan, 0.5, 1.0])
    assert layer_erasure(d1, -d2, 0.05)[0][0] == 0


def test_patching_a_block_is_the_plain_patch(model, task):
    rows = forced(model, task.forget_heldout.prompts)
    given = {s: v + 1 for s, v in depth_states(model, rows, [1]).items() if s != "logprob"}
    out = removal(model, rows, given, [1])
    site = "blocks.1.hook_resid_post"
    for row, text in enumerate(rows.texts):
        prompt = next(p for p in task.forget_heldout.prompts if p.full == text)
        mine = rows.rows(slice(row, row + 1))
        columns = mine.at("answer").nonzero()[:, 1][None]
        clean = capture(model, mine.encoded.batch, [site], positions=columns)[site]
        with edit(model, patch(site, clean + 1, columns)):
            plain = score_answers(model, [prompt.text], [prompt.answer])
        which = rows.encoded.answer.nonzero()[:, 0] == row
        assert float(out["patched"][0][which].sum()) == pytest.approx(float(plain.logprob), abs=1e-4)


def test_the_original_scores_0_and_the_reference_1(model, task, noise):
    rows = forced(model, task.forget_heldout.prompts)
    layers = [0, 1, 2, 3]
    own = depth_states(model, rows, layers)
    with swapped(model, noise(3.0)):
        other = depth_states(model, rows, layers)
    stage1, same = removal(model, rows, other, layers), removal(model, rows, own, layers)
    assert unlearning_depth(rows, stage1, same, layers).value == pytest.approx(0, abs=1e-5)
    depth = unlearning_depth(rows, stage1, stage1, layers)
    assert depth.value == 1
    assert np.isfinite(depth.scores).all() and (depth.scores == 1).all()


def test_rows_do_not_depend_on_the_batch(model, task):
    rows = forced(model, task.forget_heldout.prompts + task.neighbours.prompts[:3])
    for size in (1, 3):
        few, all_ = (depth_states(model, rows, [0, 2], batch_size=b) for b in (size, 16))
        for key in all_:
            torch.testing.assert_close(few[key], all_[key], rtol=1e-4, atol=1e-4)
        one, many = (removal(model, rows, all_, [0, 2], batch_size=b)["patched"] for b in (size, 16))
        torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-4)


def test_an_unedited_model_scores_0_and_gold_itself_1(model, phases, gold):
    by_name = {e.name: e for e in uds_evidence(phases()).evidence}
    assert np.isnan(by_name["uds.score/gold"].value) and "no gold" in by_name["uds.score/gold"].reason
    assert by_name["uds.score/unknown"].value == pytest.approx(0, abs=1e-5)
    assert by_name["uds.score/unknown"].control == pytest.approx(0, abs=1e-5)
    delta = {n: p.detach() for n, p in gold.module.named_parameters()}
    found = uds_evidence(phases(delta, gold))
    score = found.evidence[0]
    assert score.name == "uds.score/gold" and score.value == pytest.approx(1, abs=1e-5)
    assert score.details["scores"].values.shape == (4,)
    assert set(found.tables) == {"uds.gold", "uds.unknown", "uds.neighbours"}
    ler = found.tables["uds.gold"].at(measure="ler")
    np.testing.assert_allclose(ler[np.isfinite(ler)], 1, atol=1e-5)


def test_shallow_edits_score_lower_than_early_ones(phases, hidden, moved):
    late, early = (uds_evidence(phases(d)).evidence[1] for d in (hidden, moved))
    assert late.value < 0.6 < early.value
    assert late.interval is not None and late.interval[0] <= late.value <= late.interval[1]
    assert late.details["layers"].at(layer="1", measure="ler") == pytest.approx(0, abs=1e-5)


def test_what_is_known_of_the_original_is_measured_once(phases, noise, gold):
    live = phases(noise(0.3), gold)
    one = uds_evidence(live)
    assert {phase for phase, _ in live._kept} == {"before", "gold"}
    kept = set(live._kept)
    two = uds_evidence(live)
    assert set(live._kept) == kept
    assert [e.to_json() for e in one.evidence] == [e.to_json() for e in two.evidence]


def test_a_fact_that_no_block_holds_and_a_broken_model_have_reasons(model, phases, noise, task):
    high = uds_evidence(phases(noise(0.1)), UDSConfig(threshold=1e6)).evidence[1]
    assert np.isnan(high.value) and "no block holds the fact" in high.reason
    broken = uds_evidence(phases({n: v * float("nan") for n, v in noise(0.1).items()})).evidence[1]
    assert np.isnan(broken.value) and "broken" in broken.reason
    nothing = LivePhases(model, replace(task, forget_heldout=QASet("p", ()), forget_train=QASet("b", ())))
    assert "asks nothing" in uds_evidence(nothing).evidence[0].reason


def test_facts_take_turns(task):
    prompts = task.forget_heldout.prompts
    assert [(p.entity, p.template) for p in pick_prompts(prompts, 2)] == [
        ("new avia", "heldout0"),
        ("borland", "heldout1"),
    ]
    assert set(pick_prompts(prompts, 9)) == set(prompts)


def test_spans_in_characters_and_in_tokens(model):
    text = "in New Elmar the main city is Nova Tula people call"
    start = text.index("Nova")
    rows = forced_spans(model, [text], [(start, start + 9)])
    assert rows.encoded.answer[0].nonzero()[:, 0].tolist() == [8, 9]
    again = forced_spans(model, [text], [(8, 10)], unit="token")
    assert torch.equal(rows.encoded.answer, again.encoded.answer)
    assert rows.at("prompt_end").nonzero().tolist() == [[0, 7]]
    assert depth_states(model, rows, [0, 1])["blocks.0.hook_resid_post"].shape == (2, 48)
    with pytest.raises(DataError, match="first token"):
        forced_spans(model, [text], [(0, 3)], unit="token")
    with pytest.raises(DataError, match="covers no token"):
        forced_spans(model, [text], [(99, 120)])
    with pytest.raises(DataError, match="no token of the place"):
        rows.at("name")


def test_rows_of_tofu(model, need_data):
    rows = json.loads(need_data("tofu", "forget10_entity_spans.json").read_text())[:20]
    heads = [f"Question: {r['question']}\nAnswer: {r['prefix']}" for r in rows]
    texts = [f"Question: {r['question']}\nAnswer: {r['answer']}" for r in rows]
    starts = [t.index(r["entity"], len(h)) for t, h, r in zip(texts, heads, rows, strict=True)]
    spans = [(start, start + len(r["entity"])) for start, r in zip(starts, rows, strict=True)]
    marked = forced_spans(model, texts, spans)
    assert sorted(marked.facts, key=int) == [str(i) for i in range(len(rows))]
    for i, fact in enumerate(marked.facts):
        offsets = [o for o, on in zip(marked.encoded.batch.offsets[i], marked.encoded.answer[i], strict=True) if on]
        assert rows[int(fact)]["entity"] in marked.texts[i][offsets[0][0] : offsets[-1][1]]
    states = depth_states(model, marked, [0, 3])
    assert len(states["blocks.3.hook_resid_post"]) == len(states["logprob"]) == int(marked.encoded.answer.sum())


def test_options_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="threshold"):
        UDSConfig(threshold=0.0)
    with pytest.raises(ConfigError, match="stride"):
        UDSConfig(stride=-1)
    assert UDSConfig().layers(30) == list(range(1, 30, 2))
    assert UDSConfig(stride=1).layers(30) == list(range(30)) and UDSConfig().layers(4) == [0, 1, 2, 3]


def test_the_catalogue_and_the_docstring_agree():
    from interp_unlearn import probes

    for kind in probes.PATCHING:
        assert f"``{kind}/" in (probes.__doc__ or ""), kind
