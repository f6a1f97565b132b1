"""Attribution of an answer to neurons: gradient × activation, integrated gradients, attribution patching.

With ``h`` the activation of a neuron at one position, ``T`` the target (probability of the answer, or its logarithm)
and ``b`` the baseline (zero, or the activation in a corrupted prompt)::

    gradient × activation    A = h dT/dh                         KLUE; one forward and backward for all layers
    attribution patching     A = (h - b) dT/dh
    integrated gradients     A = (h - b) mean_k dT/dh(b + a_k (h - b))      the whole layer is scaled together

Completeness: ``sum A`` over positions and neurons of one layer should equal ``T(clean) - T(layer at its baseline)``;
the difference of the two comes with every result.

Sources: Dai et al. 2022 (arXiv 2104.08696); Yang et al. 2025 (arXiv 2502.19207); Nanda 2023 (attribution patching).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import Axis, DataError, Labelled, ModelError
from interp_unlearn.hooked import AnswerBatch, Edit, HookedModel, answer_batch, edit
from interp_unlearn.neurons._config import AttributionConfig
from interp_unlearn.neurons._result import Attribution
from interp_unlearn.neurons._suffix import Rows, Suffix, counted_tokens, frozen, split, why_no_cache

FULL_ENOUGH = 128  # tokens after which a pass ends at the next layer, so that the blocks below it need not run


@dataclass(frozen=True)
class _Variant:
    """One row of a pass: a prompt with one layer (or all: None) at one place of the path."""

    layer: int | None
    row: int
    place: float
    weight: float = 0.0


@dataclass
class _Totals:
    """What has been found so far, (prompt, layer, …)."""

    scores: Tensor
    attributed: Tensor
    removed: Tensor
    logprob: Tensor
    measured: set[int] = field(default_factory=set)


def attribute(
    model: HookedModel,
    prompts: Sequence[str],
    answers: Sequence[str],
    config: AttributionConfig | None = None,
    *,
    corrupted: Sequence[str] | None = None,
) -> Attribution:
    """How much each neuron contributes to each answer.

    Args:
        model: A language model with a tokenizer, read in evaluation mode; weights are not touched.
        prompts: Ending where the answer begins, without trailing space.
        answers: One per prompt; all of its tokens count, teacher-forced.
        config: Method and options; default gradient × activation.
        corrupted: One prompt per prompt with the same number of tokens, whose activations are the baseline (needed for
            attribution patching, optional for integrated gradients, which otherwise start at zero).

    Returns:
        `Attribution` with axes (prompt, layer, neuron) and its completeness.

    Raises:
        DataError: If prompts cannot be scored, a corrupted prompt has another length, or numbers are not finite.
        ModelError: If the site does not exist in every block, or layers differ in width.
    """
    config = config or AttributionConfig()
    encoded = answer_batch(model, prompts, answers)
    baseline = None if corrupted is None else answer_batch(model, corrupted, answers)
    return attribute_batch(model, encoded, config, corrupted=baseline)


def attribute_batch(
    model: HookedModel,
    encoded: AnswerBatch,
    config: AttributionConfig,
    *,
    corrupted: AnswerBatch | None = None,
) -> Attribution:
    """As `attribute`, of a batch of prompts with their answers."""
    _check_corrupted(config, encoded, corrupted)
    sites = config.sites(model.lm.n_layers)
    missing = [site for site in sites if site not in model.sites]
    if missing:
        raise ModelError(f"{model.name} has no site {missing[0]!r}; choose a site that every block has")
    counted = counted_tokens(encoded, config.tokens)
    n, n_layers = len(encoded), len(sites)
    wanted = config.completeness_prompts
    if wanted is None:
        wanted = n if config.method == "integrated_gradients" else 4
    with frozen(model.module):
        why = why_no_cache(model, encoded, counted, sites[0])
        totals: _Totals | None = None
        for rows in split(encoded, counted, config.max_tokens, share=not why):
            suffix = Suffix(model, rows, sites)
            widths = {value.shape[-1] for value in suffix.clean.values()}
            if len(widths) > 1:
                raise ModelError(f"layers of {model.name} have different numbers of neurons: {sorted(widths)}")
            if totals is None:
                layers = n_layers if config.layers == "each" else 1
                zeros = lambda *shape: torch.zeros(shape, dtype=torch.float64)  # noqa: E731
                sums = (zeros(n, layers), zeros(n, layers))
                totals = _Totals(zeros(n, n_layers, widths.pop()), *sums, zeros(n))
            _check_finite(suffix.logprob, rows)
            totals.logprob[list(rows.index)] = suffix.logprob.double().cpu()
            _Pass(suffix, sites, config, _baseline(model, sites, rows, corrupted), totals).all(wanted)
    assert totals is not None
    return _result(model, encoded, config, sites, totals, corrupted is not None, why)


class _Pass:
    """Everything about the prompts of one `Suffix`."""

    def __init__(
        self,
        suffix: Suffix,
        sites: Sequence[str],
        config: AttributionConfig,
        base: list[Tensor | None],
        totals: _Totals,
    ) -> None:
        self.suffix, self.rows, self.sites, self.config, self.totals = suffix, suffix.rows, sites, config, totals
        self.base, self.model = base, suffix.model
        self.clean = [suffix.clean[site] for site in sites]
        exact = torch.promote_types(suffix.logprob.dtype, torch.float32)
        self.shift = [
            (clean if b is None else clean - b).to(exact) * self.rows.counted[..., None]
            for clean, b in zip(self.clean, base, strict=True)
        ]

    def all(self, completeness_prompts: int) -> None:
        """Scores of all prompts, then what removing each layer does for the first few."""
        if self.config.method == "integrated_gradients":
            self._integrate()
        else:
            self._one_point()
        measured = [r for r, i in enumerate(self.rows.index) if i < completeness_prompts]
        self.totals.measured.update(self.rows.index[r] for r in measured)
        self._remove(measured)

    # -- one point ---------------------------------------------------------------------------------------------------

    def _one_point(self) -> None:
        """One forward and backward: gradients of the live activations of all layers."""
        live: list[Tensor] = []

        def seen(x: Tensor) -> Tensor:
            x = x if x.requires_grad else x.detach().requires_grad_()
            live.append(x)
            return x

        which = torch.arange(len(self.rows.index), device=self.model.device)
        with edit(self.model, *(Edit(site, seen, "attribution") for site in self.sites)):
            logprob = self.suffix.logprobs(which)
        grads = torch.autograd.grad(logprob.sum(), live)
        scale = self._chain(logprob.detach(), which)
        for layer, gradient in enumerate(grads):
            value = gradient.flatten(2).to(scale.dtype) * scale[:, None, None] * self.shift[layer]
            for row in range(len(which)):
                self._keep(row, layer, layer, value[row])

    # -- integrals ---------------------------------------------------------------------------------------------------

    def _integrate(self) -> None:
        """Points of one integral are added up as they come, so memory does not grow with their number."""
        n, points = len(self.rows.index), self.config.points()
        layers: Sequence[int | None] = range(len(self.sites)) if self.config.layers == "each" else [None]
        variants = [_Variant(a, r, p, w) for a in layers for r in range(n) for p, w in points]
        open_sums: dict[tuple[int | None, int], tuple[int, list[Tensor]]] = {}
        for chunk in self._chunks(variants):
            leaves, spans, logprob, which = self._run(chunk, grad=True)
            grads = torch.autograd.grad(logprob.sum(), leaves)
            weight = torch.tensor([v.weight for v in chunk], dtype=logprob.dtype, device=logprob.device)
            scale = self._chain(logprob.detach(), which) * weight
            for v, variant in enumerate(chunk):
                mine = [
                    g[v - start].to(scale.dtype) * scale[v]
                    for g, (start, end) in zip(grads, spans, strict=True)
                    if start <= v < end
                ]
                key = (variant.layer, variant.row)
                count, sums = open_sums.pop(key, (0, []))
                sums = [a + b for a, b in zip(sums, mine, strict=True)] if sums else mine
                if count + 1 < len(points):
                    open_sums[key] = (count + 1, sums)
                    continue
                for j, total in enumerate(sums):
                    layer = j if variant.layer is None else variant.layer
                    where = 0 if variant.layer is None else layer
                    self._keep(variant.row, layer, where, total * self.shift[layer][variant.row])

    @torch.no_grad()
    def _remove(self, measured: list[int]) -> None:
        """``T(clean) - T(layer at its baseline)``."""
        layers: Sequence[int | None] = range(len(self.sites)) if self.config.layers == "each" else [None]
        for chunk in self._chunks([_Variant(a, r, 0.0) for a in layers for r in measured]):
            _, _, logprob, which = self._run(chunk, grad=False)
            change = self._target(self.suffix.logprob[which], which) - self._target(logprob, which)
            for variant, value in zip(chunk, change.tolist(), strict=True):
                self.totals.removed[self.rows.index[variant.row], variant.layer or 0] = value

    def _chunks(self, variants: list[_Variant]) -> list[list[_Variant]]:
        """Passes within the memory budget; a large enough pass ends where a layer ends."""
        width = self.rows.tokens.shape[1]
        most = max(1, self.config.max_tokens // width)
        chunks: list[list[_Variant]] = []
        for variant in variants:
            last = chunks[-1] if chunks else None
            ends = last is not None and last[-1].layer != variant.layer and len(last) * width >= FULL_ENOUGH
            if last is None or len(last) == most or ends:
                chunks.append([variant])
            else:
                last.append(variant)
        return chunks

    def _run(self, chunk: list[_Variant], grad: bool) -> tuple[list[Tensor], list[tuple[int, int]], Tensor, Tensor]:
        """Leaves and the rows each of them stands in (by layer), log-probabilities and prompts of the rows."""
        device = self.model.device
        which = torch.tensor([v.row for v in chunk], device=device)
        place = torch.tensor([v.place for v in chunk], dtype=self.clean[0].dtype, device=device)
        joint = chunk[0].layer is None
        present = list(range(len(self.sites))) if joint else sorted({v.layer for v in chunk if v.layer is not None})
        edits, leaves, spans = [], [], []
        for layer in present:
            at = [i for i, v in enumerate(chunk) if joint or v.layer == layer]
            start, end = at[0], at[-1] + 1
            rows, a = which[start:end], place[start:end, None, None]
            clean, base = self.clean[layer][rows], self.base[layer]
            leaf = (clean * a if base is None else base[rows] + a * (clean - base[rows])).detach()
            leaf.requires_grad_(grad)
            leaves.append(leaf)
            spans.append((start, end))
            edits.append(Edit(self.sites[layer], _put(leaf, self.rows.counted[rows], start, end), "attribution"))
        first = 0 if joint else self._first_block(present[0])
        with self.suffix.starting_at(first, which), edit(self.model, *edits):
            logprob = self.suffix.logprobs(which)
        return leaves, spans, logprob, which

    def _first_block(self, layer: int) -> int:
        """The block that must run for the site of ``layer`` to be reached."""
        found = self.model.sites[self.sites[layer]].layer
        if found is not None:
            return found
        path = self.model.sites[self.sites[layer]].path
        return next((i for i, b in enumerate(self.model.lm.blocks) if path.startswith(f"{b}.")), 0)

    # -- target and positions ----------------------------------------------------------------------------------------

    def _tokens_of(self, which: Tensor) -> Tensor:
        return self.rows.answer.sum(1)[which]

    def _target(self, logprob: Tensor, which: Tensor) -> Tensor:
        """T from the log-probability of the answer."""
        if self.config.target == "probability":
            return logprob.exp()
        return logprob if self.config.target == "logprob" else logprob / self._tokens_of(which)

    def _chain(self, logprob: Tensor, which: Tensor) -> Tensor:
        """Derivative of T by the log-probability, of which gradients are taken because it does not underflow."""
        if self.config.target == "probability":
            return logprob.exp()
        return torch.ones_like(logprob) if self.config.target == "logprob" else 1 / self._tokens_of(which).to(logprob)

    def _keep(self, row: int, layer: int, where: int, value: Float[Tensor, "pos neuron"]) -> None:
        """Aggregate over positions and file."""
        prompt = self.rows.index[row]
        self.totals.attributed[prompt, where] += float(value.double().sum())
        self.totals.scores[prompt, layer] = self._aggregate(row, value).double().cpu()

    def _aggregate(self, row: int, value: Float[Tensor, "pos neuron"]) -> Float[Tensor, " neuron"]:
        counted = self.rows.counted[row]
        kind = self.config.aggregate
        if kind == "last":
            return value[self.rows.last[row]]
        value = value[counted]
        if kind == "max":
            return value.max(0).values
        if kind == "abs_sum":
            return value.abs().sum(0)
        return value.sum(0) if kind == "sum" else value.mean(0)


def _put(leaf: Tensor, counted: Tensor, start: int, end: int) -> Any:
    """A change that puts ``leaf`` at the counted positions of rows ``start … end``."""

    def change(x: Tensor) -> Tensor:
        flat = x.flatten(2)
        new = torch.where(counted[..., None], leaf, flat[start:end])
        if end - start < len(flat):
            new = torch.cat([flat[:start], new, flat[end:]])
        return new.reshape(x.shape)

    return change


def _check_corrupted(config: AttributionConfig, encoded: AnswerBatch, corrupted: AnswerBatch | None) -> None:
    if config.method == "attribution_patching" and corrupted is None:
        raise DataError("attribution patching compares with corrupted prompts; pass corrupted=[…], one per prompt")
    if corrupted is None:
        return
    if config.method == "gradient_activation":
        raise DataError(
            "gradient × activation has no baseline; use method='attribution_patching' with corrupted prompts"
        )
    if len(encoded) != len(corrupted):
        raise DataError(f"{len(encoded)} prompts but {len(corrupted)} corrupted ones")
    for row, (one, other) in enumerate(zip(encoded.answer, corrupted.answer, strict=True)):
        if one.nonzero().tolist() != other.nonzero().tolist():
            raise DataError(
                f"corrupted prompt {row} has another number of tokens than its prompt, so positions cannot be matched; "
                "choose one of equal length"
            )


def _baseline(
    model: HookedModel, sites: Sequence[str], rows: Rows, corrupted: AnswerBatch | None
) -> list[Tensor | None]:
    """Values of the corrupted prompts at the same positions, by layer; None stands for zero."""
    if corrupted is None:
        return [None] * len(sites)
    start, end = rows.prefix.shape[1], rows.prefix.shape[1] + rows.tokens.shape[1]
    index = torch.tensor(rows.index, device=corrupted.answer.device)
    batch = corrupted.batch
    cut = lambda t: t[index, :end]  # noqa: E731
    whole = Rows(
        rows.index, batch.tokens[index, :0], *map(cut, (batch.tokens, batch.attended, *[corrupted.answer] * 2))
    )
    return [value[:, start:] for value in Suffix(model, whole, sites).clean.values()]


def _check_finite(values: Tensor, rows: Rows) -> None:
    for index, value in zip(rows.index, values.tolist(), strict=True):
        if not math.isfinite(value):
            raise DataError(
                f"the log-probability of the answer of prompt {index} is {value}; check the model's weights for NaN"
            )


def _result(
    model: HookedModel,
    encoded: AnswerBatch,
    config: AttributionConfig,
    sites: Sequence[str],
    totals: _Totals,
    corrupted: bool,
    why: str,
) -> Attribution:
    if not bool(totals.scores.isfinite().all()):
        raise DataError("an attribution is not finite; check the model's weights and activations for NaN or overflow")
    if not bool(totals.scores.any()):
        warnings.warn(
            "every attribution is exactly zero: the answer's gradient does not reach a single neuron, so no neuron can "
            "be chosen by it",
            stacklevel=3,
        )
    texts = encoded.batch.texts
    prompts = tuple(texts) if texts is not None else tuple(str(i) for i in range(len(encoded)))
    labels = tuple(f"{i}: {text}" for i, text in enumerate(prompts))
    settings: dict[str, Any] = {f: getattr(config, f) for f in config.__dataclass_fields__}
    settings.update(
        model=model.name,
        baseline="corrupted prompts" if corrupted else "zero",
        prefix=why or "run once",
        logprob=totals.logprob.tolist(),
    )
    about = {"n": len(encoded), "mask_policy": config.tokens, "config": settings}
    neurons = tuple(str(i) for i in range(totals.scores.shape[-1]))
    axes = (Axis("prompt", labels), Axis("layer", tuple(sites)), Axis("neuron", neurons))
    scores = Labelled("neurons.attribution", totals.scores.numpy(), axes, **about)
    rows = sorted(totals.measured)
    both = (totals.attributed[rows], totals.removed[rows])
    values = np.stack([t.numpy() for t in (*both, both[0] - both[1])], -1)
    layers = tuple(sites) if config.layers == "each" else ("all layers",)
    completeness = Labelled(
        "neurons.completeness",
        values,
        (
            Axis("prompt", tuple(labels[r] for r in rows)),
            Axis("layer", layers),
            Axis("quantity", ("attributed", "removed", "gap")),
        ),
        n=len(rows),
        mask_policy=config.tokens,
        config=settings,
        note="attributed: sum over positions and neurons; removed: target clean minus target with the layer at its "
        "baseline at the same positions; gap: their difference",
    )
    return Attribution(scores, completeness)
