"""Neighbour sets of a small world made by hand, and of TinyWorld."""

import dataclasses
import json

import pytest

from interp_unlearn._core import DataError, FileFormatError
from interp_unlearn.worlds import (
    Entity,
    Fact,
    Template,
    World,
    labels_of,
    load_world,
    make_task,
    neighbour_sets,
    read_lines,
    task_from_json,
    task_to_json,
    with_neighbours,
)


def small_world() -> World:
    people = [Entity(f"p{i}", name, "person") for i, name in enumerate(["Ann", "Bob", "Cid", "Dov", "Eve", "Fay"])]
    towns = [Entity(f"t{i}", name, "town") for i, name in enumerate(["Rome", "Oslo", "Bern", "Lima"])]
    unknown = [Entity(f"u{i}", name, "person", invented=True) for i, name in enumerate(["Gil", "Hal", "Ian", "Jon"])]
    homes = ["Rome", "Oslo", "Rome", "Bern", "Oslo", "Bern"]
    jobs = ["cook", "smith", "cook", "smith", "cook", "smith"]
    facts = [Fact(p.id, "home", h) for p, h in zip(people, homes, strict=True)]
    facts += [Fact(p.id, "job", j) for p, j in zip(people, jobs, strict=True)]
    facts += [Fact(t.id, "land", land) for t, land in zip(towns, ["Italy", "Norway", "Swiss", "Peru"], strict=True)]
    facts += [Fact("t0", "founder", "Ann"), Fact("t1", "founder", "Annika")]
    templates = [
        Template("home", "home", "person", "{name} lives in"),
        Template("home2", "home", "person", "the home of {name} is", "heldout"),
        Template("job", "job", "person", "{name} works as a"),
        Template("land", "land", "town", "{name} lies in"),
        Template("founder", "founder", "town", "{name} was founded by"),
        Template("m", "", "person", "I met {name}"),
    ]
    return World("small", (*people, *towns), tuple(unknown), tuple(facts), tuple(templates), ("some text",))


@pytest.fixture
def task():
    return make_task(small_world(), ["Ann"], n_known=6, n_unknown=4)


def test_direct_neighbours_are_what_the_targets_facts_name(task):
    made = with_neighbours(small_world(), task)
    labels = labels_of(made)
    assert labels["t0"].kind == "direct"
    assert labels["t0"].target == "p0"
    assert {labels[e.id].kind for e in task.known_ref} == {"indirect"}
    assert {labels[t].kind for t in ("t1", "t2", "t3")} == {"general"}
    sets = neighbour_sets(made)
    assert [(p.text, p.answer) for p in sets["direct"].prompts] == [("Rome lies in", "Italy")]  # the founder is Ann
    assert sets["indirect"].prompts == task.retain_train.prompts
    assert {p.text for p in sets["general"].prompts if p.answer == "Annika"} == {"Oslo was founded by"}


def test_nothing_of_the_target_or_of_the_evaluation_is_used(task):
    made = with_neighbours(small_world(), task)
    held = {e.id for e in (*task.known_eval, *task.target_entities)}
    assert not held & {p.entity for p in made.retain_train.prompts}
    assert not held & {n.entity for n in made.near}
    assert made.neighbours == task.neighbours
    assert {p.relation for p in neighbour_sets(made)["general"].prompts} <= {"land", "founder"}


def test_general_entities_are_bounded_drawn_by_seed_and_known(task):
    world = small_world()
    some = [with_neighbours(world, task, n_general=1, seed=s) for s in range(6)]
    drawn = {n.entity for made in some for n in made.near if n.kind == "general"}
    assert all(sum(n.kind == "general" for n in made.near) == 1 for made in some)
    assert len(drawn) > 1
    assert with_neighbours(world, task, n_general=1) == some[0]
    none = with_neighbours(world, task, known_facts=set())
    assert none.retain_train.prompts == task.retain_train.prompts
    with pytest.raises(DataError, match="made from world 'small'"):
        with_neighbours(dataclasses.replace(world, name="other"), task)


def test_every_neighbour_belongs_to_one_target_the_one_it_shares_most_with():
    task = make_task(small_world(), ["Ann", "Bob"], n_known=4, n_unknown=4)
    labels = labels_of(task)
    assert set(labels) == {e.id for e in task.known_ref}
    shares = {"p2": "p0", "p3": "p1", "p5": "p1"}  # Cid as Ann, Dov and Fay as Bob; Eve shares one answer with each
    assert all(labels[e].target == shares[e] for e in labels if e in shares)


def test_a_labelled_task_survives_its_file(task):
    made = with_neighbours(small_world(), task)
    assert task_from_json(json.loads(json.dumps(task_to_json(made)))) == made
    old = task_to_json(task)
    del old["near"]  # files written before there were labels
    assert task_from_json(json.loads(json.dumps(old))) == task


def test_tinyworld_homes_are_direct_neighbours():
    world = load_world("tinyworld", n_known=40, n_unknown=20)
    person = world.of_type("person")[0]
    task = with_neighbours(world, make_task(world, [person.id], n_known=20, n_unknown=10))
    home = next(f.answer for f in world.facts_of(person.id) if f.relation == "home")
    sets = neighbour_sets(task)
    assert {p.text[slice(*p.name_span)] for p in sets["direct"].prompts} == {home}
    assert all(len(s) for s in sets.values())
    assert sum(len(s) for s in sets.values()) == len(task.retain_train)
    assert not any(person.name in p.full for p in task.retain_train.prompts)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I do not know.\n\nNo idea.\n", "line 2: the template is blank"),
        ("I do not know.\n  \n", "line 2: the template is blank"),
        ("I do not know.\nnan\n", "line 2: 'nan' is a missing value"),
        ("\n", "is empty"),
        ("\n\n", "line 1: the template is blank"),
        ("", "is empty"),
    ],
)
def test_files_with_blank_or_missing_lines_are_refused(text, said, tmp_path):
    path = tmp_path / "refusals.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_lines(path)


def test_good_files_are_read_in_order(tmp_path):
    path = tmp_path / "refusals.txt"
    path.write_bytes("\ufeffI do not know.\r\n  Nan is my aunt.\r\n".encode())
    assert read_lines(path) == ("I do not know.", "Nan is my aunt.")
    with pytest.raises(FileFormatError, match="does not exist"):
        read_lines(tmp_path / "none.txt")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="not a UTF-8"):
        read_lines(path)
