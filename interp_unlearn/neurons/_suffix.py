"""Run many variants of the same prompts, each token and each block no more often than needed.

Three things do not change when the neurons of layer l are scaled from column c on: the tokens before c (attention
looks back only), the blocks below l, and whatever follows the last answer token. So the tokens before c are run once
into a key–value cache that all variants share, nothing is run after the last prediction, and a variant of layer l
*joins* a pass at block l, from the clean residual stream: below it, the pass has fewer rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp_unlearn.hooked import Edit, HookedModel, Site, edit, tap
from interp_unlearn.hooked._forward import argument_names
from interp_unlearn.hooked._sites import replace_input
from interp_unlearn.neurons._attention import SharedPrefix
from interp_unlearn.neurons._rows import Rows

Counts = Sequence[int]
"""How many rows, from the first, each block runs: never fewer than the block below it."""


class Suffix:
    """Variants of the prompts of one `Rows`.

    Args:
        model: The opened model, inside `frozen`.
        rows: The prompts.
        sites: Site of each layer, whose clean values are kept.
        gradients: Find the gradients at the clean values too, in the pass that finds these.

    Attributes:
        clean: Clean values of each layer from the start column on, (row, position, neuron).
        logprob: Clean log-probability of each answer, in nats.
        gradients: Gradient of ``logprob`` by each of ``clean``, if it was asked for.
    """

    def __init__(self, model: HookedModel, rows: Rows, sites: Sequence[str], gradients: bool = False) -> None:
        self.model, self.rows, self.sites = model, rows, tuple(sites)
        self.width = rows.width
        self.counted = rows.counted[:, : self.width]
        self._names = argument_names(model.module)
        self._columns = rows.answer.any(0).nonzero()[:, 0] - 1
        self._residual: list[Tensor | None] = []
        self._tuples: dict[int, bool] = {}
        self._cache: Any = None
        self._flattens = False  # whether a site sees rows and positions as one axis
        self.clean: list[Tensor] = []
        self.gradients: list[Tensor] = []
        start = rows.prefix.shape[1]
        if gradients:
            self._cache = self._cached_prefix() if start else None
            self.logprob = self._read(lambda: self.logprobs(self.all), start=0, live=True)
            return
        with torch.no_grad():
            whole, caches = rows.whole(), []

            def clean() -> Tensor:
                tokens, attended = (t[:, : start + self.width] for t in (whole.tokens, whole.attended))
                output = self._call(tokens, attended, None, use_cache=start > 0, keep=self._columns + start)
                caches.append(getattr(output, "past_key_values", None))
                return self._answers(output, self._columns + start, self.all)

            self.logprob = self._read(clean, start, live=False)
            if start and usable(caches[0], model):
                self._cache = _cropped(caches[0], start, start + self.width) or self._cached_prefix()

    @torch.no_grad()
    def trial(self) -> tuple[str, bool]:
        """Whether a prompt gives the clean result when it is run as variants are.

        Returns:
            Why the tokens before the start must be run again with the rest, or an empty string; and whether rows may
            join a pass at their own block.
        """
        if self.rows.prefix.shape[1] and self._cache is None:
            return "the module returns no key–value cache that can be copied layer by layer and row by row", False
        twice, layers = self.all[:1].expand(2), self.model.lm.n_layers
        late = [1] * (layers // 2) + [2] * (layers - layers // 2)
        if not self._flattens:
            try:
                if self._off(self.logprobs(twice, late)) <= self.rounding:
                    return "", True
            except (IndexError, RuntimeError, TypeError, ValueError):
                pass  # a block that counts rows for itself: all rows run every block
        gap = self._off(self.logprobs(twice)) if self.rows.prefix.shape[1] else 0.0
        return (
            f"a pass with the key–value cache was off by {gap:.1e} nats per token" if gap > self.rounding else ""
        ), False

    def _off(self, logprob: Tensor) -> float:
        """Largest distance from the clean log-probability of the first prompt, in nats per token."""
        gap = (logprob - self.logprob[0]).abs().max() / self.rows.answer[0].sum()
        return float(gap.nan_to_num(torch.inf))

    @property
    def rounding(self) -> float:
        """Nats per answer token by which two ways to compute the same may differ."""
        return 1e-3 if self.model.dtype in (torch.float32, torch.float64) else 0.1

    @property
    def all(self) -> Int[Tensor, " row"]:
        """Every prompt once."""
        return torch.arange(len(self.rows.index), device=self.model.device)

    # -- passes ------------------------------------------------------------------------------------------------------

    def _call(self, tokens: Tensor, attended: Tensor, cache: Any, use_cache: bool, keep: Tensor | None = None) -> Any:
        kwargs: dict[str, Any] = {}
        if "attention_mask" in self._names:
            kwargs["attention_mask"] = attended.long()
        if "use_cache" in self._names:
            kwargs["use_cache"] = use_cache
        if cache is not None:
            kwargs["past_key_values"] = cache
        if "logits_to_keep" in self._names:
            kwargs["logits_to_keep"] = 1 if keep is None else keep
        if "input_ids" in self._names:
            return self.model.module(input_ids=tokens, **kwargs)
        return self.model.module(tokens, **kwargs)

    def _answers(self, output: Any, columns: Tensor, which: Tensor) -> Float[Tensor, " n"]:
        """Summed log-probability of the answers, from a pass that predicts them at ``columns`` of what was run."""
        tokens, answer = self.rows.tokens[which], self.rows.answer[which]
        logits = output.logits if hasattr(output, "logits") else output
        if logits.shape[1] != len(columns):
            logits = logits[:, columns]
        r, c = answer.nonzero(as_tuple=True)
        if len(r) == logits.shape[0] * logits.shape[1]:
            picked = logits.flatten(0, 1)
        else:
            picked = logits[r, torch.searchsorted(self._columns, c - 1)]
        picked = picked.to(torch.promote_types(picked.dtype, torch.float32))
        values: Tensor = _Logprob.apply(picked, tokens[r, c])  # type: ignore[assignment]
        return values.new_zeros(len(which)).index_add(0, r, values)

    def _read(self, run: Callable[[], Tensor], start: int, live: bool) -> Tensor:
        """Keep what later passes start from, and the values (and gradients) of the sites, of one clean pass."""
        layers = self.model.lm.n_layers
        blocks = [f"blocks.{i}.hook_resid_pre" for i in range(1, layers)]
        shape = (len(self.rows.index), start + self.width)
        leaves: list[Tensor] = []

        def keep(site: Site, value: Tensor) -> Tensor:
            self._flattens |= value.dim() == 2
            return site.shape_in(value.detach().clone(), shape).flatten(2)[:, start:]

        def leaf(x: Tensor) -> Tensor:
            x = x if x.requires_grad else x.detach().requires_grad_()
            leaves.append(x)
            return x

        edits = [Edit(site, leaf, "attribution") for site in self.sites] if live else []
        wanted = blocks if live else [*self.sites, *blocks]
        values: Mapping[str, Tensor] = {}
        with self._watching(), edit(self.model, *edits):
            if wanted:
                with tap(self.model.sites, wanted, keep=keep, stop=False) as taps:
                    logprob = taps.run(run)
                values = dict(taps.values)
            else:  # one block, whose input is the embedding
                logprob = run()
        self._residual = [None, *(values[b] for b in blocks)]
        if not live:
            self.clean = [values[site] for site in self.sites]
            return logprob
        self.gradients = [g.flatten(2) for g in torch.autograd.grad(logprob.sum(), leaves)]
        self.clean = [x.detach().flatten(2) for x in leaves]
        return logprob.detach()

    def logprobs(self, which: Int[Tensor, " n"], counts: Counts | None = None) -> Float[Tensor, " n"]:
        """Summed log-probability of the answers, under whatever edits are on.

        Args:
            which: The prompt of each row; repeats are allowed.
            counts: How many of the rows each block runs; the others join, with the clean residual stream, at the
                first block that counts them. Default: all rows, every block.
        """
        rows, n = self.rows, len(which)
        counts = [n] * self.model.lm.n_layers if counts is None else counts
        tokens, attended = rows.tokens[which, : self.width], rows.attended[which, : self.width]
        cache = None
        if self._cache is not None:
            cache = _selected(self._cache, which, counts)
            attended = torch.cat([attended.new_ones(n, rows.prefix.shape[1]), attended], 1)
        one = cache is not None and len(rows.index) == 1
        with self._joining(which, counts), SharedPrefix() if one else nullcontext():
            output = self._call(tokens, attended, cache, use_cache=cache is not None, keep=self._columns)
        return self._answers(output, self._columns, which)

    # -- the tokens before the start -----------------------------------------------------------------------------------

    @torch.no_grad()
    def _cached_prefix(self) -> Any:
        prefix = self.rows.prefix
        output = self._call(prefix, torch.ones_like(prefix, dtype=torch.bool), None, use_cache=True)
        return output.past_key_values

    # -- the blocks below ----------------------------------------------------------------------------------------------

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """See whether each block returns a tuple."""
        handles = []
        for layer, path in enumerate(self.model.lm.blocks):

            def see(_m: nn.Module, _a: Any, output: Any, layer: int = layer) -> None:
                self._tuples[layer] = isinstance(output, tuple)

            handles.append(self.model.submodule(path).register_forward_hook(see))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _joining(self, which: Tensor, counts: Counts) -> Iterator[None]:
        """Each block runs its first rows only: those of the block below, and those that join it."""
        total, handles = len(which), []
        quiet: list[tuple[nn.Module, Any]] = []
        try:
            before = 0
            for layer, (path, count) in enumerate(zip(self.model.lm.blocks, counts, strict=True)):
                block, residual = self.model.submodule(path), self._residual[layer] if self._residual else None
                if not count:
                    quiet.append((block, block.__dict__.get("forward")))
                    block.__dict__["forward"] = _doing_nothing(self._tuples[layer])
                elif count < total or (before < count and residual is not None):
                    new = None if residual is None or before == count else residual[which[before:count]]
                    handles.append(block.register_forward_pre_hook(_fewer(total, before, new, count), with_kwargs=True))
                before = count
            yield
        finally:
            for handle in handles:
                handle.remove()
            for block, forward in quiet:
                block.__dict__.pop("forward", None)
                if forward is not None:
                    block.__dict__["forward"] = forward


class _Logprob(torch.autograd.Function):
    """Log-softmax at one index per row, with one tensor of the size of the logits instead of three."""

    @staticmethod
    def forward(ctx: Any, logits: Float[Tensor, "n vocab"], ids: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        ctx.logprobs, ctx.ids = logits.log_softmax(-1), ids
        return ctx.logprobs.gather(1, ids[:, None])[:, 0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        d = ctx.logprobs.exp_().mul_(-grad[:, None])
        ctx.logprobs = None
        return d.scatter_add_(1, ctx.ids[:, None], grad[:, None]), None


def _fewer(total: int, before: int, new: Tensor | None, count: int) -> Callable[..., Any]:
    """A hook that gives a block its first ``count`` rows: ``before`` of the block below, and ``new`` ones."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[:count] if value.dim() > 1 and value.shape[0] == total else value
        return type(value)(map(cut, value)) if type(value) in (tuple, list) else value

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        rows = hidden[:count] if new is None else torch.cat([hidden[:before], new]) if before else new
        if count < total:
            args, kwargs = tuple(map(cut, args)), {name: cut(value) for name, value in kwargs.items()}
        return replace_input(args, kwargs, rows)

    return hook


