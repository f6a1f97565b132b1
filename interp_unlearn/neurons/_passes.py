"""Attributions of the prompts of one `Suffix`: at one point, or along a path whose points share passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.hooked import Edit, edit
from interp_unlearn.neurons._config import AttributionConfig
from interp_unlearn.neurons._suffix import Suffix

FULL_ENOUGH = 128  # tokens after which a pass ends at the next layer, where rows cannot join later


@dataclass(frozen=True)
class Variant:
    """One row of a pass: a prompt with one layer (or all: None) at one place of the path.

    A ``clean`` row changes nothing; the gradients by all layers are read where it passes.
    """

    layer: int | None
    row: int
    place: float
    weight: float = 0.0
    clean: bool = False


@dataclass
class Totals:
    """What has been found so far, (prompt, layer, …).

    Attributes:
        scores: (prompt, layer, neuron).
        attributed: Sum over positions and neurons.
        removed: ``T(clean) - T(layer at its baseline)``.
        logprob: Of each answer, clean.
        measured: Prompts whose ``removed`` is known.
    """

    scores: Tensor
    attributed: Tensor
    removed: Tensor
    logprob: Tensor
    measured: set[int] = field(default_factory=set)


@dataclass
class _Part:
    """Rows ``start … end`` of a pass, and the tensor whose first rows hold their values at a layer."""

    layer: int
    start: int
    end: int
    value: Tensor


@dataclass
class _Run:
    """A pass: what to differentiate by, and log-probabilities and prompts of its rows."""

    parts: list[_Part]
    logprob: Tensor
    which: Tensor


class Pass:
    """Everything about the prompts of one `Suffix`.

    Args:
        suffix: The prompts; with gradients, if the method takes one point.
        config: What is attributed.
        base: The baseline of each layer; None stands for zero.
        totals: Where results go.
        joins: Whether rows may join a pass at their own block.
    """

    def __init__(
        self, suffix: Suffix, config: AttributionConfig, base: Sequence[Tensor | None], totals: Totals, joins: bool
    ) -> None:
        self.suffix, self.rows, self.config, self.totals, self.base = suffix, suffix.rows, config, totals, base
        self.joins = joins
        self.model, self.n_layers = suffix.model, len(suffix.sites)
        self.joint = config.layers == "joint"
        self.exact = torch.promote_types(suffix.logprob.dtype, torch.float32)
        self.all_counted = bool(suffix.counted.all())

    def all(self, completeness_prompts: int) -> None:
        """Scores of all prompts, then what removing each layer does for the first few."""
        measured = [r for r, i in enumerate(self.rows.index) if i < completeness_prompts]
        if self.config.method == "integrated_gradients":
            self._integrate(measured)
        else:
            scale = self._chain(self.suffix.logprob, self.suffix.all)[:, None, None]
            for layer, gradient in enumerate(self.suffix.gradients):
                self._keep(layer, gradient.to(self.exact) * scale)
        self.totals.measured.update(self.rows.index[r] for r in measured)
        if not self._removed_on_the_way():
            self._remove(measured)

    def _integrate(self, measured: list[int]) -> None:
        """Points of one integral are added up as they come, so memory does not grow with their number."""
        n, points = len(self.rows.index), self.config.points()
        layers: Sequence[int | None] = [None] if self.joint else range(self.n_layers)
        variants = []
        if not self.joint:  # at the clean values, all layers share a row
            clean = sum(weight for place, weight in points if place == 1)
            variants = [Variant(None, r, 1.0, clean, clean=True) for r in range(n) if clean]
            points = tuple(point for point in points if point[0] != 1)
        todo = len(variants) + n * len(points)
        variants += [Variant(a, r, p, w) for a in layers for r in range(n) for p, w in points]
        sums: dict[int, Tensor] = {}
        done = dict.fromkeys(range(self.n_layers), 0)
        for chunk in self._chunks(variants):
            run = self._run(chunk, grad=True)
            grads = torch.autograd.grad(run.logprob.sum(), [part.value for part in run.parts])
            self._note_removed(chunk, run, measured)
            weight = torch.tensor([v.weight for v in chunk], dtype=self.exact, device=self.model.device)
            scale = self._chain(run.logprob.detach(), run.which) * weight
            for part, gradient in zip(run.parts, grads, strict=True):
                rows = slice(part.start, part.end)
                size = part.end - part.start
                mix = scale.new_zeros(n, size)
                mix[run.which[rows], torch.arange(size, device=mix.device)] = scale[rows]
                value = gradient[:size].to(self.exact)
                value = (mix @ value.flatten(1)).unflatten(1, value.shape[1:])
                layer = part.layer
                sums[layer] = sums[layer] + value if layer in sums else value
                done[layer] += size
                if done[layer] == todo:
                    self._keep(layer, sums.pop(layer))

    def _removed_on_the_way(self) -> bool:
        """Whether the start of the path is one of its points, so that removing needs no pass of its own."""
        integral = self.config.method == "integrated_gradients"
        return integral and any(place == 0 for place, _ in self.config.points())

    def _note_removed(self, chunk: Sequence[Variant], run: _Run, measured: Sequence[int]) -> None:
        """``T(clean) - T(layer at its baseline)`` of the rows at the start of the path."""
        logprob = run.logprob.detach()
        change = self._target(self.suffix.logprob[run.which], run.which) - self._target(logprob, run.which)
        for variant, value in zip(chunk, change.tolist(), strict=True):
            if variant.place == 0 and variant.row in measured:
                self.totals.removed[self.rows.index[variant.row], variant.layer or 0] = value

    @torch.no_grad()
    def _remove(self, measured: list[int]) -> None:
        layers: Sequence[int | None] = [None] if self.joint else range(self.n_layers)
        for chunk in self._chunks([Variant(a, r, 0.0) for a in layers for r in measured]):
            self._note_removed(chunk, self._run(chunk, grad=False), measured)

    # -- passes ------------------------------------------------------------------------------------------------------

    def _chunks(self, variants: list[Variant]) -> list[list[Variant]]:
        """Passes within the memory budget; where rows cannot join, a large enough pass ends where a layer ends."""
        width = self.suffix.width
        most = max(1, self.config.max_tokens // width)
        chunks: list[list[Variant]] = []
        for variant in variants:
            last = chunks[-1] if chunks else None
            other = last is not None and last[-1].layer != variant.layer and not self.joins
            if last is None or len(last) == most or (other and len(last) * width >= FULL_ENOUGH):
                chunks.append([variant])
            else:
                last.append(variant)
        return chunks

    def _run(self, chunk: Sequence[Variant], grad: bool) -> _Run:
        """One forward pass; clean rows come first, then the rows of each layer together, in the order of layers."""
        device = self.model.device
        which = torch.tensor([v.row for v in chunk], device=device)
        place = torch.tensor([v.place for v in chunk], dtype=self.suffix.clean[0].dtype, device=device)
        firsts = [0 if v.layer is None else self._first_block(v.layer) for v in chunk]
        if not self.joins:
            firsts = [min(firsts)] * len(firsts)
        counts = [sum(first <= block for first in firsts) for block in range(self.model.lm.n_layers)]
        n_clean = sum(v.clean for v in chunk)
        parts, edits = [], []
        for layer, site in enumerate(self.suffix.sites):
            if n_clean:
                edits.append(Edit(site, _seen(parts, layer, n_clean), "attribution"))
            at = [i for i, v in enumerate(chunk) if v.layer == layer or (v.layer is None and not v.clean)]
            if not at:
                continue
            start, end = at[0], at[-1] + 1
            rows, a = which[start:end], place[start:end, None, None]
            clean, base = self.suffix.clean[layer][rows], self.base[layer]
            leaf = (clean * a if base is None else base[rows] + a * (clean - base[rows])).detach()
            leaf.requires_grad_(grad)
            parts.append(_Part(layer, start, end, leaf))
            counted = None if self.all_counted else self.suffix.counted[rows]
            edits.append(Edit(site, _put(leaf, counted, start, end), "attribution"))
        with edit(self.model, *edits):
            logprob = self.suffix.logprobs(which, counts)
        return _Run(parts, logprob, which)

    def _first_block(self, layer: int) -> int:
        """The block that must run for the site of ``layer`` to be reached."""
        found = self.model.sites[self.suffix.sites[layer]]
        if found.layer is not None:
            return found.layer
        return next((i for i, b in enumerate(self.model.lm.blocks) if found.path.startswith(f"{b}.")), 0)

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

    def _keep(self, layer: int, gradient: Float[Tensor, "row pos neuron"]) -> None:
        """Multiply by the shift from the baseline, aggregate over positions and file."""
        clean, base = self.suffix.clean[layer], self.base[layer]
        shift = (clean if base is None else clean - base).to(self.exact)
        value = gradient * shift * self.suffix.counted[..., None]
        prompts = list(self.rows.index)
        self.totals.attributed[prompts, 0 if self.joint else layer] += value.double().sum((1, 2)).cpu()
        self.totals.scores[prompts, layer] = self._aggregate(value).double().cpu()

    def _aggregate(self, value: Float[Tensor, "row pos neuron"]) -> Float[Tensor, "row neuron"]:
        kind, counted = self.config.aggregate, self.rows.counted
        if kind == "last":
            return value[self.suffix.all, self.rows.last]
        if kind == "max":
            best = value.masked_fill(~self.suffix.counted[..., None], -torch.inf).max(1).values
            beyond = counted[:, self.suffix.width :].any(1)  # tokens after the last prediction: exactly zero
            return torch.where(beyond[:, None], best.clamp(min=0), best)
        if kind == "abs_sum":
            return value.abs().sum(1)
        return value.sum(1) if kind == "sum" else value.sum(1) / counted.sum(1, keepdim=True)


def _seen(parts: list[_Part], layer: int, count: int) -> Callable[[Tensor], Tensor]:
    """A change that changes nothing, and remembers the first ``count`` rows as something to differentiate by."""

    def change(x: Tensor) -> Tensor:
        flat = x.flatten(2)
        flat = flat if flat.requires_grad else flat.detach().requires_grad_()
        parts.append(_Part(layer, 0, count, flat))
        return flat.reshape(x.shape)

    return change


def _put(leaf: Tensor, counted: Tensor | None, start: int, end: int) -> Callable[[Tensor], Tensor]:
    """A change that puts ``leaf`` at the counted positions (default: all) of rows ``start … end``."""

    def change(x: Tensor) -> Tensor:
        flat = x.flatten(2)
        new = leaf if counted is None else torch.where(counted[..., None], leaf, flat[start:end])
        if end - start < len(flat):
            new = torch.cat([flat[:start], new, flat[end:]])
        return new.reshape(x.shape)

    return change
