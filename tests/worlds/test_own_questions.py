"""Your own questions: what is read, what is refused, and the task that comes out."""

import json
from pathlib import Path

import pytest

from interp_unlearn._core import ConfigError, DataError, FileFormatError, NothingToForgetError
from interp_unlearn.worlds import (
    checksum,
    load_world,
    questions_task,
    questions_world,
    read_questions,
    task_from_json,
    task_to_json,
)

FORGET = {
    "role": "forget",
    "question": "Where was Ana Petrova born?",
    "answer": "Plovdiv",
    "entity": "Ana Petrova",
    "paraphrases": ["The birthplace of Ana Petrova is"],
}
RETAIN = [
    {"role": "retain", "question": f"Where was {name} born?", "answer": town}
    for name, town in (("Ivo Marin", "Split"), ("Lena Hoff", "Bremen"), ("Tom Ash", "Leeds"), ("Mia Roux", "Plovdiv"))
]
UNKNOWN = [{"role": "unknown", "entity": f"Zed Quill{i}"} for i in range(6)]


def write(folder: Path, rows: object, name: str = "own.json") -> Path:
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        path.write_text(json.dumps(rows))
    return path


def task_of(path: Path, **options):
    rows = read_questions(path)
    return questions_task(rows, questions_world(rows, n_unknown=20), **options)


@pytest.mark.parametrize("name", ["own.json", "own.jsonl"])
def test_json_and_jsonl_give_the_same_rows(tmp_path: Path, name: str):
    rows = read_questions(write(tmp_path, [FORGET, *RETAIN, *UNKNOWN], name))
    assert [r.role for r in rows] == ["forget"] + ["retain"] * 4 + ["unknown"] * 6
    assert rows[0].paraphrases == ("The birthplace of Ana Petrova is",)
    assert [r.entity for r in rows[1:5]] == ["Ivo Marin", "Lena Hoff", "Tom Ash", "Mia Roux"], "found by their capitals"
    assert len({r.relation for r in rows[:5]}) == 1, "the same words but for the name ask the same relation"


def test_the_task_asks_what_the_file_says(tmp_path: Path):
    task = task_of(write(tmp_path, [FORGET, *RETAIN, *UNKNOWN]))
    assert [e.name for e in task.target_entities] == ["Ana Petrova"]
    (plain,) = task.forget_train.prompts
    assert plain.text == "Question: Where was Ana Petrova born?\nAnswer:"
    assert plain.answer == "Plovdiv"
    assert plain.text[slice(*plain.name_span)] == "Ana Petrova"
    assert set(plain.options) == {"Split", "Bremen", "Leeds"}
    (held,) = task.forget_heldout.prompts
    assert held.text == "The birthplace of Ana Petrova is", "a cloze text is continued as it is"
    assert len(task.known_ref) == len(task.known_eval) == 2
    assert not {e.id for e in task.known_ref} & {e.id for e in task.known_eval}
    assert all(p.text.startswith("Q: ") for p in task.neighbours.prompts), "without a paraphrase: another frame"
    assert {e.name for e in (*task.unknown_ref, *task.unknown_eval)} == {f"Zed Quill{i}" for i in range(6)}
    assert task_from_json(json.loads(json.dumps(task_to_json(task)))) == task
    for mention in task.mentions(task.target_entities, "heldout"):
        assert mention.text[slice(*mention.name_span)] == "Ana Petrova"


def test_an_answer_shared_with_the_target_must_survive(tmp_path: Path):
    tasks = [task_of(write(tmp_path, [FORGET, *RETAIN, *UNKNOWN]), seed=seed) for seed in range(4)]
    found = [p.entity for task in tasks for p in task.same_answer.prompts]
    assert found, "Mia Roux was born in Plovdiv too, and some seed holds her out"
    assert {e.split("-")[0] for e in found} == {"mia"}


def test_retained_questions_about_the_target_are_its_other_facts(tmp_path: Path):
    own = {"role": "retain", "question": "What is the job of Ana Petrova?", "answer": "pilot"}
    task = task_of(write(tmp_path, [FORGET, own, *RETAIN, *UNKNOWN]))
    assert [p.answer for p in task.own_other.prompts] == ["pilot"]


