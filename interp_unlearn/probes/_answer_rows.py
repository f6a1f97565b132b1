"""Rows with answers: every entity of a task asked the same questions, read at its name or where the answer begins.

The task's own prompts ask some entities in some templates only. Here the target's questions are asked of the known and
the unknown entities too, so that a probe can be trained on entities *and* templates that it is not tested on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import DataError, ModelError
from interp_unlearn.hooked import Activations, HookedModel, answer_batch, capture, span_last_token
from interp_unlearn.probes._mentions import LAST_TOKEN
from interp_unlearn.probes._rows import GROUPS
from interp_unlearn.worlds import Prompt, Task

Position = Literal["prompt", "name"]
POSITIONS: tuple[Position, ...] = ("prompt", "name")
POLICIES: Mapping[str, str] = {"prompt": "last token of the prompt", "name": LAST_TOKEN}


@dataclass(frozen=True)
class AnswerRow:
    """One question about one entity.

    Attributes:
        text: The prompt, ending where the answer begins.
        name_span: Character span of the entity's name.
        entity: Entity id.
        group: Role of the entity, see `GROUPS`.
        relation: Relation asked.
        template: Template id.
        answer: The right answer; empty for an unknown entity.
    """

    text: str
    name_span: tuple[int, int]
    entity: str
    group: str
    relation: str
    template: str
    answer: str


@dataclass(frozen=True)
class _Pattern:
    """A question template as found in a prompt about the target."""

    relation: str
    template: str
    before: str
    after: str

    def ask(self, name: str, entity: str, group: str, answer: str) -> AnswerRow:
        span = (len(self.before), len(self.before) + len(name))
        return AnswerRow(f"{self.before}{name}{self.after}", span, entity, group, self.relation, self.template, answer)


def answer_rows(task: Task, *, templates: int | None = None) -> tuple[AnswerRow, ...]:
    """The target's questions, asked of the target and of every known and unknown entity of the task.

    Known entities are asked only what the task asks of them somewhere, since only that is known to be known.

    Args:
        task: The target and the entities beside it.
        templates: Templates per relation, so many of those that a recipe may use and so many of the held-out ones.
            Default: 1 for five relations or more, up to 4 for a single one.

    Returns:
        Rows by group, entity and template.

    Raises:
        DataError: If the task asks nothing about its target.
    """
    if templates is None:
        relations = {p.relation for p in (*task.forget_train.prompts, *task.forget_heldout.prompts)}
        templates = max(1, min(4, round(6 / max(len(relations), 1))))
    patterns: dict[str, _Pattern] = {}
    counts: dict[tuple[str, int], int] = {}
    for split, prompts in enumerate((task.forget_train.prompts, task.forget_heldout.prompts)):
        for prompt in prompts:
            count = counts.get((prompt.relation, split), 0)
            if prompt.template not in patterns and count < templates:
                counts[prompt.relation, split] = count + 1
                start, end = prompt.name_span
                patterns[prompt.template] = _Pattern(
                    prompt.relation, prompt.template, prompt.text[:start], prompt.text[end:]
                )
    if not patterns:
        raise DataError("the task asks nothing about its target, so there are no answers to read")
    answers = _answers(task.forget_train.prompts, task.forget_heldout.prompts)
    answers |= _answers(task.retain_train.prompts, task.neighbours.prompts)
    out: list[AnswerRow] = []
    for group in GROUPS:
        for entity in task.target_entities if group == "target" else getattr(task, group):
            for pattern in patterns.values():
                answer = answers.get((entity.id, pattern.relation), "")
                if answer or group.startswith("unknown"):
                    out.append(pattern.ask(entity.name, entity.id, group, answer))
    return tuple(out)


def _answers(*sets: Sequence[Prompt]) -> dict[tuple[str, str], str]:
    return {(p.entity, p.relation): p.answer for prompts in sets for p in prompts}


def answer_labels(rows: Sequence[AnswerRow]) -> dict[str, tuple[str, ...]]:
    """Labels of rows for `Activations`: ``entity``, ``group``, ``template``, ``relation`` and ``answer``."""
    return {
        name: tuple(getattr(r, name) for r in rows) for name in ("entity", "group", "template", "relation", "answer")
    }


@torch.no_grad()
def read_rows(
    model: HookedModel,
    rows: Sequence[AnswerRow],
    sites: Sequence[str],
    positions: Sequence[Position] = POSITIONS,
    *,
    batch_size: int = 32,
) -> dict[tuple[Position, str], Float[Tensor, "n d"]]:
    """Activations of every row at every position and site, in one forward pass per batch, on the CPU in float32.

    Args:
        model: A language model.
        rows: What to ask.
        sites: Where to read.
        positions: ``"prompt"`` is the last token of the prompt, ``"name"`` the last token of the entity's name.
        batch_size: Rows per forward pass; rows of like length run together.
    """
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].text), i))
    parts: dict[tuple[Position, str], list[Tensor]] = {(p, s): [] for p in positions for s in sites}
    for start in range(0, len(order), batch_size):
        chosen = [rows[i] for i in order[start : start + batch_size]]
        batch = model.batch([r.text for r in chosen])
        columns = []
        for position in positions:
            if position == "name":
                columns.append(span_last_token(batch, [r.name_span for r in chosen]).to(batch.tokens.device)[:, None])
            else:
                columns.append(batch.index_of(torch.full((len(chosen), 1), -1, device=batch.tokens.device)))
        acts = capture(model, batch, sites, positions=torch.cat(columns, 1), mask_policy="all", device="cpu")
        for k, position in enumerate(positions):
            for site in sites:
                parts[position, site].append(acts[site][:, k].flatten(1).float())
    back = torch.tensor(order).argsort()
    return {key: torch.cat(found)[back] for key, found in parts.items()}


def answer_activations(
    model: HookedModel,
    task: Task,
    sites: Sequence[str],
    position: Position = "prompt",
    *,
    templates: int | None = None,
    batch_size: int = 32,
) -> Activations:
    """Activations of questions about every entity of a task, with the answer as a label.

    Args:
        model: A language model.
        task: Says the questions, the entities of each group and their answers.
        sites: Where to read, see `residual_sites`.
        position: ``"prompt"``: the last token of the prompt, where the answer begins; ``"name"``: the last token of the
            entity's name.
        templates: See `answer_rows`.
        batch_size: Rows per forward pass.

    Returns:
        `Activations` with one row per question and labels ``entity``, ``group``, ``template``, ``relation`` and
        ``answer`` (empty for unknown entities). Its mask policy names the position.

    Raises:
        DataError: If the task asks nothing about its target.
    """
    rows = answer_rows(task, templates=templates)
    found = read_rows(model, rows, sites, (position,), batch_size=batch_size)
    return rows_as_activations(rows, {site: found[position, site] for site in sites}, position)


def rows_as_activations(
    rows: Sequence[AnswerRow], values: Mapping[str, Float[Tensor, "n d"]], position: Position
) -> Activations:
    """`Activations` of rows that were read before, with their labels."""
    return Activations(
        {k: v[:, None] for k, v in values.items()}, None, None, None, POLICIES[position], answer_labels(rows)
    )


def first_tokens(model: HookedModel, prompts: Sequence[str], answers: Sequence[str]) -> list[int]:
    """Token id with which each answer begins after its prompt.

    Only the prompt's last word is tokenised with the answer, since that decides how the answer begins.
    """
    pairs = [(p.rsplit(" ", 1)[-1] or p, a) for p, a in zip(prompts, answers, strict=True)]
    distinct = list(dict.fromkeys(pairs))
    ids: dict[tuple[str, str], int] = {}
    for start in range(0, len(distinct), 256):
        part = distinct[start : start + 256]
        encoded = answer_batch(model, [p for p, _ in part], [a for _, a in part])
        at = encoded.answer.int().argmax(1)
        found = encoded.batch.tokens.gather(1, at[:, None])[:, 0].tolist()
        ids |= dict(zip(part, found, strict=True))
    return [ids[pair] for pair in pairs]


@torch.no_grad()
def answer_vectors(model: HookedModel, rows: Sequence[AnswerRow]) -> dict[str, Float[Tensor, " d"]]:
    """For every answer of ``rows``, the direction in the residual stream that speaks for its first token.

    This is the output head's vector, times the gain of the final norm.

    Raises:
        ModelError: If the output head has no weight per token, or is more than a norm and a matrix.
    """
    model.lens_scale()
    weight = getattr(model.submodule(model.lm.unembed), "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or weight.shape[0] < model.lm.d_vocab:
        raise ModelError(f"the output head {model.lm.unembed} has no vector per token; give vectors of your own")
    first = {r.answer: r.text for r in rows if r.answer}
    ids = first_tokens(model, list(first.values()), list(first))
    gain = _gain(model)
    return {answer: (weight[i].float() * gain).detach().cpu() for answer, i in zip(first, ids, strict=True)}


@torch.no_grad()
def _gain(model: HookedModel) -> Float[Tensor, " d"]:
    """What the final norm multiplies each feature by, read off a vector of mean 0 and length 1 per feature."""
    signs = torch.ones(model.lm.d_model, device=model.device, dtype=model.dtype)
    signs[1::2] = -1
    if model.lm.final_norm is None:
        return torch.ones_like(signs).float()
    norm = model.submodule(model.lm.final_norm)
    return ((norm(signs) - norm(-signs)) / 2 * signs).float()
