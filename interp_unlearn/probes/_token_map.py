"""Token map: how far the residual stream moved at each token and layer of a few prompts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.probes._parts import Found, Part, Progress, register_part
from interp_unlearn.probes._phases import BEFORE, Phases
from interp_unlearn.probes._prompt_states import PromptStates, states_of
from interp_unlearn.probes._view import view_prompts, view_table

TABLE = "view.token_map"
MEASURES = ("norm", "norm_drift", "cosine_drift", "displacement")
NOTE = (
    "norm of the residual stream; against the original at the same token: norm_drift is the ratio of norms (1: no "
    "change), cosine_drift is 1 - cosine (0: same direction), displacement is the distance over the original's norm"
)


def token_map(states: Mapping[str, PromptStates]) -> Float[Tensor, "n phase l p measure"]:
    """The `MEASURES` of each phase against ``"before"``, NaN beyond a prompt's end.

    Args:
        states: Phase to states of the same prompts; ``"before"`` is among them.
    """
    first = states[BEFORE].states.float()
    norm = first.norm(dim=-1)
    scale = norm.clamp(min=1e-12)
    out = []
    for found in states.values():
        other = found.states.float()
        length = other.norm(dim=-1)
        cosine = (first * other).sum(-1) / (scale * length.clamp(min=1e-12))
        away = (other - first).norm(dim=-1) / scale
        out.append(torch.stack([length, length / scale, 1 - cosine.clamp(-1, 1), away], -1))
    values = torch.stack(out, 1)
    beyond = states[BEFORE].tokens < 0
    return values.masked_fill(beyond[:, None, None, :, None], torch.nan)


def look(phases: Phases, progress: Progress) -> Found:
    """The token map of every phase on the prompts of `view_prompts`."""
    chosen = view_prompts(phases.task)
    states: dict[str, PromptStates] = {}
    for phase in phases.names:
        progress(f"reading a few prompts token by token ({phase})", 0, 0)
        states[phase] = states_of(phases, phase, [prompt for _, prompt in chosen])
    values = token_map(states)
    with phases.open(BEFORE) as model:
        facts = states[BEFORE].facts(model.tokenizer, chosen)
    table = view_table(
        "residual stream, token by token",
        values.double().numpy(),
        {
            "prompt": [f"{i}: {prompt.text}" for i, (_, prompt) in enumerate(chosen)],
            "phase": phases.names,
            "layer": range(values.shape[2]),
            "position": range(values.shape[3]),
            "measure": MEASURES,
        },
        n=1,
        mask_policy="all",
        config={"prompts": facts},
        note=NOTE,
    )
    return Found(tables={TABLE: table})


register_part(Part("token_map", "residual stream token by token, for pictures", "view", "quick", look))
