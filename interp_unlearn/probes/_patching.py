"""Put states of one model into another and read the answer: states, and one pass per patch.

States are kept as flat rows, (token, feature), of the tokens of one place, row by row; so they do not depend on padding
or on the batches they were measured in. `Patcher` runs many passes over the same rows that differ in what is patched:
blocks below the patch are not run again, and the output head runs only where an answer is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked import (
    AnswerBatch,
    Edit,
    HookedModel,
    Site,
    answer_logits,
    edit,
    evaluating,
    resumed,
    tap,
    watch_tuples,
)
from interp_unlearn.probes._bootstrap import cluster_weights, interval
from interp_unlearn.probes._forced import Forced, Place
from interp_unlearn.probes._phases import Measured

AGREE = 1e-3  # nats per answer token between a pass that starts in the middle and a whole one
LOGPROB, LOGITS = "logprob", "logits"

BLOCK, MLP, ATTENTION, NEURONS = "hook_resid_post", "hook_mlp_out", "hook_attn_out", "mlp.hook_post"


def site_of(layer: int, kind: str) -> str:
    """Name of a site of block ``layer``."""
    return f"blocks.{layer}.{kind}"


@torch.no_grad()
def states(
    model: HookedModel,
    rows: Forced,
    sites: Sequence[str],
    place: Place = "all",
    *,
    edits: Sequence[Edit] = (),
    logits: bool = False,
    batch_size: int = 16,
) -> dict[str, Tensor]:
    """What stands at ``sites`` at the tokens of ``place``, and how likely the answers are.

    Args:
        model: A language model.
        rows: Prompts with answers.
        sites: Where to read; may be empty.
        place: Which tokens.
        edits: Applied during the passes.
        logits: Also keep the logits that predict the answers' tokens.
        batch_size: Rows per pass.

    Returns:
        CPU tensors: each site's states, (token, feature), tokens row by row; ``logprob``, (answer token,), in nats;
        on request ``logits``, (answer token, vocabulary).
    """
    found: dict[str, list[Tensor]] = {}
    for _, part in rows.chunks(batch_size):
        at, batch = part.at(place), part.encoded.batch
        shape = (batch.tokens.shape[0], batch.tokens.shape[1])

        def keep(site: Site, value: Tensor, shape: tuple[int, int] = shape, at: Tensor = at) -> Tensor:
            return site.shape_in(value, shape).flatten(2)[at.to(value.device)].detach().cpu()

        with evaluating(model.module), edit(model, *edits):
            if sites:
                with tap(model.sites, list(sites), keep=keep, stop=False) as taps:
                    out = taps.run(lambda part=part: answer_logits(model, part.encoded))
                    values = dict(taps.values)
            else:
                out, values = answer_logits(model, part.encoded), {}
        values[LOGPROB] = _picked(out, part.encoded).cpu()
        if logits:
            values[LOGITS] = out.cpu()
        for key, value in values.items():
            found.setdefault(key, []).append(value)
    return {key: torch.cat(parts) for key, parts in found.items()}


def _picked(logits: Float[Tensor, "n vocab"], encoded: AnswerBatch) -> Float[Tensor, " n"]:
    ids = encoded.batch.tokens[encoded.answer]
    return logits.gather(1, ids[:, None].to(logits.device))[:, 0] - logits.logsumexp(-1)


def row_means(rows: Forced, values: Shaped[Tensor, " n"]) -> Float[np.ndarray, " rows"]:
    """Mean over each row's answer tokens of one value per answer token."""
    which = rows.encoded.answer.cpu().nonzero()[:, 0].numpy()
    sums = np.bincount(which, weights=values.double().cpu().numpy(), minlength=len(rows))
    return sums / np.bincount(which, minlength=len(rows))


