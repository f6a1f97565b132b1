"""Items for objectives that work on output probabilities: questions with answers, or labelled nodes, edges and images.

A labelled item is a question whose answer is one token of a vocabulary of classes, so that one formula serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import AnswerBatch, HookedModel, answer_batch
from interp_unlearn.unlearn._protocols import Context, Item
from interp_unlearn.worlds import AnyTask, ItemSet, LabelledTask, Task
from interp_unlearn.worlds._types import Prompt

REFERENCE_BATCH = 16
"""Items per forward pass when references are computed."""


@dataclass(frozen=True)
class QA:
    """A prompt with the answer that is scored after it."""

    prompt: str
    answer: str
    item: Item


@dataclass(frozen=True)
class Choice:
    """A node, an edge or an image with its class.

    Attributes:
        task: The task that knows how to ask for it.
        id: Node or image, (), or the two ends of an edge, (2,).
        label: Its class.
        item: Its labels for samplers.
    """

    task: LabelledTask
    id: Tensor
    label: int
    item: Item


Asked = QA | Choice
"""What an objective can ask for."""


def choices(task: LabelledTask, items: ItemSet) -> list[Choice]:
    """The items of a set, in its order."""
    kind = items.name
    return [
        Choice(task, items.ids[i], int(label), Item(name, task.classes[int(label)], kind))
        for i, (label, name) in enumerate(zip(items.labels, items.names, strict=True))
    ]


def forget_items(ctx: Context) -> list[Asked]:
    """What a recipe may see of the target."""
    task = ctx.any_task
    if isinstance(task, LabelledTask):
        return list(choices(task, task.forget_train))
    return list(questions(task.forget_train.prompts))


def questions(prompts: Sequence[Prompt]) -> list[QA]:
    """Questions of a set, in its order."""
    return [QA(p.text, p.answer, Item(p.entity, p.relation, "answer", question=p)) for p in prompts]


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


def retain_items(model: HookedModel, task: AnyTask, windows: int, tokens: int) -> list[Asked]:
    """What a recipe may see of the rest: labelled items, or retain questions, then text windows."""
    if isinstance(task, LabelledTask):
        if windows:
            raise ConfigError(
                f"options.text_windows is {windows}, but {task.world} ({task.modality}) has no text; use 0"
            )
        return list(choices(task, task.retain_train))
    return list(retain_questions(model, task, windows, tokens))


def retain_questions(model: HookedModel, task: Task, windows: int, tokens: int) -> list[QA]:
    """Retain questions of a language task, then text windows."""
    return questions(task.retain_train.prompts) + text_windows(model, task.text_train, windows, tokens)


def encode(model: HookedModel, items: Sequence[QA]) -> AnswerBatch:
    """One padded batch of prompts with their answers."""
    return answer_batch(model, [i.prompt for i in items], [i.answer for i in items])


@dataclass(frozen=True)
class AnswerTokens:
    """What the model says where the answers' tokens are predicted, row after row, with graph.

    Attributes:
        logits: Logits that predict each answer token, in float32.
        ids: The answer tokens themselves.
        rows: Row of the batch that each token belongs to.
        n_rows: Number of rows.
    """

    logits: Float[Tensor, "n vocab"]
    ids: Int[Tensor, " n"]
    rows: Int[Tensor, " n"]
    n_rows: int

    def logprobs(self) -> Float[Tensor, " n"]:
        """Log-probability of each answer token, in nats."""
        return -torch.nn.functional.cross_entropy(self.logits, self.ids, reduction="none")

    def row_sum(self, values: Float[Tensor, " n"]) -> Float[Tensor, " batch"]:
        """Sum over each row's answer tokens."""
        return torch.zeros(self.n_rows, dtype=values.dtype, device=values.device).index_add(0, self.rows, values)

    def row_mean(self, values: Float[Tensor, " n"]) -> Float[Tensor, " batch"]:
        """Mean over each row's answer tokens."""
        return self.row_sum(values) / torch.bincount(self.rows, minlength=self.n_rows)