def test_unknown_names_are_invented_where_none_are_given(tmp_path: Path):
    rows = read_questions(write(tmp_path, [FORGET, *RETAIN]))
    world = questions_world(rows, n_unknown=24)
    assert len({e.name for e in world.unknown}) == 24
    assert not {e.name for e in world.unknown} & {e.name for e in world.entities}
    assert any("invented" in s for s in world.sources)
    assert any("another frame" in s for s in world.sources)
    again = questions_world(rows, n_unknown=24)
    assert again.unknown == world.unknown


def test_what_the_model_cannot_answer_is_left_out(tmp_path: Path):
    path = write(tmp_path, [FORGET, *RETAIN, *UNKNOWN])
    task = task_of(path, known=lambda ps: [i for i, p in enumerate(ps) if "Tom Ash" not in p.text])
    assert "tom-ash-3" not in {e.id for e in (*task.known_ref, *task.known_eval)}
    with pytest.raises(NothingToForgetError, match="answers none of the questions"):
        task_of(path, known=lambda ps: [i for i, p in enumerate(ps) if "Ana" not in p.text])
    with pytest.raises(DataError, match="at least 2 are needed"):
        task_of(path, known=lambda ps: [i for i, p in enumerate(ps) if "Ana" in p.text])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"questions": []}, "JSON list of rows"),
        ([RETAIN[0]], "no question to forget"),
        ([{**FORGET, "role": "forgot"}], "role is 'forgot'"),
        ([{**FORGET, "anwser": "x"}], "unknown field 'anwser'; nearest: answer"),
        ([{**FORGET, "answer": " "}], "answer is missing or empty"),
        ([{**FORGET, "answer": 1974}], "answer is 1974; write a text"),
        ([{**FORGET, "paraphrases": "one"}], "write a list of texts"),
        ([{**FORGET, "paraphrases": ["Where was she born?"]}], "does not contain its entity 'Ana Petrova'"),
        ([{"role": "forget", "question": "where is it?", "answer": "x"}], "names no entity"),
        ([{"role": "unknown"}], "entity is missing"),
        ([FORGET, {**FORGET, "answer": "Sofia"}], "asks the same of Ana Petrova as row 1"),
        ([{**FORGET, "options": ["Plovdiv", "Sofia"]}], "both a right answer and a wrong option"),
        ([FORGET, {"role": "unknown", "entity": "Ana Petrova"}], "unknown in one row and forget in another"),
        (["text"], "is not an object"),
    ],
)
def test_a_bad_row_is_named_with_its_fix(tmp_path: Path, rows: object, says: str):
    with pytest.raises(DataError) as error:
        read_questions(write(tmp_path, rows))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(FileFormatError, match="does not exist"):
        read_questions(tmp_path / "none.json")
    (tmp_path / "bad.jsonl").write_text('{"role": \n')
    with pytest.raises(FileFormatError, match="not valid JSON"):
        read_questions(tmp_path / "bad.jsonl")


def test_the_world_is_loaded_by_name_and_a_changed_file_is_refused(tmp_path: Path):
    path = write(tmp_path, [FORGET, *RETAIN, *UNKNOWN])
    world = load_world("questions", path=str(path), sha256=checksum(path))
    assert world.entity("Ana Petrova").type == "entity"
    with pytest.raises(ConfigError, match="path is missing"):
        load_world("questions")
    with pytest.raises(DataError, match="has changed since the run began"):
        load_world("questions", path=str(path), sha256="0" * 64)


def test_the_target_names_an_entity_that_rows_leave_out(tmp_path: Path):
    row = {"role": "forget", "question": "what did ana petrova study?", "answer": "law"}
    path = write(tmp_path, [row, *RETAIN])
    assert read_questions(path, ["ana petrova"])[0].entity == "ana petrova"
    world = load_world("questions", path=str(path), names=["ana petrova"], n_unknown=4)
    assert world.entity("Ana Petrova").name == "ana petrova"