def _doing_nothing(as_tuple: bool) -> Any:
    def forward(*args: Any, **kwargs: Any) -> Any:
        value = args[0] if args else kwargs["hidden_states"]
        return (value,) if as_tuple else value

    return forward


def usable(cache: Any, model: HookedModel) -> bool:
    """Whether it can be copied layer by layer and row by row."""
    layers = getattr(cache, "layers", None) or ()
    whole = all(isinstance(getattr(layer, "keys", None), Tensor) for layer in layers)
    return len(layers) == model.lm.n_layers and whole and all(hasattr(x, "batch_select_indices") for x in layers)


def _cropped(cache: Any, start: int, end: int) -> Any:
    """A cache of the first ``start`` of ``end`` tokens; None where a layer does not keep all of them."""
    if any(getattr(layer, "is_sliding", True) or layer.keys.shape[-2] != end for layer in cache.layers):
        return None
    new = copy.copy(cache)
    new.layers = [copy.copy(layer) for layer in layers]
    for layer in new.layers:
        layer.keys, layer.values = layer.keys[..., :start, :], layer.values[..., :start, :]
    return new


def _selected(cache: Any, which: Tensor, counts: Counts) -> Any:
    """The cache for a pass: the rows that each layer will run. One prompt is repeated without a copy."""
    new = copy.copy(cache)
    new.layers = [copy.copy(layer) for layer in cache.layers]
    for layer, count in zip(new.layers, counts, strict=True):
        if not count:
            continue
        if layer.keys.shape[0] == 1:
            layer.keys, layer.values = (t.expand(count, *t.shape[1:]) for t in (layer.keys, layer.values))
        else:
            layer.batch_select_indices(which[:count])
    return new