def answer_tokens(
    model: HookedModel, items: Sequence[Asked], *, at: Literal["predicting", "answer"] = "predicting"
) -> AnswerTokens:
    """One forward pass over ``items`` whose output head runs at the wanted positions only.

    Prompts are most of a batch, and the head is a large part of a small model: logits that no loss reads are not made.

    Args:
        model: The opened model.
        items: Prompts with answers; or labelled items, whose one token is their class.
        at: Logits that predict the answer's tokens, or logits at the answer's own tokens.

    Returns:
        The `AnswerTokens`.
    """
    labelled = [i for i in items if isinstance(i, Choice)]
    asked = [i for i in items if isinstance(i, QA)]
    if labelled:
        logits = labelled[0].task.logits(model, torch.stack([c.id for c in labelled])).float()
        labels = torch.tensor([c.label for c in labelled], device=logits.device)
        return AnswerTokens(logits, labels, torch.arange(len(labels), device=logits.device), len(labels))
    encoded = encode(model, asked)
    rows, columns = encoded.answer.nonzero(as_tuple=True)
    where = encoded.answer.roll(-1, dims=1) if at == "predicting" else encoded.answer
    logits = model.forward_at(encoded.batch, where).float()
    return AnswerTokens(logits, encoded.batch.tokens[rows, columns], rows, len(asked))


def kl(before: Float[Tensor, "n c"], now: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Mean over rows of ``KL(before || now)`` of two tables of log-probabilities, in nats."""
    return (before.exp() * (before - now)).sum(-1).mean()


def cross_entropy(model: HookedModel, items: Sequence[Asked]) -> Float[Tensor, ""]:
    """Mean negative log-likelihood over all answer tokens of the batch, in nats per token."""
    return -answer_tokens(model, items).logprobs().mean()


def summed_logprobs(model: HookedModel, items: Sequence[Asked]) -> Float[Tensor, " batch"]:
    """Summed log-probability of each answer, in nats."""
    tokens = answer_tokens(model, items)
    return tokens.row_sum(tokens.logprobs())


@torch.no_grad()
def reference_logprobs(model: HookedModel, items: Sequence[Asked]) -> Float[Tensor, " n"]:
    """Summed log-probability of each answer now, in nats, to be kept as a reference."""
    chunks = (items[i : i + REFERENCE_BATCH] for i in range(0, len(items), REFERENCE_BATCH))
    return torch.cat([summed_logprobs(model, chunk) for chunk in chunks])


def check_budget(size: int, budget_gb: float, at: str) -> None:
    """Refuse cached references of more than ``budget_gb`` gigabytes.

    Args:
        size: Bytes so far.
        budget_gb: Option ``reference_gb`` of the objective.
        at: How far the caching came, for the message.

    Raises:
        ConfigError: If they are too large.
    """
    if size > budget_gb * 1e9:
        raise ConfigError(
            f"cached references take more than options.reference_gb = {budget_gb:g} GB at {at}; "
            "raise it, or use fewer questions or text windows"
        )


@torch.no_grad()
def reference_logits(model: HookedModel, items: Sequence[Asked], budget_gb: float) -> list[Float[Tensor, "n vocab"]]:
    """The logits that predict each item's answer tokens now, one tensor per item, to be kept as references.

    Raises:
        ConfigError: If they would take more memory than ``budget_gb``.
    """
    kept: list[Tensor] = []
    size = 0
    for start in range(0, len(items), REFERENCE_BATCH):
        tokens = answer_tokens(model, items[start : start + REFERENCE_BATCH])
        size += tokens.logits.nbytes
        check_budget(size, budget_gb, f"{len(kept) + tokens.n_rows} of {len(items)} answers")
        kept += [tokens.logits[tokens.rows == row].clone() for row in range(tokens.n_rows)]
    return kept
