"""`known` and `rank_answers` against the plain definition, on a model that knows nothing."""

import json

import pytest

from interp_unlearn._core import DataError, FileFormatError, NothingToForgetError
from interp_unlearn.hooked import score_answers
from interp_unlearn.worlds import Knowledge, known, make_task, rank_answers, require_known
from interp_unlearn.worlds._known import FactKnowledge
from interp_unlearn.worlds._questions import Questions


def test_ranking_equals_scoring_every_option(random_model, small):
    prompts = Questions(small, n_options=6).ask(small.of_type("person")[:8], ["home", "colour"], "train")
    ranked = rank_answers(random_model, prompts, batch_size=7)
    for i, prompt in enumerate(prompts):
        answers = [prompt.answer, *prompt.options]
        scores = score_answers(random_model, [prompt.text] * len(answers), answers)
        assert ranked.first[i] == bool((scores.logprob[0] > scores.logprob[1:]).all())
        assert ranked.exact[i] == bool(scores.exact[0])
        assert ranked.logprob[i] == pytest.approx(float(scores.logprob[0]), abs=1e-4)
    assert 0 < sum(ranked.first) < len(prompts)
    assert ranked.scored < len(prompts) * 6


def test_a_further_right_answer_counts(random_model, small):
    from dataclasses import replace

    prompts = Questions(small).ask(small.of_type("person")[:6], ["colour"], "train")
    best = []
    for prompt in prompts:
        scores = score_answers(random_model, [prompt.text] * 8, [prompt.answer, *prompt.options])
        best.append([prompt.answer, *prompt.options][int(scores.logprob.argmax())])
    helped = [
        replace(p, also=(b,), options=tuple(o for o in p.options if o != b)) for p, b in zip(prompts, best, strict=True)
    ]
    assert all(rank_answers(random_model, helped).first)


def test_known_counts_templates(random_model, small):
    chosen = [e.id for e in small.of_type("person")[:5]]
    knowledge = known(random_model, small, relations=["colour"], entities=chosen, n_templates=4)
    assert {(f.entity, f.relation) for f in knowledge.facts} == {(e, "colour") for e in chosen}
    assert {f.n_templates for f in knowledge.facts} == {4}
    assert knowledge.share("colour") == len(knowledge.known_facts) / 5
    assert knowledge.model == "random"
    again = Knowledge.from_json(json.loads(json.dumps(knowledge.to_json())))
    assert again == knowledge
    with pytest.raises(FileFormatError):
        Knowledge.from_json({"kind": "task"})


def test_the_rule_for_known():
    assert FactKnowledge("a", "r", "x", 4, first=0.5, exact=0.25).known
    assert not FactKnowledge("a", "r", "x", 4, first=0.25, exact=0.25).known
    assert not FactKnowledge("a", "r", "x", 4, first=1.0, exact=0.0).known
    facts = (
        FactKnowledge("a", "r", "x", 4, 1.0, 1.0),
        FactKnowledge("a", "s", "x", 4, 1.0, 1.0),
        FactKnowledge("b", "r", "x", 4, 1.0, 1.0),
        FactKnowledge("b", "s", "x", 4, 0.0, 0.0),
    )
    knowledge = Knowledge("m", "w", facts)
    assert knowledge.known_entities() == ("a", "b")
    assert knowledge.known_entities(min_relations=2) == ("a",)
    assert (knowledge.share("r"), knowledge.share("s")) == (1, 0.5)


def test_nothing_to_forget(random_model, small):
    with pytest.raises(DataError, match="no facts to ask"):
        known(random_model, small, relations=["height"])
    task = make_task(small, ["person-0"], relations=["home"], n_known=10, n_unknown=10)
    with pytest.raises(NothingToForgetError, match="nothing to forget: the model does not know"):
        require_known(random_model, task)
