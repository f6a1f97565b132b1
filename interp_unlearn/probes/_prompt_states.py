"""The residual stream at every layer and token of a few prompts, read once for every picture that shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import config_hash
from interp_unlearn.hooked import HookedModel, answer_batch, capture
from interp_unlearn.probes._forced import cover
from interp_unlearn.probes._mentions import residual_sites
from interp_unlearn.probes._phases import Measured, Phases
from interp_unlearn.worlds import Prompt


@dataclass(frozen=True)
class PromptStates:
    """What one phase holds at each token of some prompts; rows are as long as the longest prompt.

    Attributes:
        states: (prompt, layer, position, d), in the model's dtype, zero beyond a prompt's end.
        tokens: Token ids, (prompt, position), -1 beyond a prompt's end.
        answer: First token of each answer.
        name: First and last position of the entity's name, -1 where it is not marked.
    """

    states: Float[Tensor, "n l p d"]
    tokens: Int[Tensor, "n p"]
    answer: Int[Tensor, " n"]
    name: Int[Tensor, "n 2"]

    def tensors(self) -> dict[str, Tensor]:
        """As named tensors."""
        return {"states": self.states, "tokens": self.tokens, "answer": self.answer, "name": self.name}

    @property
    def lengths(self) -> Int[Tensor, " n"]:
        """Number of tokens of each prompt."""
        return (self.tokens >= 0).sum(1)

    def facts(self, tokenizer: Any, prompts: Sequence[tuple[str, Prompt]]) -> list[dict[str, Any]]:
        """What a view must know of each prompt, as plain values: its texts, its tokens, where its name is."""
        out = []
        for row, (which, prompt) in enumerate(prompts):
            ids = self.tokens[row][self.tokens[row] >= 0].tolist()
            start, end = self.name[row].tolist()
            out.append(
                {
                    "text": prompt.text,
                    "answer": prompt.answer,
                    "set": which,
                    "entity": prompt.entity,
                    "relation": prompt.relation,
                    "template": prompt.template,
                    "tokens": [tokenizer.decode([i]) for i in ids],
                    "name": [start, end] if start >= 0 else None,
                    "answer_token": tokenizer.decode([int(self.answer[row])]),
                }
            )
        return out


@torch.no_grad()
def prompt_states(model: HookedModel, prompts: Sequence[Prompt]) -> PromptStates:
    """Read prompts at every layer, in one forward pass.

    Args:
        model: A language model with a tokenizer.
        prompts: Questions; their answers are not part of what is read.

    Raises:
        DataError: As in `hooked.answer_batch`.
    """
    encoded = answer_batch(model, [p.text for p in prompts], [p.answer for p in prompts])
    batch = encoded.batch
    asked = (batch.attended & (encoded.answer.cumsum(1) == 0)).cpu()
    named = cover(batch, [p.name_span for p in prompts]).cpu()
    sites = residual_sites(model)
    acts = capture(model, batch, sites, mask_policy="all", device="cpu")
    width = int(asked.sum(1).max())
    states = torch.zeros(len(prompts), len(sites), width, model.lm.d_model, dtype=acts[sites[0]].dtype)
    tokens = torch.full((len(prompts), width), -1)
    name = torch.full((len(prompts), 2), -1)
    for row, columns in enumerate(asked):
        at = columns.nonzero()[:, 0]
        tokens[row, : len(at)] = batch.tokens[row].cpu()[at]
        for layer, site in enumerate(sites):
            states[row, layer, : len(at)] = acts[site][row, at]
        inside = named[row][at].nonzero()[:, 0]
        if len(inside):
            name[row] = torch.stack([inside[0], inside[-1]])
    first = encoded.answer.int().argmax(1)
    return PromptStates(states, tokens, batch.tokens.gather(1, first[:, None])[:, 0].cpu(), name)


def states_of(phases: Phases, phase: str, prompts: Sequence[Prompt]) -> PromptStates:
    """`prompt_states` of a phase, kept with it."""
    key = f"view-states-{config_hash([p.full for p in prompts])}"

    def read(model: HookedModel) -> Measured:
        return prompt_states(model, prompts).tensors()

    found: Mapping[str, Tensor] = phases.once(phase, key, read)
    return PromptStates(found["states"], found["tokens"], found["answer"], found["name"])
