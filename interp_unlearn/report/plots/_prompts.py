"""Cutting one prompt out of the tables that hold several, see docs/views.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from interp_unlearn._core import Axis, Labelled
from interp_unlearn.report.plots._data import axis_names, has, pick


def prompt_slice(table: Labelled, prompt: int, phase: str | None = None) -> Labelled:
    """One prompt of a token map or a lens grid, without the cells beyond its end.

    Args:
        table: ``view.token_map``, ``view.lens_grid`` or ``view.tuned_lens_grid`` of a run, with the axes prompt, phase,
            layer, position and measure; ``config["prompts"]`` says what each prompt is.
        prompt: Number of the prompt.
        phase: Only this phase.

    Returns:
        The array without its axis of prompts (and of phases, if one was asked for), positions labelled
        ``"<index>: <token>"``; ``config`` is what is known of the prompt, with ``top_tokens`` where there are any.

    Raises:
        IndexError: If there is no such prompt.
        ValueError: If there is no such phase.
    """
    facts = table.config["prompts"][prompt]
    config: dict[str, Any] = {**facts, "prompt": facts["text"]}
    table = pick(table, "prompt", table.axes[axis_names(table).index("prompt")].labels[prompt])
    length = len(facts["tokens"])
    if "top_tokens" in table.config:
        config["top_tokens"] = [[row[:length] for row in layers] for layers in table.config["top_tokens"][prompt]]
    if phase is not None:
        if not has(table, "phase", phase):
            raise ValueError(f"the table has no phase {phase!r}")
        phases = table.axes[axis_names(table).index("phase")].labels
        if "top_tokens" in config:
            config["top_tokens"] = config["top_tokens"][phases.index(phase)]
        table = pick(table, "phase", phase)
    place = axis_names(table).index("position")
    labels = tuple(f"{i}: {token}" for i, token in enumerate(facts["tokens"]))
    axes = tuple(Axis("position", labels) if axis.name == "position" else axis for axis in table.axes)
    values = table.values[(slice(None),) * place + (slice(length),)]
    return dataclasses.replace(table, values=values, axes=axes, config=config)


def prompt_choices(table: Labelled) -> dict[int, str]:
    """Number of each prompt to how it reads in a list: what it asks about, then its text."""
    words: Mapping[str, str] = {"forget": "target", "neighbours": "neighbour"}
    return {i: f"{words.get(p['set'], p['set'])}: {p['text']}" for i, p in enumerate(table.config["prompts"])}