def spread(values: Float[Tensor, "n d"], mask: Bool[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d"]:
    """Flat states back in their columns; zero elsewhere."""
    out = torch.zeros(*mask.shape, values.shape[-1], dtype=values.dtype, device=mask.device)
    out[mask] = values.to(mask.device)
    return out


def put(site: str, values: Float[Tensor, "batch pos d"], mask: Bool[Tensor, "batch pos"]) -> Edit:
    """An edit that replaces the tokens of ``mask`` by ``values``."""

    def change(x: Tensor) -> Tensor:
        donor = values.to(x.device, x.dtype).reshape(x.shape)
        return torch.where(mask.to(x.device).reshape(*mask.shape, *[1] * (x.dim() - 2)), donor, x)

    return Edit(site, change, "patch")


class Patcher:
    """Passes over the same rows that differ in what is patched.

    Args:
        model: The model that receives states.
        rows: Prompts with answers, all in one pass.
        base: Edits of every pass, e.g. noise on the name.
        shortcut: Start passes at the first patched block. Tried once: where it disagrees with a whole pass (a model
            whose blocks share more than the residual stream), whole passes are made.

    Attributes:
        logprob: Log-probability of each answer token without patches, on the CPU.
        shortcut: Whether passes start at the first patched block.
    """

    @torch.no_grad()
    def __init__(self, model: HookedModel, rows: Forced, base: Sequence[Edit] = (), *, shortcut: bool = True) -> None:
        self.model, self.rows, self.base = model, rows, tuple(base)
        inputs = [site_of(i, "hook_resid_pre") for i in range(1, model.lm.n_layers)] if shortcut else []
        self._inputs: dict[str, Tensor] = {}
        self._tuples: dict[int, bool] = {}
        self.shortcut = False
        if not inputs:
            self.logprob = self.logprobs()
            return
        copy = lambda _site, value: value.detach().clone()  # noqa: E731
        with (
            evaluating(model.module),
            edit(model, *base),
            watch_tuples(model) as self._tuples,
            tap(model.sites, inputs, keep=copy, stop=False) as taps,
        ):
            out = taps.run(lambda: answer_logits(model, rows.encoded))
            self._inputs = dict(taps.values)
        self.logprob = _picked(out, rows.encoded).cpu()
        self.shortcut = True
        again = self.logprobs((), model.lm.n_layers // 2)
        gap = float((again - self.logprob).abs().max())
        allowed = AGREE if model.dtype in (torch.float32, torch.float64) else 0.1
        if not gap <= allowed:  # also where it is not a number
            self.shortcut = False
            self._inputs.clear()

    @torch.no_grad()
    def logits(self, edits: Sequence[Edit], first: int) -> Float[Tensor, "n vocab"]:
        """Logits that predict the answers' tokens.

        Args:
            edits: Patches of this pass.
            first: Lowest block that they change.
        """
        with evaluating(self.model.module), edit(self.model, *self.base, *edits):
            if self.shortcut and first > 0:
                hidden = self._inputs[site_of(first, "hook_resid_pre")]
                with resumed(self.model, first, hidden, self._tuples):
                    return answer_logits(self.model, self.rows.encoded)
            return answer_logits(self.model, self.rows.encoded)

    def logprobs(self, edits: Sequence[Edit] = (), first: int = 0) -> Float[Tensor, " n"]:
        """Log-probability of each answer token, on the CPU."""
        return _picked(self.logits(edits, first), self.rows.encoded).cpu()


def segment(mask: Bool[Tensor, "batch pos"], index: slice) -> slice:
    """Where the flat states of the rows ``index`` lie."""
    counts = mask.sum(1).cpu()
    start = int(counts[: index.start].sum())
    return slice(start, start + int(counts[index].sum()))


@dataclass(frozen=True)
class Plan:
    """One patch: states put in at some sites in one pass.

    Attributes:
        sites: Sites patched together.
        place: The tokens patched.
        given: States by site, from `states` on the same rows.
        stored: The place that ``given`` was read at, which must hold ``place``.
    """

    sites: tuple[str, ...]
    place: Place
    given: Measured
    stored: Place

    def check(self, rows: Forced) -> None:
        """Refuse states that do not fit the rows.

        Raises:
            DataError: If a site is missing, or the states are of other tokens.
        """
        held = rows.at(self.stored)
        total = int(held.sum())
        for site in self.sites:
            if site not in self.given or len(self.given[site]) != total:
                have = "no" if site not in self.given else f"{len(self.given[site])}"
                raise DataError(f"{have} states given at {site!r} for {total} tokens; measure them on the same rows")
        if bool((rows.at(self.place) & ~held).any()):
            raise DataError(f"states read at {self.stored!r} do not hold every token of {self.place!r}")


def run_plans(
    model: HookedModel,
    rows: Forced,
    plans: Sequence[Plan],
    *,
    base: Callable[[Forced, slice], Sequence[Edit]] | None = None,
    batch_size: int = 16,
    shortcut: bool = True,
    read: Callable[[Tensor, Forced, slice], Tensor] | None = None,
    step: Callable[[], None] | None = None,
) -> Float[Tensor, "plans n"]:
    """The answers' log-probabilities under each plan, one pass per plan and batch.

    Args:
        model: The model that receives.
        rows: Prompts with answers.
        plans: What is patched in each pass.
        base: Makes the edits of every pass over some rows, given them and which they are.
        batch_size: Rows per pass.
        shortcut: See `Patcher`.
        read: What to take of the logits instead of the log-probabilities, given them, the rows and the slice of answer
            tokens that they are: one number per answer token.
        step: Called after every pass.

    Returns:
        One number per plan and answer token, on the CPU.

    Raises:
        DataError: If given states do not fit the rows.
    """
    for plan in plans:
        plan.check(rows)
    parts: list[list[Tensor]] = [[] for _ in plans]
    for index, part in rows.chunks(batch_size):
        patcher = Patcher(model, part, base(part, index) if base is not None else (), shortcut=shortcut)
        answers = segment(rows.encoded.answer, index)
        for p, plan in enumerate(plans):
            held, at = part.at(plan.stored), part.at(plan.place)
            flat = segment(rows.at(plan.stored), index)
            edits = [put(site, spread(plan.given[site][flat], held), at) for site in plan.sites]
            first = min((model.sites[site].layer or 0) for site in plan.sites)
            if read is None:
                parts[p].append(patcher.logprobs(edits, first))
            else:
                parts[p].append(read(patcher.logits(edits, first), part, answers).cpu())
            if step is not None:
                step()
    return torch.stack([torch.cat(p) for p in parts])


def ratio_interval(
    top: Float[np.ndarray, " n"],
    bottom: Float[np.ndarray, " n"],
    clusters: tuple[Iterable[str], ...],
    rng: np.random.Generator,
) -> tuple[float, float] | None:
    """95 % interval of ``sum(top) / sum(bottom)``, by resampling clusters; None where nothing can be resampled."""
    weights = cluster_weights(tuple(np.asarray(list(c)) for c in clusters), rng)
    if weights is None:
        return None
    below = weights @ bottom
    return interval((weights @ top)[below != 0] / below[below != 0])


def chosen_layers(n_layers: int, stride: int, depths: int) -> list[int]:
    """Every ``stride``-th block counted from the last one, which is always there; 0 gives at most ``depths`` blocks."""
    return sorted(range(n_layers - 1, -1, -(stride or max(1, math.ceil(n_layers / depths)))))
