"""Tasks: disjoint splits, the four question sets, and the same task in every process."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_unlearn._core import DataError, FileFormatError, NothingToForgetError
from interp_unlearn.worlds import direct_relations, make_task, name_match, rests_on, task_from_json, task_to_json

REPO = Path(__file__).resolve().parents[2]


def ids(entities):
    return {e.id for e in entities}


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([1, 5, 20]), data=st.data())
def test_groups_and_templates_never_overlap(countries, seed, size, data):
    chosen = data.draw(st.permutations(range(len(countries.entities))))[:size]
    chosen = [countries.entities[i].id for i in chosen]
    task = make_task(countries, chosen, seed=seed, n_known=20, n_unknown=20)
    groups = [task.target_entities, task.known_ref, task.known_eval, task.unknown_ref, task.unknown_eval]
    assert [len(g) for g in groups] == [size, 10, 10, 10, 10]
    assert len(set().union(*map(ids, groups))) == size + 40
    assert all(e.invented for g in groups[3:] for e in g)
    splits = {t.id: t.split for t in countries.templates}
    trained, asked = (task.forget_train, task.retain_train), (task.forget_heldout, task.neighbours, task.same_answer)
    for qa, split in (*((q, "train") for q in trained), *((q, "heldout") for q in asked)):
        assert {splits[p.template] for p in qa.prompts} <= {split}
    assert {p.entity for p in task.retain_train.prompts} <= ids(task.known_ref)
    assert {p.entity for p in task.neighbours.prompts} <= ids(task.known_eval)
    assert {p.entity for p in task.forget_train.prompts} == set(chosen)
    assert not {p.entity for p in task.same_answer.prompts} & (set(chosen) | ids(task.known_ref))
    assert not ids(task.mention_train) & ids(task.mention_heldout)


def test_a_task_for_one_relation(countries):
    task = make_task(countries, ["Japan"], relations=["capital"])
    sets = {s.name: s for s in task.qa_sets()}
    assert {p.answer for p in sets["base"].prompts + sets["paraphrased"].prompts} == {"Tokyo"}
    assert (len(sets["base"]), len(sets["paraphrased"])) == (4, 6)
    assert {p.relation for p in sets["multi_hop"].prompts} == {
        "demonym>capital", "capital>currency", "capital>language", "capital>continent",
    }  # fmt: skip
    assert {p.answer for p in sets["backwards"].prompts} == {"Japan"}
    assert sets["same_answer"].why_empty == "no other known entity has one of these answers"
    assert {p.relation for p in sets["own_other"].prompts} == {"continent", "currency", "demonym", "language"}
    assert {p.relation for p in sets["neighbours"].prompts} == {"capital"}


def test_the_whole_entity(countries):
    task = make_task(countries, ["Japan"])
    assert {p.relation for p in task.forget_train.prompts} == {
        "capital",
        "continent",
        "currency",
        "demonym",
        "language",
    }
    assert task.own_other.why_empty == "the whole entity is to be forgotten"
    right = {p.answer for p in task.forget_train.prompts}
    assert task.same_answer.prompts
    for prompt in task.same_answer.prompts:
        assert prompt.answer in right
        assert "Japan " not in f"{prompt.text} "


def test_the_known_do_not_depend_on_the_target(countries):
    one, other = (make_task(countries, [name], seed=3) for name in ("Japan", "Kenya"))
    assert len(ids(one.known_ref + one.known_eval) ^ ids(other.known_ref + other.known_eval)) <= 4
    assert ids(one.known_ref) != ids(make_task(countries, ["Japan"], seed=4).known_ref)


def test_unknown_names_are_matched_group_by_group(countries, people, pieces):
    from interp_unlearn.worlds import load_world

    for name, target in (("countries", "Japan"), ("people", "Einstein")):
        task = make_task(load_world(name, tokenizer=pieces), [target], tokenizer=pieces)
        for known, unknown in ((task.known_ref, task.unknown_ref), (task.known_eval, task.unknown_eval)):
            match = name_match([e.name for e in known], [e.name for e in unknown], pieces)
            assert match.distance <= 0.1
            assert match.auc == pytest.approx(0.5, abs=0.05)


def test_only_what_the_model_knows_is_asked(countries):
    knows = {e.id for e in countries.entities[:30]} | {"japan"}
    facts = {(i, "capital") for i in knows}
    task = make_task(countries, ["Japan"], known_ids=knows, known_facts=facts, n_known=20)
    assert ids(task.known_ref + task.known_eval) <= knows
    assert {p.relation for s in (task.forget_train, task.retain_train, task.neighbours) for p in s.prompts} == {
        "capital"
    }
    assert task.multi_hop.prompts
    with pytest.raises(NothingToForgetError, match=r"nothing to forget: the model does not know .* of Kenya"):
        make_task(countries, ["Kenya"], known_facts=facts)


def test_prompts_are_thinned_evenly_and_repeatably(countries):
    task = make_task(countries, ["Japan"], max_prompts=15)
    assert (len(task.neighbours), len(task.same_answer)) == (15, 15)
    assert task == make_task(countries, ["Japan"], max_prompts=15)


@pytest.mark.parametrize(
    ("entities", "options", "error", "said"),
    [
        ([], {}, DataError, "the forget set is empty"),
        (["Jpan"], {}, DataError, "no entity 'Jpan'; nearest: Japan"),
        (["Japan"], {"relations": ["captial"]}, DataError, "no relation 'captial'.*nearest: capital"),
        (["Japan"], {"relations": ["capital_of"]}, DataError, "no relation 'capital_of'"),
        (["Luxembourg"], {"relations": ["capital"]}, NothingToForgetError, "nothing to forget: countries has no facts"),
        (["Japan"], {"known_ids": ["kenya"]}, DataError, "only 1 known entities"),
    ],
)
def test_bad_targets(countries, entities, options, error, said):
    with pytest.raises(error, match=said):
        make_task(countries, entities, **options)


def test_an_unknown_entity_cannot_be_forgotten(countries, small):
    with pytest.raises(NothingToForgetError, match="is invented"):
        make_task(countries, [countries.unknown[0].name])
    with pytest.raises(DataError, match="mixes person and town"):
        make_task(small, ["person-0", "town-0"])


def test_tiny_world_tasks(small):
    task = make_task(small, ["person-0"], relations=["home"], n_known=20, n_unknown=20)
    assert {p.relation for p in task.multi_hop.prompts} == {"home>country"}
    town = next(f.answer for f in small.facts_of("person-0") if f.relation == "home")
    country = next(f.answer for f in small.facts_of(small.entity(town).id))
    assert {p.answer for p in task.multi_hop.prompts} == {country}
    colour = make_task(small, ["person-0"], relations=["colour"], n_known=20, n_unknown=20)
    assert colour.multi_hop.why_empty == "no two-hop question rests on colour"
    assert colour.same_answer.prompts
    make_task(small, ["town-3"], n_known=20, n_unknown=10)


def test_what_a_relation_rests_on():
    direct = ("capital", "currency", "work", "nationality")
    assert rests_on("capital>currency", direct) == ("capital", "currency")
    assert rests_on("capital_of", direct) == ("capital",)
    assert rests_on("work_by", direct) == ("work",)
    assert rests_on("nationality>population", direct) == ("nationality",)


@pytest.mark.parametrize("target", [["Japan"], ["Japan", "Kenya", "Peru", "Italy", "France"]])
def test_saved_tasks_come_back(countries, target):
    task = make_task(countries, target, relations=["capital"])
    assert task_from_json(json.loads(json.dumps(task_to_json(task)))) == task
    with pytest.raises(FileFormatError, match="not a saved task"):
        task_from_json({"kind": "labelled"})
    cut = task_to_json(task)
    del cut["known_ref"]
    with pytest.raises(FileFormatError, match="lacks or misnames"):
        task_from_json(cut)


SCRIPT = """
import hashlib, json
from interp_unlearn.worlds import load_world, make_task, task_to_json
from interp_unlearn.worlds._tinyworld import TinyWorldConfig, tinyworld_sentences, tinyworld_vocabulary
parts = []
for name, target in (("countries", ["Japan", "Peru"]), ("people", ["Darwin"]), ("tinyworld", ["person-3"])):
    parts.append(task_to_json(make_task(load_world(name), target, seed=2)))
parts.append([tinyworld_sentences(TinyWorldConfig(n_known=20, n_unknown=10)), tinyworld_vocabulary()])
print(hashlib.sha256(json.dumps(parts).encode()).hexdigest())
"""


def test_every_process_makes_the_same_worlds():
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(REPO)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=True
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert len(digests.pop()) == len(hashlib.sha256().hexdigest())


def test_direct_relations_leave_out_derived_ones(countries, small):
    assert "capital_of" not in direct_relations(countries, "country")
    assert direct_relations(small, "person") == ("colour", "food", "home", "job", "pet")
    assert direct_relations(small, "town") == ("country",)
