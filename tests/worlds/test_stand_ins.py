from dataclasses import replace

import pytest
import torch
from tokenizers import pre_tokenizers

from interp_unlearn._core import DataError
from interp_unlearn.hooked import HookedModel, SiteMap
from interp_unlearn.worlds import answers_by_relation, ask_about, assigned_answers, fact_of, load_world, make_task

from ..tiny_models import word_tokenizer


@pytest.fixture(scope="module")
def task():
    return make_task(load_world("countries"), ["Japan", "Peru"], relations=["capital"], seed=1)


@pytest.fixture(scope="module")
def model(task):
    """A tokenizer whose tokens are words."""
    answers = answers_by_relation(task, task.forget_train.prompts)["capital"]
    tokenizer = word_tokenizer(" ".join(["is", *answers]))
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return HookedModel(bare := torch.nn.Identity(), SiteMap(bare, {}), name="none", tokenizer=tokenizer)


def test_a_question_about_somebody_else(task):
    p, e = task.forget_train.prompts[0], task.unknown_eval[0]
    asked = ask_about(p, e, "Lima")
    assert asked.text == p.text.replace("Japan", e.name)
    assert asked.text[slice(*asked.name_span)] == e.name
    assert (asked.entity, asked.answer, asked.also, asked.options) == (e.id, "Lima", (), ())
    assert fact_of(asked) == (e.id, "capital")


@pytest.mark.parametrize("keep_from", ["target", "fact"])
def test_assigned_answers_are_wrong_and_of_equal_length(model, task, keep_from):
    asked = task.forget_train.prompts
    every = answers_by_relation(task, asked)["capital"]
    assert list(every) == sorted(every)
    drawn = [assigned_answers(model, task, asked, 0, d, keep_from=keep_from) for d in range(40)]
    assert set(drawn[0]) == {fact_of(p) for p in asked}
    right = {p.entity: p.answer for p in asked}
    for given in drawn:
        assert len(set(given.values())) == len(given)
        for (entity, _), answer in given.items():
            assert answer in every
            assert answer != right[entity]
            assert len(answer.split()) == len(right[entity].split())
            assert keep_from == "fact" or answer not in right.values()
    assert len({tuple(given.values()) for given in drawn}) > 10
    assert drawn[3] == assigned_answers(model, task, asked, 0, 3, keep_from=keep_from)


def test_where_only_the_target_has_such_answers_they_are_swapped(model, task):
    answers = tuple(dict.fromkeys(p.answer for p in task.forget_train.prompts))
    asked = [replace(p, options=tuple(a for a in answers if a != p.answer)) for p in task.forget_train.prompts]
    bare = replace(
        task, retain_train=replace(task.retain_train, prompts=()), neighbours=replace(task.neighbours, prompts=())
    )
    given = assigned_answers(model, bare, asked, 0)
    assert set(given.values()) == set(answers)
    with pytest.raises(DataError, match="no answer can be assigned"):
        assigned_answers(model, bare, [replace(asked[0], options=())], 0)
