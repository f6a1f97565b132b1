"""The logit lens at every (layer, position) of prompts, for heat maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interp_unlearn._core import Axis, Labelled
from interp_unlearn.hooked import HookedModel
from interp_unlearn.probes._lens import chosen_layers
from interp_unlearn.probes._prompt_states import PromptStates, prompt_states
from interp_unlearn.probes._tuned_lens import TunedLens
from interp_unlearn.worlds import Prompt

MEASURES = ("top", "answer", "answer_rank")
NOTE = (
    "top: probability of the likeliest token; answer: of the answer's first token; answer_rank 1: it is the likeliest"
)


@torch.no_grad()
def read_grid(model: HookedModel, found: PromptStates, lens: TunedLens | None = None) -> dict[str, Tensor]:
    """Decode the states of some prompts by the final norm and head of a model.

    Args:
        model: Whose final norm and head decode.
        found: From `prompt_states`.
        lens: Translators; None is the logit lens.

    Returns:
        ``layers``; ``values``, (prompt, layer, position, measure), NaN beyond a prompt's end; ``top``, token ids,
        (prompt, layer, position), -1 there; ``next``, log-probabilities at the last token and layer, (prompt, vocab).
    """
    n_layers = found.states.shape[1]
    layers = [i for i in range(n_layers) if lens is None or lens.reads(i, n_layers)]
    n, width = found.tokens.shape
    values = torch.full((n, len(layers), width, len(MEASURES)), torch.nan)
    top = torch.full((n, len(layers), width), -1)
    following = torch.empty(n, 0)
    real = found.tokens >= 0
    answer = found.answer[:, None].expand(n, width)[real][:, None]
    for column, layer in enumerate(layers):
        hidden = found.states[:, layer][real].to(model.device, model.dtype)
        logits = model.unembed(hidden if lens is None else lens.translate(layer, hidden)).float()
        logprob = logits.log_softmax(-1).cpu()
        best, ids = logprob.max(-1)
        right = logprob.gather(1, answer)
        rank = torch.where(right[:, 0].isnan(), torch.nan, 1.0 + (logprob > right).sum(1))
        values[:, column][real] = torch.stack([best.exp(), right[:, 0].exp(), rank], 1)
        top[:, column][real] = ids
        if layer == n_layers - 1:
            following = logprob[found.lengths.cumsum(0) - 1]
    return {"layers": torch.tensor(layers), "values": values, "top": top, "next": following}


def logit_lens_grid(model: HookedModel, prompt: Prompt, *, layers: Sequence[int] | None = None) -> Labelled:
    """The lens at every (layer, position) of one prompt, as `report.plots.lens_grid` draws it.

    Args:
        model: A language model.
        prompt: The question; its answer is not part of the input.
        layers: Blocks to show; default all.

    Returns:
        Axes (layer, position, measure): probability of the ``top`` token and of the ``answer``'s first token, and the
        answer's rank. Position labels are ``"<index>: <token>"``; ``config["top_tokens"]`` holds the top token's text,
        layer by position.

    Raises:
        DataError: If a layer does not exist, or as in `hooked.answer_batch`.
    """
    chosen = chosen_layers(model, layers)
    states = prompt_states(model, [prompt])
    (facts,) = states.facts(model.tokenizer, [("prompt", prompt)])
    grid = read_grid(model, states)
    words = [[model.tokenizer.decode([i]) for i in row] for row in grid["top"][0, chosen].tolist()]
    positions = tuple(f"{i}: {word}" for i, word in enumerate(facts["tokens"]))
    return Labelled(
        "logit lens",
        grid["values"][0, chosen].double().numpy(),
        (Axis("layer", tuple(str(i) for i in chosen)), Axis("position", positions), Axis("measure", MEASURES)),
        n=1,
        mask_policy="all",
        config={**facts, "prompt": prompt.text, "top_tokens": words},
        note=NOTE,
    )
