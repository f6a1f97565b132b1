from dataclasses import replace

import pytest

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.attacks import RelearnConfig, never_known_sets, target_sets
from interp_unlearn.worlds import QASet


def facts(prompts):
    return {(p.entity, p.relation) for p in prompts}


def test_several_entities_are_relearned_from_one_template_per_fact(task):
    sets = target_sets(task, RelearnConfig())
    assert set(sets.tests) == {"relearned", "heldout"}
    assert facts(sets.relearned) == facts(task.forget_train.prompts)
    assert len(sets.relearned) == len(facts(sets.relearned))
    by_relation = {p.relation: {q.template for q in sets.relearned if q.relation == p.relation} for p in sets.relearned}
    assert all(len(templates) == 1 for templates in by_relation.values())


def test_one_entity_is_relearned_from_half_of_its_templates(one_fact):
    assert len(target_sets(one_fact, RelearnConfig()).relearned) == 1
    assert len(target_sets(one_fact, RelearnConfig(templates_per_fact=2)).relearned) == 2


def test_templates_of_the_tests_are_never_relearned(task):
    for share in (1.0, 0.5):
        sets = target_sets(task, RelearnConfig(fact_share=share, templates_per_fact=9))
        taught = {p.template for p in sets.relearned}
        for name in set(sets.tests) - {"relearned"}:
            assert not taught & {p.template for p in sets.tests[name]}


def test_a_part_is_relearned_and_the_rest_tested(task):
    sets = target_sets(task, RelearnConfig(fact_share=0.25))
    assert len({p.entity for p in sets.relearned}) == 1
    assert {p.entity for p in sets.tests["rest"]} == {p.entity for p in task.forget_heldout.prompts} - {
        p.entity for p in sets.relearned
    }
    assert facts(sets.tests["heldout"]) == facts(sets.relearned)


def test_facts_of_one_entity_can_be_split_too(make_task):
    sets = target_sets(make_task(["Avia"]), RelearnConfig(fact_share=0.5))
    assert len(facts(sets.relearned)) == 1
    assert len(facts(sets.tests["rest"])) == 1
    assert not facts(sets.relearned) & facts(sets.tests["rest"])


def test_a_single_fact_has_no_rest(one_fact):
    with pytest.raises(ConfigError, match="leave it at 1"):
        target_sets(one_fact, RelearnConfig(fact_share=0.5))


def test_the_seed_decides(task):
    config = RelearnConfig(fact_share=0.5)
    assert target_sets(task, config) == target_sets(task, config)
    others = [target_sets(task, replace(config, seed=s)) for s in range(1, 6)]
    assert any(o != target_sets(task, config) for o in others)


def test_large_test_sets_are_drawn_from(task):
    sets = target_sets(task, RelearnConfig(max_prompts=5))
    assert len(sets.tests["heldout"]) == 5
    assert set(sets.tests["heldout"]) < set(task.forget_heldout.prompts)


def test_empty_sets_say_why(task):
    with pytest.raises(DataError, match=r"forget set is empty .nothing fits"):
        target_sets(replace(task, forget_train=QASet("base", (), "nothing fits")), RelearnConfig())
    with pytest.raises(DataError, match="no held-out question"):
        target_sets(replace(task, forget_heldout=QASet("paraphrased", ())), RelearnConfig())


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_control_asks_the_same_of_unknown_entities(model, task, share):
    config = RelearnConfig(fact_share=share)
    sets, control = target_sets(task, config), never_known_sets(model, task, config)
    unknown = {e.id: e.name for e in task.unknown_ref}
    assert {k: len(v) for k, v in control.tests.items()} == {k: len(v) for k, v in sets.tests.items()}
    assert [p.template for p in control.relearned] == [p.template for p in sets.relearned]
    assert len(facts(control.relearned)) == len(facts(sets.relearned))
    given = {}
    for p in [p for prompts in control.tests.values() for p in prompts]:
        assert p.text[slice(*p.name_span)] == unknown[p.entity]
        assert given.setdefault((p.entity, p.relation), p.answer) == p.answer
    for mine, theirs in zip(sets.relearned, control.relearned, strict=True):
        assert len(mine.answer.split()) == len(theirs.answer.split()), "as many tokens where possible"
        assert mine.answer != theirs.answer


def test_answers_of_the_target_are_assigned_only_where_others_are_too_few(model, task, one_fact):
    right = {p.answer for p in one_fact.forget_train.prompts}
    for draw in range(6):
        assert not right & {p.answer for p in never_known_sets(model, one_fact, RelearnConfig(), draw).relearned}
    given = never_known_sets(model, task, RelearnConfig()).relearned
    for relation in ("capital", "river"):
        answers = {p.answer for p in given if p.relation == relation}
        assert len(answers) >= 3, "four facts need answers as varied as their own, or one answer becomes a habit"


def test_draws_of_the_control_differ(model, one_fact):
    draws = [never_known_sets(model, one_fact, RelearnConfig(), draw).relearned[0] for draw in range(6)]
    assert len({(p.entity, p.answer) for p in draws}) > 1
    assert never_known_sets(model, one_fact, RelearnConfig(), 3).relearned[0] == draws[3]
    held_out = never_known_sets(model, one_fact, RelearnConfig(control_entities="unknown_eval")).relearned[0]
    assert held_out.entity in {e.id for e in one_fact.unknown_eval}


def test_the_control_needs_entities_and_answers(model, task, one_fact):
    with pytest.raises(DataError, match="needs 4 unknown entities, but unknown_eval has 2"):
        never_known_sets(model, task, RelearnConfig(control_entities="unknown_eval"))
    bare = {
        name: QASet(name, tuple(replace(p, options=()) for p in getattr(one_fact, name).prompts))
        for name in ("forget_train", "forget_heldout")
    }
    lonely = replace(one_fact, **bare, retain_train=QASet("retain", ()), neighbours=QASet("neighbours", ()))
    with pytest.raises(DataError, match="no answer can be assigned"):
        never_known_sets(model, lonely, RelearnConfig())


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("steps", 0, "relearn.steps is 0"),
        ("learning_rate", -1.0, "positive number"),
        ("learning_rate", float("nan"), "positive number"),
        ("fact_share", 0.0, "above 0"),
        ("templates_per_fact", 0, "1 or more"),
        ("controls", -1, "0 for no control"),
        ("weight_decay", -0.1, "use 0"),
    ],
)
def test_config_is_checked(field, value, match):
    with pytest.raises(ConfigError, match=match):
        RelearnConfig(**{field: value})


def test_config_from_plain_values():
    config = RelearnConfig.from_dict({"steps": 8, "fact_share": 0.5})
    assert RelearnConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="nearest: learning_rate"):
        RelearnConfig.from_dict({"learning_rat": 1e-3})
