"""What an audit refuses before it measures: checkpoints that do not belong together, and data that cannot decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import DataError, ModelError
from interp_unlearn.hooked import HookedModel
from interp_unlearn.probes._two_sample import MIN_UNKNOWN
from interp_unlearn.worlds import Prompt, Task, rank_answers

COLLAPSED = 1e-5
"""Logits that differ by less than this share of their size from prompt to prompt are constant."""
GOLD_KNOWS = 0.25
"""A gold model that answers at least this share of the target's questions, and half of what the original does, was not
trained without the target."""
SENTENCES = ("The answer is 42.", "Where were you born?", "  Two  spaces, naïve café\nand a line.")


def check_alike(original: Mapping[str, Any], other: Mapping[str, Any], who: str) -> None:
    """Refuse a model of another architecture or vocabulary.

    Raises:
        ModelError: Which says what differs.
    """
    words = {"kind": "architecture", "layers": "number of layers", "width": "width"}
    for key, what in words.items():
        if original[key] != other[key]:
            raise ModelError(
                f"{who} has another {what} ({other[key]}) than the original ({original[key]}); "
                "only checkpoints of one architecture can be compared"
            )
    if original["vocabulary"] != other["vocabulary"]:
        raise ModelError(
            f"{who} has a vocabulary of {other['vocabulary']} tokens, the original of {original['vocabulary']}; if "
            f"tokens were only added, save it after model.resize_token_embeddings({original['vocabulary']})"
        )


def check_tokenizers(original: Any, other: Any, who: str) -> None:
    """Refuse a checkpoint whose own tokenizer encodes differently (none at all is fine).

    Raises:
        ModelError: Which names a token or text that differs.
    """
    if original is None or other is None:
        return
    first, second = original.get_vocab(), other.get_vocab()
    moved = sorted(token for token, index in first.items() if second.get(token, index) != index)
    lacking = sorted(set(first) - set(second))
    differing = f"token {(moved or lacking)[0]!r}" if moved or lacking else ""
    if not differing:
        differing = next((f"text {t!r}" for t in SENTENCES if _ids(original, t) != _ids(other, t)), "")
    if differing:
        raise ModelError(
            f"the tokenizer of {who} is not that of the original: they differ on {differing}; "
            "give checkpoints that share a tokenizer"
        )


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text)["input_ids"])


def check_unknown(task: Task) -> None:
    """Refuse too few unknown entities: with n of them held out, no p-value can fall below 1 / (n + 1).

    Raises:
        DataError: Below 8 held-out ones, or below as many as the target has entities.
    """
    needed = max(MIN_UNKNOWN, len(task.target_entities))
    if len(task.unknown_eval) < needed:
        raise DataError(
            f"there are {len(task.unknown_eval)} held-out unknown entities, a two-sample test against them needs at "
            f"least {needed}; give or invent at least {2 * needed}, of which half are held out (n_unknown)"
        )


@torch.no_grad()
def check_not_collapsed(model: HookedModel, task: Task) -> None:
    """Refuse a model whose logits are NaN, or the same whatever it is asked.

    Raises:
        ModelError: Which says which of both.
    """
    texts = list(dict.fromkeys(p.text for s in task.qa_sets() for p in s.prompts[:4]))[:12]
    logits = last_logits(model, texts)
    if not bool(torch.isfinite(logits).all()):
        raise ModelError("the unlearned model is collapsed: its logits are NaN or infinite; it is broken")
    spread = (logits - logits.mean(0)).abs().max()
    if len(texts) > 1 and float(spread) <= COLLAPSED * max(float(logits.abs().max()), 1e-30):
        raise ModelError("the unlearned model is collapsed: its logits are the same for every prompt; it is broken")


def last_logits(model: HookedModel, texts: Sequence[str]) -> Float[Tensor, "prompt vocab"]:
    """Logits after each text."""
    batch = model.batch(list(texts))
    where = torch.zeros_like(batch.attended)
    where[torch.arange(len(batch)), batch.index_of(torch.full((len(batch), 1), -1))[:, 0]] = True
    return model.forward_at(batch, where).float()


def check_gold(original: HookedModel, gold: HookedModel, task: Task) -> None:
    """Refuse a gold model that answers questions about the target.

    Raises:
        ModelError: With both shares.
    """
    asked: list[Prompt] = [*task.forget_train.prompts, *task.forget_heldout.prompts]
    shares = [sum(rank_answers(model, asked).exact) / len(asked) for model in (original, gold)]
    if shares[1] >= GOLD_KNOWS and shares[1] >= 0.5 * shares[0]:
        raise ModelError(
            f"the gold model knows the target: it answers {shares[1]:.0%} of its questions, the original "
            f"{shares[0]:.0%}; give one that was trained without the target, or leave it out"
        )
