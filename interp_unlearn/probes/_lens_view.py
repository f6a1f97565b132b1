"""Lens grids: what the output head reads at every layer and token of a few prompts, and the likeliest next tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import Labelled
from interp_unlearn.probes._lens_grid import MEASURES, NOTE, read_grid
from interp_unlearn.probes._parts import Found, Part, Progress, register_part
from interp_unlearn.probes._phases import AFTER, BEFORE, Measured, Phases
from interp_unlearn.probes._prompt_states import states_of
from interp_unlearn.probes._reading_parts import fitted_lenses
from interp_unlearn.probes._tuned_lens import TunedLens
from interp_unlearn.probes._view import view_prompts, view_table
from interp_unlearn.worlds import Prompt

GRID, TUNED_GRID, NEXT = "view.lens_grid", "view.tuned_lens_grid", "view.next_tokens"
NEXT_TOKENS = 8
Chosen = Sequence[tuple[str, Prompt]]


def _read(
    phases: Phases, chosen: Chosen, progress: Progress, head: Callable[[str], str], lenses: Mapping[str, TunedLens]
) -> tuple[dict[str, Measured], list[dict[str, Any]], dict[int, str]]:
    """Grids by phase, what is known of the prompts, and the texts of the token ids in the grids."""
    prompts = [prompt for _, prompt in chosen]
    states = {phase: states_of(phases, phase, prompts) for phase in phases.names}
    grids: dict[str, Measured] = {}
    for phase in phases.names:
        progress(f"reading a lens token by token ({phase})", 0, 0)
        with phases.open(head(phase)) as model:
            grids[phase] = read_grid(model, states[phase], lenses.get(head(phase)))
    with phases.open(BEFORE) as model:
        facts = states[BEFORE].facts(model.tokenizer, chosen)
        ids = {int(i) for grid in grids.values() for i in (*grid["top"].unique(), *_likeliest(grid["next"]).unique())}
        texts = {i: model.tokenizer.decode([i]) if i >= 0 else "" for i in ids}
    return grids, facts, texts


def _likeliest(logprob: Tensor) -> Tensor:
    return logprob.topk(min(NEXT_TOKENS, logprob.shape[-1])).indices


def _grid_table(
    grids: Mapping[str, Measured], facts: list[dict[str, Any]], words: Mapping[int, str], name: str, head: str
) -> Labelled:
    values = torch.stack([grid["values"] for grid in grids.values()], 1).double().numpy()
    ids = torch.stack([grid["top"] for grid in grids.values()], 1).tolist()
    tokens = [[[[words[i] for i in row] for row in layers] for layers in phases] for phases in ids]
    return view_table(
        name,
        values,
        {
            "prompt": [f"{i}: {fact['text']}" for i, fact in enumerate(facts)],
            "phase": tuple(grids),
            "layer": grids[BEFORE]["layers"].tolist(),
            "position": range(values.shape[3]),
            "measure": MEASURES,
        },
        n=1,
        mask_policy="all",
        config={"prompts": facts, "top_tokens": tokens, "head": head},
        note=NOTE,
    )


def _next_table(grids: Mapping[str, Measured], facts: list[dict[str, Any]], words: Mapping[int, str]) -> Labelled:
    """The union of the likeliest next tokens of each phase, with their probability in every phase."""
    logprob = torch.stack([grid["next"] for grid in grids.values()], 1)  # (prompt, phase, vocab)
    unions = []
    for row in logprob:
        ids = _likeliest(row).unique()
        unions.append(ids[row[:, ids].max(0).values.argsort(descending=True)])
    width = max(len(ids) for ids in unions)
    values = np.full((len(unions), len(grids), width), np.nan)
    for row, ids in enumerate(unions):
        values[row, :, : len(ids)] = logprob[row][:, ids].exp().double().numpy()
    return view_table(
        "probability of the next token",
        values,
        {
            "prompt": [f"{i}: {fact['text']}" for i, fact in enumerate(facts)],
            "phase": tuple(grids),
            "place": range(width),
        },
        n=1,
        mask_policy="last token of the prompt",
        config={"prompts": facts, "tokens": [[words[int(i)] for i in ids] for ids in unions]},
        note=f"the {NEXT_TOKENS} likeliest tokens of each phase, likeliest first",
    )


def lens_view(phases: Phases, progress: Progress) -> Found:
    """The logit lens of every phase, each by its own head, and the likeliest next tokens."""
    chosen = view_prompts(phases.task)
    grids, facts, words = _read(phases, chosen, progress, lambda phase: phase, {})
    head = "each phase's own final norm and output head"
    return Found(
        tables={
            GRID: _grid_table(grids, facts, words, "logit lens, token by token", head),
            NEXT: _next_table(grids, facts, words),
        }
    )


def tuned_lens_view(phases: Phases, progress: Progress) -> Found:
    """The tuned lens of every phase; the original's translators and head read the original and the edited model."""
    chosen = view_prompts(phases.task)
    lenses = fitted_lenses(phases, progress)
    whose = {AFTER: BEFORE}
    grids, facts, words = _read(phases, chosen, progress, lambda phase: whose.get(phase, phase), lenses)
    head = "the original's translators and head for before and after, gold's own for gold"
    return Found(tables={TUNED_GRID: _grid_table(grids, facts, words, "tuned lens, token by token", head)})


register_part(Part("lens_grid", "logit lens token by token, for pictures", "view", "quick", lens_view))
register_part(Part("tuned_lens_grid", "tuned lens token by token, for pictures", "view", "standard", tuned_lens_view))
