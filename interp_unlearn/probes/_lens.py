"""Logit lens by layer: how readable is the answer, by the model's own output head, after each block?

The head reads the residual stream at the last token of the prompt, after the final norm; at the last layer this is the
model's own prediction. Only the answer's first token is scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import Axis, DataError, Evidence, Labelled, numpy_rng
from interp_unlearn.hooked import HookedModel, answer_batch, capture
from interp_unlearn.probes._bootstrap import mean_interval
from interp_unlearn.probes._catalogue import evidence, missing
from interp_unlearn.probes._tuned_lens import TunedLens
from interp_unlearn.worlds import Prompt

MEASURES = ("logprob", "rank", "margin", "top_option")
POLICY = "last token of the prompt"


def chosen_layers(model: HookedModel, layers: Sequence[int] | None) -> list[int]:
    """Layers to read: the given ones, or all.

    Raises:
        DataError: If one does not exist.
    """
    chosen = list(range(model.lm.n_layers)) if layers is None else list(layers)
    outside = [i for i in chosen if not 0 <= i < model.lm.n_layers]
    if outside or not chosen:
        raise DataError(f"layers {outside or chosen} do not exist; this model has layers 0…{model.lm.n_layers - 1}")
    return chosen


@dataclass(frozen=True)
class LensStates:
    """What a lens reads: activations at the last token of prompts, with the tokens that matter there.

    Attributes:
        layers: Layers read, in order.
        states: (prompt, layer, d), float32 on the CPU.
        answer: First token of each answer.
        options: First tokens of each prompt's wrong options that differ from the answer's, padded with -1.
    """

    layers: tuple[int, ...]
    states: Float[Tensor, "n l d"]
    answer: Int[Tensor, " n"]
    options: Int[Tensor, "n k"]

    def tensors(self) -> dict[str, Tensor]:
        """As named tensors, see `from_tensors`."""
        return {
            "layers": torch.tensor(self.layers),
            "states": self.states,
            "answer": self.answer,
            "options": self.options,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> LensStates:
        """What `tensors` gave."""
        layers = tuple(int(i) for i in tensors["layers"].tolist())
        return cls(layers, tensors["states"], tensors["answer"], tensors["options"])


@torch.no_grad()
def lens_states(
    model: HookedModel, prompts: Sequence[Prompt], *, layers: Sequence[int] | None = None, batch_size: int = 16
) -> LensStates:
    """Read the last token of each prompt after every block, once, for any lens.

    Args:
        model: A language model.
        prompts: Questions with answers.
        layers: Blocks to read; default all.
        batch_size: Prompts per forward pass.

    Raises:
        DataError: If there are no prompts or a layer does not exist.
    """
    if not prompts:
        raise DataError("the logit lens needs at least one prompt")
    chosen = chosen_layers(model, layers)
    sites = [f"blocks.{i}.hook_resid_post" for i in chosen]
    first_tokens = _FirstTokens(model)
    states = torch.empty(len(prompts), len(chosen), model.lm.d_model)
    answer = torch.empty(len(prompts), dtype=torch.long)
    wrong: dict[int, list[int]] = {}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].full))
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        part = [prompts[i] for i in index]
        encoded = answer_batch(model, [p.text for p in part], [p.answer for p in part])
        at = encoded.answer.int().argmax(1)  # column of the answer's first token
        ids = encoded.batch.tokens.gather(1, at[:, None])[:, 0].cpu()
        answer[index] = ids
        for i, prompt, right in zip(index, part, ids.tolist(), strict=True):
            wrong[i] = first_tokens.of(prompt, right)
        acts = capture(model, encoded.batch, sites, positions=at - 1, mask_policy="all", device="cpu")
        for layer, site in enumerate(sites):
            states[index, layer] = acts[site][:, 0].float()
    width = max(map(len, wrong.values()))
    options = torch.tensor([wrong[i] + [-1] * (width - len(wrong[i])) for i in range(len(prompts))], dtype=torch.long)
    return LensStates(tuple(chosen), states, answer, options.reshape(len(prompts), width))


@torch.no_grad()
def read_lens(
    model: HookedModel,
    found: LensStates,
    prompts: Sequence[Prompt],
    lens: TunedLens | None = None,
    *,
    batch_size: int = 64,
) -> Labelled:
    """Decode states with the output head of a model, by the logit lens or through a tuned lens.

    States of an edited model may be decoded by the original's head, so that what an edit did to the head hides nothing.

    Args:
        model: Whose final norm and head decode.
        found: From `lens_states`.
        prompts: The same prompts.
        lens: Translators; None is the logit lens.
        batch_size: Rows decoded at once.

    Returns:
        As `logit_lens`.
    """
    chosen = [i for i, layer in enumerate(found.layers) if lens is None or lens.reads(layer, model.lm.n_layers)]
    layers = [found.layers[i] for i in chosen]
    values = np.full((len(prompts), len(chosen), len(MEASURES)), np.nan)
    has = found.options >= 0
    candidates = torch.cat([found.answer[:, None], found.options.clamp(min=0)], 1)
    absent = torch.cat([torch.zeros(len(has), 1, dtype=torch.bool), ~has], 1)
    for column, layer in zip(range(len(chosen)), layers, strict=True):
        for rows in torch.arange(len(prompts)).split(batch_size):
            hidden = found.states[rows, chosen[column]].to(model.device, model.dtype)
            logprob = model.unembed(hidden if lens is None else lens.translate(layer, hidden)).float().log_softmax(-1)
            mine = logprob.gather(1, candidates[rows].to(logprob.device)).cpu()
            right, others = mine[:, :1], mine[:, 1:]
            rank = 1 + (logprob.cpu() > right).sum(1)
            count = has[rows].sum(1)
            margin = right[:, 0] - torch.where(has[rows], others, 0.0).sum(1) / count
            top = mine.masked_fill(absent[rows], -torch.inf).argmax(1).double()
            top[~torch.isfinite(right[:, 0])] = torch.nan
            margin[count == 0], top[count == 0] = torch.nan, torch.nan
            values[rows.numpy(), column] = torch.stack([right[:, 0].double(), rank.double(), margin.double(), top], 1)
    names = tuple(f"{p.entity}|{p.relation}|{p.template}" for p in prompts)
    return Labelled(
        "logit lens of the answer's first token" if lens is None else "tuned lens of the answer's first token",
        values,
        (Axis("prompt", names), Axis("layer", tuple(str(i) for i in layers)), Axis("measure", MEASURES)),
        n=len(prompts),
        mask_policy=POLICY,
        config={
            "head": "the model's own final norm and output head" if lens is None else "translators, then the head",
            "n_layers": model.lm.n_layers,
            "options": has.sum(1).tolist(),
        },
        note="logprob and margin in nats; rank 1 is the top token; top_option is 0 where the answer outranks its wrong "
        "options, else the number of the best of these; early layers may use another basis than the head",
    )


def logit_lens(
    model: HookedModel, prompts: Sequence[Prompt], *, layers: Sequence[int] | None = None, batch_size: int = 16
) -> Labelled:
    """Log-probability and rank of each answer's first token at the last prompt position, after every block.

    Args:
        model: A language model.
        prompts: Questions with answers; their ``options`` give the margin.
        layers: Blocks to read; default all.
        batch_size: Prompts per forward pass.

    Returns:
        Axes (prompt, layer, measure). ``logprob`` in nats; ``rank`` 1 is the top token; ``margin`` is the answer's
        log-probability minus the mean of the wrong options' (first tokens that differ from the answer's), ``nan``
        without options; ``top_option`` is 0 where the answer outranks every wrong option, else the number of the best
        of these. Prompt labels are ``entity|relation|template``.

    Raises:
        DataError: If there are no prompts or a layer does not exist.
    """
    return read_lens(model, lens_states(model, prompts, layers=layers, batch_size=batch_size), prompts)


class _FirstTokens:
    """First token of each wrong option after a prompt, tokenised in place once per (last word, option)."""

    def __init__(self, model: HookedModel) -> None:
        self.model = model
        self.seen: dict[tuple[str, str], int] = {}

    def of(self, prompt: Prompt, right: int) -> list[int]:
        tail = prompt.text.rsplit(" ", 1)[-1] or prompt.text
        unseen = [o for o in prompt.options if (tail, o) not in self.seen]
        if unseen:
            encoded = answer_batch(self.model, [tail] * len(unseen), unseen)
            at = encoded.answer.int().argmax(1)
            ids = encoded.batch.tokens.gather(1, at[:, None])[:, 0].tolist()
            self.seen.update({(tail, option): token for option, token in zip(unseen, ids, strict=True)})
        return sorted({self.seen[tail, o] for o in prompt.options} - {right})


def lens_evidence(
    before: Labelled, after: Labelled, *, where: str = "forget", gold: Labelled | None = None, seed: int = 0
) -> Evidence:
    """Is the answer readable at some layer? From two tables of `logit_lens` over the same prompts.

    The value is the edited model's largest mean margin over layers, wherever that is; the control is the original's.

    Args:
        before: Lens of the original model.
        after: Lens of the edited model.
        where: Last part of the name: the question set.
        gold: Lens of a model that never knew the target.
        seed: Seed of the interval.

    Raises:
        DataError: If the tables have different prompts or layers.
    """
    if before.axes != after.axes or (gold is not None and gold.axes != after.axes):
        raise DataError("the lens tables have different prompts or layers; use the same question set in each phase")
    margin = {
        phase: t.at(measure="margin")
        for phase, t in (("before", before), ("after", after), ("gold", gold))
        if t is not None
    }
    usable = np.isfinite(before.at(measure="margin")).all(1)
    if not usable.any():
        return missing(
            "lens.margin", where, "no prompt has wrong options to compare with", mask_policy=after.mask_policy
        )
    if not np.isfinite(margin["after"][usable]).all():
        reason = "the edited model's logits are not finite; the model is broken"
        return missing("lens.margin", where, reason, mask_policy=after.mask_policy)
    means = {phase: m[usable].mean(0) for phase, m in margin.items()}
    best = int(means["after"].argmax())
    layers = after.axes[1].labels
    names = [label for label, keep in zip(after.axes[0].labels, usable, strict=True) if keep]
    parts = [name.split("|", 2) for name in names]
    clusters = (np.array(["|".join(p[:2]) for p in parts]), np.array([p[-1] for p in parts]))
    return evidence(
        "lens.margin",
        where,
        float(means["after"][best]),
        n=int(usable.sum()),
        mask_policy=after.mask_policy,
        interval=mean_interval(margin["after"][usable][:, best], clusters, numpy_rng(seed, "lens.margin", where)),
        control=float(means["before"].max()),
        details={
            "layers": Labelled(
                "mean margin of the answer over other options",
                np.stack(list(means.values())),
                (Axis("phase", tuple(means)), after.axes[1]),
                n=int(usable.sum()),
                mask_policy=after.mask_policy,
                note="nats; 0 where the answer is no more likely than other answers of its type",
            )
        },
        config={
            "layer": layers[best],
            "first_layer": float(means["after"][0]),
            "layer_before": layers[int(means["before"].argmax())],
            **({"gold": float(means["gold"].max())} if "gold" in means else {}),
        },
        seed=seed,
    )
