import dataclasses
import json

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from interp_unlearn._core import DataError, FileFormatError
from interp_unlearn.unlearn import Context, Draw, Pools, Recipe, Trainable, Unlearner
from interp_unlearn.unlearn.objectives import HELDOUT_REFUSALS, REFUSALS
from interp_unlearn.unlearn.objectives._alternatives import AlternativeOptions, Alternatives, writable
from interp_unlearn.unlearn.objectives._answers import questions

LOW = Trainable(layers=(0, 1), modules=("mlp_out",))


def alternatives(model, task, most=0, **options):
    ctx = Context(model, task, Recipe("flat"), {}, {}, Pools(()), 0)
    return Alternatives(ctx, questions(task.forget_train.prompts), AlternativeOptions(**options), most)


def test_refusals_are_many_distinct_and_split():
    assert len(REFUSALS) >= 20
    assert len(HELDOUT_REFUSALS) >= 5
    assert len({*REFUSALS, *HELDOUT_REFUSALS}) == len(REFUSALS) + len(HELDOUT_REFUSALS)


def test_a_vocabulary_without_refusals_gets_swaps(model, task):
    """Same relation and type, from the world; never the right answer."""
    assert writable(model, REFUSALS) == ()
    found = alternatives(model, task)
    for prompt, answers in zip(task.forget_train.prompts, found.choices, strict=True):
        assert answers == prompt.options
        assert prompt.answer not in answers
    with pytest.raises(DataError, match=r"set options\.answers to .swaps."):
        alternatives(model, task, answers="refusals")


def test_a_vocabulary_with_refusals_gets_those_it_can_write(model, task):
    words = ["<unk>", "I", "do", "not", "know", ".", "have", "no", "idea"]
    inner = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    found = alternatives(model, task)
    assert set(found.choices[0]) == {"I do not know.", "I have no idea."}


def test_no_swap_to_be_had_is_said(model, task):
    bare = tuple(dataclasses.replace(p, options=(p.answer,)) for p in task.forget_train.prompts)
    task = dataclasses.replace(task, forget_train=dataclasses.replace(task.forget_train, prompts=bare))
    with pytest.raises(DataError, match="no other answer of the same type"):
        alternatives(model, task, answers="swaps")


def test_a_text_file_serves_every_question(model, task, tmp_path):
    path = tmp_path / "answers.txt"
    path.write_text("gold\ngrey \n", encoding="utf-8")
    assert alternatives(model, task, answers_file=str(path)).choices == [("gold", "grey")] * 2


def test_a_right_answer_in_a_text_file_is_no_other_answer(model, task, tmp_path):
    prompt = task.forget_train.prompts[0]
    right = (prompt.answer, "ruby")
    prompts = tuple(dataclasses.replace(p, also=("ruby",)) for p in task.forget_train.prompts)
    task = dataclasses.replace(task, forget_train=dataclasses.replace(task.forget_train, prompts=prompts))
    path = tmp_path / "answers.txt"
    path.write_text("\n".join([right[0].upper(), "Ruby", "gold"]) + "\n", encoding="utf-8")
    assert alternatives(model, task, answers_file=str(path)).choices == [("gold",)] * 2
    path.write_text("\n".join(right) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="nothing but right answers"):
        alternatives(model, task, answers_file=str(path))
    path = path.with_suffix(".jsonl")
    path.write_text("\n".join(json.dumps({"question": p.text, "alternate": "ruby"}) for p in prompts), encoding="utf-8")
    with pytest.raises(DataError, match=r"'ruby'.*an answer to be forgotten"):
        alternatives(model, task, answers_file=str(path))


@pytest.mark.parametrize("line", ["", "   ", "nan", "NaN", "null"])
def test_blank_lines_are_refused(model, task, tmp_path, line):
    path = tmp_path / "answers.txt"
    path.write_text(f"gold\n{line}\ngrey\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2: .*would be trained on as"):
        alternatives(model, task, answers_file=str(path))
    rows = [{"question": p.text, "alternate": line or "x"} for p in task.forget_train.prompts]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({**r, "alternate": line}) + "\n" for r in rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: .*would be trained on as"):
        alternatives(model, task, answers_file=str(path))


def test_files_that_cannot_be_read_say_why(model, task, tmp_path):
    with pytest.raises(FileFormatError, match="does not exist"):
        alternatives(model, task, answers_file=str(tmp_path / "no.txt"))
    table = tmp_path / "answers.csv"
    table.write_text("refusal\nI do not know.\n")
    with pytest.raises(FileFormatError, match=r"neither \.txt .* nor \.jsonl"):
        alternatives(model, task, answers_file=str(table))
    path = tmp_path / "answers.txt"
    path.write_text("")
    with pytest.raises(DataError, match="is empty"):
        alternatives(model, task, answers_file=str(path))
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(FileFormatError, match="not a UTF-8"):
        alternatives(model, task, answers_file=str(path))


def test_a_file_per_question(model, task, tmp_path):
    path = tmp_path / "answers.jsonl"
    one, two = (p.text for p in task.forget_train.prompts)

    def write(*rows):
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")

    rows = [{"question": one, "alternate": "gold"}, {"question": one, "alternate": "grey"}]
    write(*rows, {"question": two, "answer": "red", "alternate": "blue"})
    assert alternatives(model, task, answers_file=str(path)).choices == [("gold", "grey"), ("blue",)]
    write(*rows)
    with pytest.raises(DataError, match="no other answer for the question"):
        alternatives(model, task, answers_file=str(path))
    write({"question": one, "alternate": task.forget_train.prompts[0].answer.upper()}, *rows)
    with pytest.raises(DataError, match="which is an answer to be forgotten"):
        alternatives(model, task, answers_file=str(path))
    path.write_text('{"question": "cut')
    with pytest.raises(FileFormatError, match="line 1: write"):
        alternatives(model, task, answers_file=str(path))
    write({"question": one})
    with pytest.raises(FileFormatError, match="line 1: write"):
        alternatives(model, task, answers_file=str(path))


def test_at_most_so_many_per_question(model, task):
    found = alternatives(model, task, most=2)
    assert [len(c) for c in found.choices] == [2, 2]
    assert {k for s in range(40) for k in found.indices(Draw((0, 1), step=s))} == {0, 1}
    assert found.choices == alternatives(model, task, most=2).choices


def test_a_bad_file_stops_the_run_before_it_starts(model, task, tmp_path):
    path = tmp_path / "answers.txt"
    path.write_text("gold\n\n", encoding="utf-8")
    for name in ("flat", "idk", "dpo", "altpo"):
        with pytest.raises(DataError, match="blank"):
            Unlearner(model, task, Recipe(name, options={"answers_file": str(path)}, trainable=LOW))
