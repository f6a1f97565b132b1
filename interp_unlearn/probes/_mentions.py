"""Activations at the last token of entity names, the place where a language model recognises an entity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from interp_unlearn._core import DataError, config_hash
from interp_unlearn.hooked import Activations, HookedModel, capture, span_last_token
from interp_unlearn.probes._phases import Measured, Phases
from interp_unlearn.probes._rows import GROUPS
from interp_unlearn.worlds import Mention, Task

LAST_TOKEN = "last token of the name"


def residual_sites(model: HookedModel) -> list[str]:
    """The residual stream after each block, from first to last: the usual ``sites`` of a layer curve."""
    return [f"blocks.{layer}.hook_resid_post" for layer in range(model.lm.n_layers)]


def mention_activations(
    model: HookedModel,
    task: Task,
    sites: Sequence[str],
    split: Literal["train", "heldout"] = "heldout",
    batch_size: int = 16,
    *,
    after_name: int = 0,
) -> Activations:
    """Activations of every mention of every entity of a task, all sites in one forward pass per batch.

    Groups share templates, so that a difference between groups is about entities.

    Args:
        model: A language model.
        task: Says the entities of each group and the mention templates.
        sites: Where to read, see `residual_sites`.
        split: ``"heldout"`` templates (for evaluation) or ``"train"`` templates.
        batch_size: Rows per forward pass; rows of like length run together.
        after_name: Read so many tokens after the name instead (the last token of the text where it ends before).

    Returns:
        `Activations` with one row per mention, a position axis of length 1, and labels ``entity``, ``group`` (see
        `GROUPS`) and ``template``. Its mask policy names the position.

    Raises:
        DataError: If the task has no mention templates of this split, or an entity is in two groups.
    """
    mentions, labels = mention_rows(task, split)
    order = sorted(range(len(mentions)), key=lambda i: (len(mentions[i].text), i))
    parts: list[Activations] = []
    for start in range(0, len(order), batch_size):
        chosen = [mentions[i] for i in order[start : start + batch_size]]
        batch = model.batch([m.text for m in chosen])
        columns = span_last_token(batch, [m.name_span for m in chosen]).to(batch.tokens.device)
        if after_name:
            nth = batch.position_ids().gather(1, columns[:, None]) + after_name
            columns = batch.index_of(torch.minimum(nth, batch.lengths()[:, None] - 1))
        parts.append(capture(model, batch, sites, positions=columns, mask_policy="all", device="cpu"))
    back = torch.tensor(order).argsort()
    values = {site: torch.cat([p[site] for p in parts])[back] for site in dict.fromkeys(sites)}
    tokens = torch.cat([p.tokens.cpu() for p in parts if p.tokens is not None])[back]
    positions = torch.cat([p.positions.cpu() for p in parts if p.positions is not None])[back]
    policy = LAST_TOKEN if not after_name else f"{after_name} tokens after the name, at most the last token of the text"
    return Activations(values, tokens, torch.ones_like(tokens, dtype=torch.bool), positions, policy, labels)


def mention_rows(
    task: Task, split: Literal["train", "heldout"] = "heldout"
) -> tuple[list[Mention], dict[str, tuple[str, ...]]]:
    """The mentions of every entity of a task, and their labels ``entity``, ``group`` and ``template``.

    Raises:
        DataError: If the task has no mention templates of this split, or an entity is in two groups.
    """
    mentions: list[Mention] = []
    group: list[str] = []
    for name in GROUPS:
        entities = task.target_entities if name == "target" else getattr(task, name)
        found = task.mentions(entities, split)
        mentions += found
        group += [name] * len(found)
    if not mentions:
        raise DataError(
            f"the task has no mention templates of split {split!r}; give the world some with an empty relation"
        )
    _check_disjoint(mentions, group)
    labels = {
        "entity": tuple(m.entity for m in mentions),
        "group": tuple(group),
        "template": tuple(m.template for m in mentions),
    }
    return mentions, labels


def saved_mentions(phases: Phases, phase: str, site: str) -> Activations:
    """Mention activations of a phase at one site: those that a run saved, else read now and kept with the phase."""
    give: Callable[[str], Activations | None] | None = getattr(phases, "mentions", None)
    saved = None if give is None else give(phase)
    return saved if saved is not None and site in saved.values else read_mentions(phases, phase, phases.task, [site])


def read_mentions(phases: Phases, phase: str, task: Task, sites: Sequence[str]) -> Activations:
    """`mention_activations` of a phase, kept with it."""
    mentions, labels = mention_rows(task)
    key = f"mentions-{config_hash([list(sites), [m.text for m in mentions]])}"

    def read(model: HookedModel) -> Measured:
        return dict(mention_activations(model, task, sites, batch_size=32).values)

    values = phases.once(phase, key, read)
    return Activations({site: values[site] for site in sites}, None, None, None, LAST_TOKEN, labels)


def _check_disjoint(mentions: Sequence[Mention], group: Sequence[str]) -> None:
    home: dict[str, str] = {}
    for mention, name in zip(mentions, group, strict=True):
        if home.setdefault(mention.entity, name) != name:
            raise DataError(
                f"entity {mention.entity!r} is in the groups {home[mention.entity]} and {name}; groups must be disjoint"
            )
