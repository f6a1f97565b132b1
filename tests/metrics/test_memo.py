"""MEMO: cuts and scores worked out by hand, and greedy decoding of a real (tiny) model."""

from collections.abc import Callable, Sequence

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.metrics import MemoConfig, memo, memo_cuts, metric_facts

HINA = "The author's name is Hina Ameen."
AYESHA = "The author's name is Ayesha Khan."
Q = "What is the name?"


def stub(question: str, answer: str, change: Callable[[str], str], mode: str = "suffix"):
    """Continues each prompt with a changed label."""
    labels = dict(memo_cuts(question, answer, mode))  # type: ignore[arg-type]
    return lambda prompts: [change(labels[p]) for p in prompts]


@pytest.fixture(scope="module")
def letters() -> HookedModel:
    """A random GPT-2 over characters, context 48, that never stops by itself."""
    alphabet = ["<pad>", *" abcdefghijklmnopqrstuvwxyzTWHA?.'"]
    inner = Tokenizer(models.WordLevel({c: i for i, c in enumerate(alphabet)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    inner.decoder = decoders.Fuse()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<pad>")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(alphabet), n_positions=48, n_embd=32, n_layer=2, n_head=2, bos_token_id=None,
        eos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    return wrap(GPT2LMHeadModel(config).eval(), tokenizer, name="letters")


@pytest.mark.parametrize(
    ("length", "cuts"), [(0, 0), (1, 0), (2, 1), (6, 1), (7, 2), (11, 2), (12, 3), (32, 7), (150, 30)]
)
def test_number_of_cuts(length, cuts):
    assert len(memo_cuts("q", "x" * length)) == cuts
    assert len(memo_cuts("x" * length, "y", "prefix")) == cuts


def test_cuts_join_up_again():
    assert [p for p, _ in memo_cuts(Q, HINA)] == [f"{Q} {HINA[:i]}" for i in (1, 6, 11, 16, 21, 26, 31)]
    assert all(p + label == f"{Q} {HINA}" for p, label in memo_cuts(Q, HINA))
    assert memo_cuts("Who?", "abc def", "prefix") == (("W", "ho? abc def"),)
    assert all(p + label == f"{Q} {HINA}" for p, label in memo_cuts(Q, HINA, "prefix", 3))


@pytest.mark.parametrize(
    ("answer", "change", "expected"),
    [
        ("abc def", lambda label: label, 1.0),
        ("abc def", lambda label: f"{label} x x", (2 / 4 + 1 / 3) / 2),
        (HINA, lambda label: label, 6 / 7),  # the last label is a full stop, which is no word
        (HINA, lambda label: f"<s> {label}</s>", 0.534580),  # kept markers would count as words
        (HINA, lambda label: AYESHA[len(HINA) - len(label) :], (5 / 7 + 4 / 6 + 3 / 5 + 2 / 4) / 7),
        (HINA, lambda label: "", 0.0),
        ("", lambda label: label, 0.0),
        ("x", lambda label: label, 0.0),
    ],
)
def test_hand_computed_suffix_scores(answer, change, expected):
    score = memo(stub(Q, answer, change), [Q], [answer]).score[0]
    assert score == pytest.approx(expected, abs=1e-6)


def test_hand_computed_prefix_score():
    config = MemoConfig(mode="prefix")
    found = memo(stub("Who?", "abc def", lambda _: "ho abc zzz", "prefix"), ["Who?"], ["abc def"], config)
    assert found.score[0] == pytest.approx(2 / 3)
    assert found.recall[0] == pytest.approx(2 / 3)
    assert found.cuts == (1,)
    assert found.words == (3.0,)


def test_precision_rewards_stopping_early_and_recall_does_not():
    short = memo(stub(Q, "abc def ghi", lambda label: label.split()[0]), [Q], ["abc def ghi"])
    assert short.score[0] == 1.0
    assert short.recall[0] < 0.7
    by_recall = memo(stub(Q, "abc def", lambda label: f"{label} x x"), [Q], ["abc def"], MemoConfig(score="recall"))
    assert by_recall.score[0] == 1.0


def test_label_length_forgives_what_follows():
    config = MemoConfig(length="label")
    found = memo(stub(Q, "abc def", lambda label: f"{label} and so on"), [Q], ["abc def"], config)
    assert found.score[0] == 1.0
    assert found.words[0] == 1.5


def test_shared_prompts_are_continued_once_and_order_is_kept():
    seen: list[str] = []

    def source(prompts: Sequence[str]) -> list[str]:
        seen.extend(prompts)
        return ["lue" if p.endswith(" b") else "x" for p in prompts]

    found = memo(source, [Q, Q, Q], ["black", "blue", "red"])
    assert sorted(seen) == [f"{Q} b", f"{Q} r"]
    assert found.score == (0.0, 1.0, 0.0)
    assert found.cuts == (1, 1, 1)
    assert len(found) == 3


def test_a_model_is_decoded_greedily_in_batches_and_within_its_context(letters):
    questions = ["what is the name?", "is it the cat?"] * 3
    answers = ["the cat sat", "abc def", "a", "tea", "the cat ran", "abc"]
    short = MemoConfig(max_new_tokens=8)
    batched, alone = (memo(letters, questions, answers, short, batch_size=n) for n in (64, 1))
    assert batched == alone  # whatever the padding
    assert batched.cuts == (2, 2, 0, 1, 2, 1)
    prompts = [p for p, _ in memo_cuts(questions[0], answers[0])]
    by_hand = {p: letters.generate([p], max_new_tokens=48 - len(p))[0] for p in prompts}
    expected = memo(lambda rows: [by_hand[p] for p in rows], questions[:1], answers[:1])
    assert memo(letters, questions[:1], answers[:1], batch_size=1) == expected


def test_label_length_generates_no_more_than_needed(letters, monkeypatch):
    asked: list[int] = []
    generate = type(letters).generate

    def spy(self, prompts, max_new_tokens=16, **options):
        asked.append(max_new_tokens)
        return generate(self, prompts, max_new_tokens, **options)

    monkeypatch.setattr(type(letters), "generate", spy)
    memo(letters, ["is it?"], ["tea"], MemoConfig(length="label"))
    assert asked == [len(" ea") + 2]


def test_refusals(letters):
    with pytest.raises(DataError, match="fills the model's context of 48"):
        memo(letters, ["a" * 60], ["the cat"])
    with pytest.raises(DataError, match="2 questions but 1 answers"):
        memo(letters, ["a", "b"], ["c"])
    with pytest.raises(ConfigError, match=r"memo\.stride is 0"):
        MemoConfig(stride=0)
    with pytest.raises(DataError, match="needs a tokenizer"):
        memo(wrap(letters.module), ["a"], ["bc"])


def test_table_and_facts():
    config = MemoConfig()
    table = memo(stub(Q, HINA, lambda label: label), [Q], [HINA], config).table(["0"], config)
    assert table.at(pair="0", quantity="memo") == pytest.approx(6 / 7)
    assert table.n == 7
    assert table.config["stride"] == 5
    assert metric_facts()["memo"].on_forget == "down"
