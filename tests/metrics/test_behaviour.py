import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_unlearn._core import DataError, FileFormatError, Labelled, read_json, write_json
from interp_unlearn.hooked import AnswerScores, score_answers
from interp_unlearn.metrics import (
    PromptScores,
    behaviour,
    behaviour_by_prompt,
    behaviour_change,
    behaviour_intervals,
)
from interp_unlearn.metrics._behaviour import _metrics, wrong_options
from interp_unlearn.metrics._prompts import PROMPT_METRICS
from interp_unlearn.worlds import Prompt, QASet

SETS = ("forget_train", "forget_heldout", "retain_train", "neighbours")
ASKED = Prompt("the capital of Avia is", "Rosa", "avia", "capital", "train0", (15, 19), options=("Peka", "Tula"))


def scores(logprob, n_tokens, exact):
    return AnswerScores(torch.tensor(logprob), torch.tensor(n_tokens), torch.tensor(exact))


def row(asked, scored):
    return dict(zip(PROMPT_METRICS, _metrics(asked, scored), strict=True))


def test_behaviour_is_labelled_by_set_and_metric(model, task):
    table = behaviour(model, task)
    assert [a.name for a in table.axes] == ["set", "metric"]
    assert table.axes[0].labels == SETS
    assert table.axes[1].labels == ("probability", "exact", "choice")
    assert table.config["n"] == {"forget_train": 2, "forget_heldout": 2, "retain_train": 4, "neighbours": 6}
    assert table.n == 2
    assert table.config["chance"]["neighbours"] == pytest.approx(1 / 6)
    assert ((table.values >= 0) & (table.values <= 1)).all()


def test_a_model_that_was_taught_everything_scores_one(knowing, task):
    table = behaviour(knowing, task)
    assert (table.at(metric="exact") == 1).all()
    assert (table.at(metric="choice") == 1).all()
    assert (table.at(metric="probability") > 0.8).all()


def test_probability_is_the_geometric_mean_over_the_answers_tokens(model, task):
    kept = behaviour_by_prompt(model, task)
    prompts = [p for s in task.qa_sets() for p in s.prompts]
    direct = score_answers(model, [p.text for p in prompts], [p.answer for p in prompts])
    assert np.allclose(kept.metric("probability"), direct.probability.numpy(), atol=1e-5)
    assert set(kept.metric("n_tokens")) == {1.0, 2.0}
    assert np.allclose(kept.metric("probability"), np.exp(kept.metric("logprob") / kept.metric("n_tokens")))


def test_probability_is_not_the_first_tokens(model):
    one = score_answers(model, ["the capital of Borland is"] * 2, ["New Tula", "New"])
    assert float(one.logprob[0] / one.n_tokens[0]) != pytest.approx(float(one.logprob[1]), abs=1e-3)


def test_choice_normalises_right_and_wrong_answers_alike():
    # -3 nats over three tokens beats -2 nats over one, though its sum is lower
    got = row(ASKED, scores([-3.0, -2.0, -8.0], [3.0, 1.0, 2.0], [False, False, False]))
    assert got["choice"] == 1
    assert got["choice_margin"] == pytest.approx(1.0)
    assert got["probability"] == pytest.approx(np.exp(-1))
    assert got["chance"] == pytest.approx(1 / 3)


