"""Question-answer items for objectives that work on output probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interp_unlearn.hooked import AnswerBatch, HookedModel, answer_batch, answer_logprobs
from interp_unlearn.unlearn._protocols import Item
from interp_unlearn.worlds._types import Prompt, Task


@dataclass(frozen=True)
class QA:
    """A prompt with the answer that is scored after it."""

    prompt: str
    answer: str
    item: Item


def questions(prompts: Sequence[Prompt]) -> list[QA]:
    """Questions of a set, in its order."""
    return [QA(p.text, p.answer, Item(p.entity, p.relation, "answer", p)) for p in prompts]


def text_windows(model: HookedModel, texts: Sequence[str], count: int, tokens: int) -> list[QA]:
    """The first ``tokens`` tokens of up to ``count`` texts, with everything after the first word as the answer.

    Texts are cut at the last space inside the window; texts of one word are left out.
    """
    found: list[QA] = []
    for text in texts:
        if len(found) == count:
            break
        assert model.tokenizer is not None
        offsets = model.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        window = " ".join(text[: offsets[min(tokens, len(offsets)) - 1][1]].split()) if offsets else ""
        if len(offsets) > tokens:
            window = window.rpartition(" ")[0]
        first, _, rest = window.partition(" ")
        if rest:
            found.append(QA(first, rest, Item(kind="text")))
    return found


def retain_items(model: HookedModel, task: Task, windows: int, tokens: int) -> list[QA]:
    """Retain questions of the task, then text windows."""
    return questions(task.retain_train.prompts) + text_windows(model, task.text_train, windows, tokens)


def encode(model: HookedModel, items: Sequence[QA]) -> AnswerBatch:
    """One padded batch of prompts with their answers."""
    return answer_batch(model, [i.prompt for i in items], [i.answer for i in items])


def batch_logprobs(model: HookedModel, encoded: AnswerBatch) -> Float[Tensor, "batch pos"]:
    """Log-probability of each answer token (0 elsewhere), with graph."""
    return answer_logprobs(model.forward(encoded.batch), encoded)


def cross_entropy(model: HookedModel, items: Sequence[QA]) -> Float[Tensor, ""]:
    """Mean negative log-likelihood over all answer tokens of the batch, in nats per token."""
    encoded = encode(model, items)
    return -batch_logprobs(model, encoded).sum() / encoded.answer.sum()


def summed_logprobs(model: HookedModel, items: Sequence[QA]) -> Float[Tensor, " batch"]:
    """Summed log-probability of each answer, in nats."""
    return batch_logprobs(model, encode(model, items)).sum(1)
