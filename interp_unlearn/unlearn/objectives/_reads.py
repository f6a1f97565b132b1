"""Where entity knowledge is read: tokenised prompts with the column of the name's last token, run up to a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked import Batch, HookedModel, batch_from_ids, span_last_token, tap, tokenize
from interp_unlearn.worlds._types import Entity, Mention, Prompt, Task, Template, fill_mention

CHUNK = 32


@dataclass(frozen=True)
class Read:
    """A tokenised prompt.

    Attributes:
        entity: Entity id, or empty.
        template: Template id, or empty.
        ids: Token ids, without padding.
        column: Index of the last token of the name (-1 where there is no name).
        after: How many tokens after the name are read too (the same for every entity in a template).
    """

    entity: str
    template: str
    ids: tuple[int, ...]
    column: int
    after: int = 0

    def slots(self) -> list[tuple[str, int]]:
        """(key, column) of each position read: the name's last token, then the last ``after`` tokens of the prompt.

        Keys are the same for all entities in a template, whatever the length of their names.
        """
        size = len(self.ids)
        rest = [(f"{self.template}@{j - self.after}", size + j - self.after) for j in range(self.after)]
        return [(self.template, self.column), *rest]


def question_templates(task: Task) -> tuple[Template, ...]:
    """The training questions about the target as templates that take any name, one per template id."""
    found: dict[str, Template] = {}
    for prompt in task.forget_train.prompts:
        start, end = prompt.name_span
        text = f"{prompt.text[:start]}{{name}}{prompt.text[end:]}"
        found.setdefault(prompt.template, Template(prompt.template, prompt.relation, task.type, text))
    return tuple(found.values())


def shared_templates(task: Task) -> tuple[Template, ...]:
    """Mention templates, then question templates that are not among them; target and references share them all."""
    texts = {t.text for t in task.mention_train}
    return (*task.mention_train, *(t for t in question_templates(task) if t.text not in texts))


def reads_of(model: HookedModel, entities: Sequence[Entity], templates: Sequence[Template]) -> list[Read]:
    """Every template filled with every entity, entity-major."""
    return encode_reads(model, [fill_mention(t, e) for e in entities for t in templates])


def encode_reads(model: HookedModel, prompts: Sequence[Mention | Prompt]) -> list[Read]:
    """Tokenise prompts and find the last token of each name by character offsets.

    Raises:
        DataError: If the model has no tokenizer or a prompt is longer than its context.
    """
    if not prompts:
        return []
    if model.tokenizer is None:
        raise DataError("reading names needs a tokenizer; pass one to open_model(…, tokenizer=…)")
    batch = tokenize(model.tokenizer, [p.text for p in prompts], max_length=model.lm.n_ctx)
    columns = span_last_token(batch, [p.name_span for p in prompts]).tolist()
    return [
        Read(p.entity, p.template, tuple(batch.tokens[i][batch.attended[i]].tolist()), columns[i])
        for i, p in enumerate(prompts)
    ]


def encode_texts(model: HookedModel, texts: Sequence[str], tokens: int) -> list[Read]:
    """The first ``tokens`` tokens of each text (fewer where the model's context is shorter), without a name."""
    if not texts or model.tokenizer is None:
        return []
    encoded = model.tokenizer(list(texts), add_special_tokens=True)["input_ids"]
    most = min(tokens, model.lm.n_ctx or tokens)
    return [Read("", "", tuple(row[:most]), -1) for row in encoded if len(row) > 1]


def without_first_token(groups: Sequence[Sequence[Read]]) -> list[list[Read]]:
    """The same groups without templates in which some name ends at the first token, whose activation is massive.

    Raises:
        DataError: If no template is left.
    """
    bad = {read.template for group in groups for read in group if read.column == 0}
    kept = [[read for read in group if read.template not in bad] for group in groups]
    if not kept[0]:
        raise DataError(
            "every training template begins with the name, where activations of all names are alike; add templates "
            "that have a word "
            "before {name}"
        )
    return kept


def with_after(groups: Sequence[Sequence[Read]]) -> list[list[Read]]:
    """The same reads, each with as many tokens after the name as every read of its template has."""
    shortest: dict[str, int] = {}
    for read in (r for group in groups for r in group):
        rest = len(read.ids) - 1 - read.column
        shortest[read.template] = min(shortest.get(read.template, rest), rest)
    return [[replace(read, after=shortest[read.template]) for read in group] for group in groups]


def padded(model: HookedModel, reads: Sequence[Read]) -> Batch:
    """Reads as one right-padded batch on the model's device."""
    tokenizer = model.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    batch = batch_from_ids([r.ids for r in reads], pad_id=pad, special_ids=tokenizer.all_special_ids)
    return batch.to(model.device)


@torch.no_grad()
def reference_hidden(model: HookedModel, reads: Sequence[Read], sites: Sequence[str]) -> list[dict[str, Tensor]]:
    """Values at all positions of each read, (position, d) each, without padding or graph, in the given order."""
    out: list[dict[str, Tensor]] = [{} for _ in reads]
    order = sorted(range(len(reads)), key=lambda i: len(reads[i].ids))
    for start in range(0, len(order), CHUNK):
        index = order[start : start + CHUNK]
        with tap(model.sites, sites) as taps:
            batch = padded(model, [reads[i] for i in index])
            taps.run(lambda batch=batch: model.forward(batch))
            values = dict(taps.values)
        for row, i in enumerate(index):
            out[i] = {site: value[row, : len(reads[i].ids)].clone() for site, value in values.items()}
    return out