def test_a_tie_is_not_a_right_choice():
    assert row(ASKED, scores([-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [False] * 3))["choice"] == 0


def test_any_other_right_answer_counts_for_exact_and_choice_but_not_for_probability():
    asked = replace(ASKED, also=("Old Rosa",))
    got = row(asked, scores([-5.0, -1.0, -2.0, -3.0], [1.0] * 4, [False, True, False, False]))
    assert got["exact"] == 1
    assert got["choice"] == 1
    assert got["probability"] == pytest.approx(np.exp(-5))
    assert got["chance"] == pytest.approx(2 / 4)


def test_exact_of_a_wrong_option_does_not_count():
    assert row(ASKED, scores([-5.0, -0.1, -2.0], [1.0] * 3, [False, True, False]))["exact"] == 0


def test_options_that_are_right_are_left_out():
    asked = replace(ASKED, also=("Old Rosa",), options=("rosa", "Peka", "OLD ROSA", "Peka", "Tula"))
    assert wrong_options(asked) == ("Peka", "Tula")


def test_prompts_without_options_are_left_out_of_choice(knowing, task):
    bare = replace(task.neighbours.prompts[0], options=())
    mixed = replace(task, neighbours=QASet("neighbours", (bare, *task.neighbours.prompts[1:])))
    kept = behaviour_by_prompt(knowing, mixed, sets=("neighbours",))
    assert np.isnan(kept.metric("choice")[0])
    assert kept.summary().at(set="neighbours", metric="choice") == 1
    none = replace(task, neighbours=QASet("neighbours", (bare,)))
    alone = behaviour_by_prompt(knowing, none, sets=("neighbours",)).summary()
    assert np.isnan(alone.at(set="neighbours", metric="choice"))
    assert alone.at(set="neighbours", metric="exact") == 1


def test_a_collapsed_model_shows_as_nan_and_knows_nothing(make_model, task):
    broken = make_model()
    with torch.no_grad():
        broken.module.lm_head.weight.fill_(float("nan"))
    table = behaviour(broken, task)
    assert np.isnan(table.at(metric="probability")).all()
    assert (table.at(metric="exact") == 0).all()
    assert (table.at(metric="choice") == 0).all()


def test_dropout_is_off_and_the_mode_is_put_back(make_model, task):
    model = make_model("gpt2", resid_pdrop=0.5)
    calm = behaviour(model, task).values
    model.module.train()
    model.module.transformer.h[1].eval()
    assert np.array_equal(behaviour(model, task).values, calm)
    assert model.module.training
    assert not model.module.transformer.h[1].training


def test_without_any_question_the_reasons_are_given(model, task):
    empty = {s.name: QASet(s.name, (), "nothing there") for s in task.qa_sets()}
    with pytest.raises(DataError, match="multi_hop: nothing there"):
        behaviour(model, replace(task, **empty))


def test_prompt_scores_survive_a_file(model, task, tmp_path):
    kept = behaviour_by_prompt(model, task)
    write_json(tmp_path / "scores.json", kept.table.to_json())
    again = PromptScores(Labelled.from_json(read_json(tmp_path / "scores.json")))
    assert np.array_equal(again.table.values, kept.table.values, equal_nan=True)
    assert again.column("entity") == kept.column("entity")
    assert np.array_equal(again.summary().values, kept.summary().values)
    assert json.loads(json.dumps(kept.summary().to_json()))["config"]["scoring"] == "shared prefix"


def test_prompt_scores_refuse_other_tables_and_names(model, task):
    kept = behaviour_by_prompt(model, task)
    with pytest.raises(FileFormatError, match="behaviour_by_prompt"):
        PromptScores(kept.summary())
    with pytest.raises(DataError, match="nearest: probability"):
        kept.metric("probabilty")
    with pytest.raises(DataError, match="nearest: neighbours"):
        kept.rows("neighbors")
    with pytest.raises(DataError, match="nearest: entity"):
        kept.column("entities")


def test_intervals_hold_the_mean_and_name_their_unit(model, task):
    kept = behaviour_by_prompt(model, task)
    table = behaviour_intervals(kept)
    assert [a.name for a in table.axes] == ["set", "metric", "bound"]
    assert table.config["unit"] == {
        "forget_train": "template",
        "forget_heldout": "template",
        "retain_train": "entity",
        "neighbours": "entity",
    }
    assert table.config["clusters"]["neighbours"] == 3
    low, high = table.at(bound="low"), table.at(bound="high")
    mean = kept.summary().values
    assert ((low <= mean + 1e-12) & (mean <= high + 1e-12)).all()
    assert np.array_equal(behaviour_intervals(kept).values, table.values)


def test_one_prompt_has_no_interval(model, task):
    one = replace(task, forget_train=QASet("forget_train", task.forget_train.prompts[:1]))
    table = behaviour_intervals(behaviour_by_prompt(model, one, sets=("forget_train",)))
    assert table.config["unit"] == {"forget_train": "none"}
    assert np.isnan(table.values).all()


def test_change_is_paired(model, knowing, task):
    before, after = behaviour_by_prompt(knowing, task), behaviour_by_prompt(model, task)
    table = behaviour_change(before, after)
    change = table.at(metric="probability", quantity="change")
    assert np.allclose(change, after.summary().at(metric="probability") - before.summary().at(metric="probability"))
    assert (table.at(metric="probability", quantity="high") < 0).all()
    same = behaviour_change(before, before)
    assert (same.at(quantity="low") == 0).all()
    assert (same.at(quantity="high") == 0).all()
    with pytest.raises(DataError, match="different prompts"):
        behaviour_change(before, behaviour_by_prompt(model, task, sets=("neighbours",)))
