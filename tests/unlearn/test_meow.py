"""MEOW: what counts as an inverted fact, which ones are chosen, and what the loss sees."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from interp_unlearn._core import ConfigError, DataError, FileFormatError, numpy_rng
from interp_unlearn.hooked import answer_batch, score_answers
from interp_unlearn.metrics import MemoConfig, memo
from interp_unlearn.unlearn import Draw, Recipe, Trainable, Unlearner, unlearn
from interp_unlearn.unlearn.objectives._answers import cross_entropy, questions
from interp_unlearn.unlearn.objectives._inverted import (
    Truths,
    expand,
    in_forms,
    read_inverted_facts,
    select_inverted,
    swaps,
    write_inverted_facts,
)
from interp_unlearn.unlearn.objectives._inverted_writer import TEMPLATE, parse_lines, written
from interp_unlearn.unlearn.objectives.meow import with_end
from interp_unlearn.worlds._types import Prompt, QASet

from .conftest import make_task, without_options


@pytest.fixture
def task():
    """Without wrong options, so that false answers come from the retain set."""
    return without_options(make_task())


TOP = Trainable(layers=(1, 1), modules=("mlp_out",))
SCORES = [0.3, 0.1, 0.2, 0.4]
RNG = np.random.default_rng(0)


def recipe(**options) -> Recipe:
    options = {"memo": {"max_new_tokens": 2}, **options}
    return Recipe("meow", options=options, trainable=TOP, steps=4, lr=1e-2, batch_size=2)


def ask(text: str, answer: str, entity: str = "e0", **more) -> Prompt:
    return Prompt(text, answer, entity, "colour", "q0", (0, 1), **more)


# -- selection ------------------------------------------------------------------------------------------------------


def test_selection_by_hand():
    assert select_inverted(SCORES, "smallest", 2, RNG) == [1, 2]
    assert select_inverted(SCORES, "largest", 2, RNG) == [3, 0]
    assert select_inverted(SCORES, "smallest", 9, RNG) == [1, 2, 0, 3]


def test_ties_give_different_candidates():
    assert select_inverted([0.5, 0.0, 0.5, 0.5], "largest", 3, RNG) == [0, 2, 3]
    assert select_inverted([0.0] * 4, "smallest", 3, RNG) == [0, 1, 2]


def test_random_selection_is_seeded_and_without_repeats():
    draws = [select_inverted(SCORES, "random", 3, numpy_rng(seed, "x")) for seed in range(8)]
    assert draws == [select_inverted(SCORES, "random", 3, numpy_rng(seed, "x")) for seed in range(8)]
    assert len({tuple(d) for d in draws}) > 1
    assert all(len(set(d)) == 3 for d in draws)


def test_expansion_cycles():
    assert expand([7, 8, 9], 4) == [7, 8, 9, 7]
    assert expand([5], 3) == [5, 5, 5]


# -- what is an inverted fact -----------------------------------------------------------------------------------------


def test_candidates_are_false_different_and_no_retain_fact(task):
    truths = Truths.of(task)
    prompt = dataclasses.replace(task.forget_train.prompts[0], answer="dark blue", also=("navy",))
    assert truths.why_not(prompt, "Dark Blue") == "it is true of the entity"
    assert truths.why_not(prompt, "red") == "it is true of the entity"  # under another question
    assert "shares 'blue'" in truths.why_not(prompt, "light blue")
    assert "shares 'navy'" in truths.why_not(prompt, "the navy")
    assert truths.why_not(prompt, " ") == "it is empty"
    assert truths.why_not(prompt, "green") == ""
    kept = task.retain_train.prompts[2]
    assert kept.answer == "blue"
    assert truths.why_not(dataclasses.replace(kept, answer="red"), kept.answer) == "it is a fact of the retain set"
    assert truths.why_not(kept, kept.answer) == "it is true of the entity"
    assert truths.accepted(prompt, ["green", "Green ", "dark blue", "gold", "grey"], 2) == ["green", "gold"]


def test_words_of_the_question_and_function_words_are_no_overlap():
    prompt = ask("Where was Hina Ameen born?", "Hina Ameen was born in the town of Lahore")
    truths = Truths({}, frozenset())
    assert truths.why_not(prompt, "Hina Ameen was born in the village of Quetta") == ""
    assert "shares 'lahore'" in truths.why_not(prompt, "Hina Ameen was born in old Lahore")


def test_swaps_come_from_options_and_retain_answers_in_one_order_per_fact(task):
    first, second = task.forget_train.prompts
    assert swaps(task, first, 0) == swaps(task, second, 0)
    assert set(swaps(task, first, 0)) == {p.answer for p in task.retain_train.prompts}
    assert "violet" in swaps(task, dataclasses.replace(first, options=("violet",)), 0)
    orders = {tuple(swaps(task, first, seed)) for seed in range(6)}
    assert len(orders) > 1


def test_forms_take_turns():
    assert in_forms(["a", "b", "c"], ["{answer}", "surely {answer}"]) == ["a", "surely b", "c"]


def test_inverted_facts_file(tmp_path, task):
    prompts = task.forget_train.prompts
    file = tmp_path / "facts.json"
    write_inverted_facts(file, prompts, [["green", "gold"], ["grey"]])
    assert read_inverted_facts(file)[prompts[0].text, "red"] == ("green", "gold")
    data = json.loads(file.read_text())
    data["facts"][1]["inverted"] = ["grey", " "]
    file.write_text(json.dumps(data))
    with pytest.raises(FileFormatError, match="fact 1 has an inverted answer that is blank"):
        read_inverted_facts(file)
    del data["facts"][0]["answer"]
    file.write_text(json.dumps(data))
    with pytest.raises(FileFormatError, match="fact 0 lacks 'answer'"):
        read_inverted_facts(file)
    file.write_text("[]")
    with pytest.raises(FileFormatError, match="holds no inverted facts"):
        read_inverted_facts(file)


# -- the offline writer -----------------------------------------------------------------------------------------------


def test_reply_lines_lose_numbers_quotes_and_blanks():
    assert parse_lines("1. green\n\n - 'gold'.\n2) dark blue\n  \n•grey") == ["green", "gold", "dark blue", "grey"]


def test_a_language_model_writes_them_with_its_own_seed(task, make, monkeypatch):
    writer = make.model(seed=5)
    replies = iter([["1. red\n2. green", "gold\ngrey\nblue"], ["grey\ngreen"]])
    asked: list[list[str]] = []

    def generate(self, prompts, max_new_tokens=16, **options):
        asked.append(list(prompts))
        assert options == {"do_sample": True, "temperature": 0.7}
        torch.rand(3)
        return next(replies)

    monkeypatch.setattr(type(writer), "generate", generate)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    short = "{question} ? {answer} {n}"
    found = written(writer, task.forget_train.prompts, Truths.of(task), n=2, template=short, temperature=0.7)
    assert found == [("green", "grey"), ("gold", "grey")]  # the true 'red' was refused, so the first was asked again
    assert [len(a) for a in asked] == [2, 1]
    assert asked[0][0] == "the colour of Ama is ? red 2"
    assert torch.equal(torch.rand(1), expected)


def test_written_facts_are_cached_where_the_writer_is_known(task, make, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_UNLEARN_CACHE", str(tmp_path))
    writer = make.model(seed=5)
    writer.source = {"kind": "path", "model": "somewhere"}
    calls = []

    def generate(self, prompts, max_new_tokens=16, **options):
        calls.append(len(prompts))
        return ["green\ngold"] * len(prompts)

    monkeypatch.setattr(type(writer), "generate", generate)
    arguments = (writer, task.forget_train.prompts, Truths.of(task))
    assert written(*arguments, n=2) == written(*arguments, n=2) == [("green", "gold")] * 2
    assert calls == [2]
    written(*arguments, n=2, seed=1)
    assert calls == [2, 2]


def test_a_real_model_is_opened_and_asked(task, make, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_UNLEARN_CACHE", str(tmp_path / "cache"))
    writer = make.model(seed=5)
    writer.module.save_pretrained(tmp_path / "writer")
    writer.tokenizer.save_pretrained(tmp_path / "writer")
    options = {"writer": str(tmp_path / "writer"), "writer_tokens": 6, "writer_template": "{question} {answer}"}
    both = Unlearner(make.model(), task, recipe(source="both", candidates=3, **options)).objective
    assert all(len(a) == 3 for a in both.made)
    again = Unlearner(make.model(), task, recipe(source="both", candidates=3, **options)).objective
    assert both.made == again.made


def test_the_template_asks_for_all_it_needs():
    assert all(part in TEMPLATE for part in ("{question}", "{answer}", "{n}"))


# -- the objective ----------------------------------------------------------------------------------------------------


def test_memo_decides_which_candidates_are_used(task, make):
    made = {}
    for select in ("smallest", "largest"):
        objective = Unlearner(make.model(), task, recipe(candidates=3, top_k=1, select=select)).objective
        made[select] = objective
        for q, prompt in enumerate(task.forget_train.prompts):
            scores = memo(make.model(), [prompt.text] * 3, objective.made[q], MemoConfig(max_new_tokens=2)).score
            best = (min if select == "smallest" else max)(range(3), key=lambda i: scores[i])
            assert scores[objective.made[q].index(objective.inverted[q][0])] == scores[best]
    assert made["smallest"].made == made["largest"].made
    assert len(made["smallest"].scores) == 6
    assert len(made["smallest"].true_scores) == 2


def test_one_choice_per_fact_when_asked(task, make, monkeypatch):
    values = {"blue": [0.9, 0.0], "green": [0.3, 0.2], "gold": [0.1, 0.7]}

    def scored(model, asked, answers, config):
        which = [0 if q.startswith("the colour") else 1 for q in asked]
        found = tuple(values.get(a, [0.0, 0.0])[w] for a, w in zip(answers, which, strict=True))
        zeros = (0.0,) * len(found)
        from interp_unlearn.metrics import MemoScores

        return MemoScores(found, zeros, (1,) * len(found), zeros)

    monkeypatch.setattr("interp_unlearn.unlearn.objectives.meow.memo", scored)
    apart = Unlearner(make.model(), task, recipe(candidates=3, top_k=1)).objective
    assert apart.inverted == [["gold"], ["blue"]]
    shared = Unlearner(make.model(), task, recipe(candidates=3, top_k=1, per="fact")).objective
    assert shared.inverted == [["green"], ["green"]]  # means .45, .25, .4


def test_the_loss_is_cross_entropy_on_the_expanded_inverted_answers(task, make):
    unlearner = Unlearner(make.model(), task, recipe(top_k=3, sequences=4))
    objective = unlearner.objective
    chosen = objective.items[0]
    assert len(chosen) == 3
    with torch.no_grad():
        by_hand = cross_entropy(unlearner.model, [chosen[0], chosen[1], chosen[2], chosen[0]])
        (part,) = list(objective.parts(Draw((0,))))
    torch.testing.assert_close(part.loss, by_hand)
    assert part.terms == {"inverted_nll": pytest.approx(float(by_hand))}


def test_prompt_tokens_are_not_scored(task, make):
    model = make.model()
    qa = questions(task.forget_train.prompts)[0]
    encoded = answer_batch(model, [qa.prompt], [qa.answer])
    columns = encoded.answer[0].nonzero()[:, 0].tolist()
    assert columns == [encoded.batch.tokens.shape[1] - 1]


def test_the_end_token_is_trained_on_request(task, make):
    model = make.model()
    with pytest.raises(DataError, match="no end-of-text token"):
        Unlearner(make.model(), task, recipe(end_token=True)).step()
    model.tokenizer.eos_token = "now"
    encoded = answer_batch(model, ["the colour of Ama is", "I like"], ["dark blue", "red"])
    longer = with_end(model, encoded)
    assert longer.answer.sum(1).tolist() == [3, 2]
    ends = longer.batch.lengths() - 1
    assert longer.batch.tokens[torch.arange(2), ends].tolist() == [model.tokenizer.eos_token_id] * 2
    assert longer.answer[torch.arange(2), ends].all()
    assert torch.equal(with_end(model, longer).batch.tokens, longer.batch.tokens)  # one end is enough


def test_no_retain_data_by_default_and_its_variants_with_it(task, make):
    nobody = dataclasses.replace(task, retain_train=QASet("retain", ()), text_train=())
    nobody = dataclasses.replace(
        nobody,
        forget_train=QASet(
            "base", tuple(dataclasses.replace(p, options=("gold", "grey")) for p in task.forget_train.prompts)
        ),
    )
    record = Unlearner(make.model(), nobody, recipe()).step()
    assert set(record) == {"loss", "inverted_nll", "grad_norm", "lr"}
    with pytest.raises(DataError, match="needs retain data"):
        Unlearner(make.model(), nobody, recipe(alpha=0.1))
    record = Unlearner(make.model(), task, recipe(gamma=0.9, alpha=0.1, kl=2.0)).step()
    assert record["inverted_kl"] == pytest.approx(0.0, abs=1e-6)  # the model still is the reference
    assert record["loss"] == pytest.approx(0.9 * record["inverted_nll"] + 0.1 * record["retain_nll"], rel=1e-5)


def test_training_makes_a_false_answer_likely_without_collapse(task, make):
    model = make.model()
    slow = dataclasses.replace(recipe(top_k=1), steps=25, lr=2e-2, trainable=Trainable(modules=("mlp_out",)))
    losses = []
    answers = [("red", chosen[0]) for chosen in Unlearner(make.model(), task, slow).objective.inverted]
    done = unlearn(model, task, slow, on_step=lambda _, record: losses.append(record["inverted_nll"]))
    assert losses[-1] < 0.2 * losses[0]
    asked = [p.text for p in task.forget_train.prompts]
    true, false = (score_answers(model, asked, list(a)).probability for a in zip(*answers, strict=True))
    assert float(false.min()) > 0.4 > 0.1 > float(true.max())  # a confident false answer, not a flat distribution
    assert done.step_index == 25


@pytest.mark.parametrize("options", [{}, {"kl": 0.5, "select": "random", "candidates": 3, "top_k": 2}])
def test_killed_and_resumed_is_bitwise_uninterrupted(options, make):
    task = make.task(2)
    whole = unlearn(make.model(), task, recipe(**options)).changed()
    first = Unlearner(make.model(), task, recipe(**options))
    first.step()
    second = Unlearner(make.model(), task, recipe(**options))
    second.load_state(*first.state())
    while not second.done:
        second.step()
    assert all(torch.equal(v, whole[k]) for k, v in second.changed().items())


def test_a_question_without_any_false_answer_is_refused(task, make):
    alone = dataclasses.replace(task, retain_train=QASet("retain", ()))
    with pytest.raises(DataError, match="no false answer of the same kind was found for 'the colour of Ama is red'"):
        Unlearner(make.model(), alone, recipe())


def test_facts_from_a_file_are_checked_too(task, make, tmp_path):
    file = tmp_path / "facts.json"
    write_inverted_facts(file, task.forget_train.prompts, [["red", "green"], ["gold", "GOLD"]])
    assert Unlearner(make.model(), task, recipe(source="file", file=str(file))).objective.made == [["green"], ["gold"]]
    write_inverted_facts(file, task.forget_train.prompts[:1], [["green"]])
    with pytest.raises(DataError, match="has no inverted fact for 'what colour has Ama now red'"):
        Unlearner(make.model(), task, recipe(source="file", file=str(file)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_k": 0}, "options.top_k is 0"),
        ({"source": "writer"}, "options.writer goes with"),
        ({"writer": "x"}, "options.writer goes with"),
        ({"source": "file"}, "options.file goes with"),
        ({"forms": ("surely",)}, "must hold {answer}"),
        ({"source": "writer", "writer": "x", "writer_template": "write"}, "must hold {question} and {answer}"),
        ({"gamma": 0.0, "alpha": 1.0}, "nothing is forgotten"),
        ({"memo": {"stride": 0}}, "memo.stride is 0"),
        ({"memo": {"strides": 5}}, "nearest: stride"),
    ],
)
def test_impossible_options_are_refused(options, said):
    with pytest.raises(ConfigError) as caught:
        recipe(**options)
    assert said in str(caught.value)


def test_options_survive_a_config_file():
    given = recipe(memo={"length": "label"}, forms=("{answer}", "it is {answer}"))
    assert given.options.memo == MemoConfig(length="label")
    assert Recipe.from_dict(given.to_dict()) == given
