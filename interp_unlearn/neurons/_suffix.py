"""Run many variants of the same prompts, each token and each block no more often than needed.

Two things do not change when the neurons of layer l are scaled from column c on: the tokens before c (attention looks
back only), and the blocks below l. So the tokens before c are run once into a key–value cache that all variants share,
and a pass over variants of layers l and above starts at block l, from the clean residual stream.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp_unlearn._core import DataError
from interp_unlearn.hooked import AnswerBatch, HookedModel, Site, tap
from interp_unlearn.hooked._forward import argument_names
from interp_unlearn.hooked._sites import replace_input
from interp_unlearn.neurons._config import Tokens

WORTH_CACHING = 2  # a shorter prefix is run again with the rest
AGREE = 1e-3  # nats per answer token between a pass with the cache and one without


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradient for any weight, gradients recorded; flags and modes are put back afterwards."""
    flags = [(p, p.requires_grad) for p in module.parameters()]
    modes = [(m, m.training) for m in module.modules()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        module.eval()
        with torch.enable_grad():
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for child, mode in modes:
            child.training = mode


def counted_tokens(encoded: AnswerBatch, tokens: Tokens) -> Bool[Tensor, "batch pos"]:
    """True at the positions whose activations count.

    Raises:
        DataError: If a prompt has no such position.
    """
    batch, answer = encoded.batch, encoded.answer
    columns = torch.arange(answer.shape[1], device=answer.device)[None]
    first = answer.to(torch.int8).argmax(1, keepdim=True)
    if tokens in ("all", "content", "inner"):
        mask = batch.mask(tokens)
    elif tokens == "prompt":
        mask = batch.mask("content") & (columns < first)
    else:
        mask = columns == first - 1
    empty = (~mask.any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise DataError(f"prompt {empty[0]} has no token that counts under tokens={tokens!r}; use tokens='all'")
    return mask


@dataclass(frozen=True)
class Rows:
    """Prompts that start at the same column, from that column on.

    Attributes:
        index: Which of the given prompts they are.
        prefix: Token ids before the start, (row, start).
        tokens: Token ids from the start on, (row, position).
        attended: False at padding.
        answer: True at answer tokens.
        counted: True where activations count.
    """

    index: tuple[int, ...]
    prefix: Int[Tensor, "row start"]
    tokens: Int[Tensor, "row pos"]
    attended: Bool[Tensor, "row pos"]
    answer: Bool[Tensor, "row pos"]
    counted: Bool[Tensor, "row pos"]

    @property
    def last(self) -> Int[Tensor, " row"]:
        """Column of the last prompt token."""
        return self.answer.to(torch.int8).argmax(1) - 1


def split(encoded: AnswerBatch, counted: Bool[Tensor, "batch pos"], max_tokens: int, share: bool) -> Iterator[Rows]:
    """Prompts in groups with one start and little padding, at most ``max_tokens`` tokens each."""
    first = encoded.answer.to(torch.int8).argmax(1) - 1
    starts = torch.minimum(first, counted.to(torch.int8).argmax(1)).tolist()
    lengths = encoded.batch.lengths().tolist()
    if not share:
        starts = [0] * len(starts)
    starts = [s if s >= WORTH_CACHING else 0 for s in starts]
    order = sorted(range(len(lengths)), key=lambda i: (starts[i], lengths[i]))
    group: list[int] = []
    for i in [*order, -1]:
        same = bool(group) and i >= 0 and starts[i] == starts[group[0]]
        if group and not (same and (len(group) + 1) * lengths[i] <= max(max_tokens, lengths[i])):
            yield _rows(encoded, counted, group, starts[group[0]], max(lengths[g] for g in group))
            group = []
        group.append(i)


def _rows(encoded: AnswerBatch, counted: Tensor, group: list[int], start: int, end: int) -> Rows:
    index = torch.tensor(group, device=counted.device)
    batch = encoded.batch
    cut = lambda t: t[index, start:end]  # noqa: E731
    parts = (cut(batch.tokens), cut(batch.attended), cut(encoded.answer), cut(counted))
    return Rows(tuple(group), batch.tokens[index, :start], *parts)


class Suffix:
    """Variants of the prompts of one `Rows`.

    Args:
        model: The opened model, inside `frozen`.
        rows: The prompts.
        sites: Site of each layer whose clean values are kept.

    Attributes:
        clean: Site to its clean values from the start column on, (row, position, neuron).
        logprob: Clean log-probability of each answer, in nats.
    """

    def __init__(self, model: HookedModel, rows: Rows, sites: Sequence[str]) -> None:
        self.model, self.rows = model, rows
        self._names = argument_names(model.module)
        self._cache: Any = None
        with torch.no_grad():
            if rows.prefix.shape[1]:
                output = self._call(rows.prefix, torch.ones_like(rows.prefix, dtype=torch.bool), None, use_cache=True)
                self._cache = output.past_key_values
            columns = rows.answer.any(0).nonzero()[:, 0] - 1
            self._keep = columns
            blocks = [f"blocks.{i}.hook_resid_pre" for i in range(1, model.lm.n_layers)]
            shape = (rows.tokens.shape[0], rows.tokens.shape[1])

            def keep(site: Site, value: Tensor) -> Tensor:
                return site.shape_in(value.detach().clone(), shape).flatten(2)

            with self._watching() as self._tuples, tap(model.sites, [*sites, *blocks], keep=keep, stop=False) as taps:
                self.logprob = taps.run(lambda: self.logprobs(torch.arange(len(rows.index), device=model.device)))
                values: Mapping[str, Tensor] = dict(taps.values)
        self.clean = {site: values[site] for site in sites}
        self._residual = [None, *(values[b] for b in blocks)]

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

    def logprobs(self, which: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Summed log-probability of the answers of the given rows (repeats allowed), under whatever edits are on."""
        rows = self.rows
        tokens, attended, answer = rows.tokens[which], rows.attended[which], rows.answer[which]
        cache = None
        if self._cache is not None:
            cache = copy.deepcopy(self._cache)
            cache.batch_select_indices(which)
            attended = torch.cat([attended.new_ones(len(which), rows.prefix.shape[1]), attended], 1)
        output = self._call(tokens, attended, cache, use_cache=cache is not None, keep=self._keep)
        logits = output.logits if hasattr(output, "logits") else output
        if logits.shape[1] != len(self._keep):
            logits = logits[:, self._keep]
        r, c = answer.nonzero(as_tuple=True)
        picked = logits[r, torch.searchsorted(self._keep, c - 1)]
        picked = picked.to(torch.promote_types(picked.dtype, torch.float32)).log_softmax(-1)
        values = picked.gather(1, tokens[r, c][:, None])[:, 0]
        return values.new_zeros(len(which)).index_add(0, r, values)

    @contextmanager
    def _watching(self) -> Iterator[dict[int, bool]]:
        """See whether each block returns a tuple."""
        seen: dict[int, bool] = {}
        handles = []
        for layer, path in enumerate(self.model.lm.blocks):

            def see(_m: nn.Module, _a: Any, output: Any, layer: int = layer) -> None:
                seen[layer] = isinstance(output, tuple)

            handles.append(self.model.submodule(path).register_forward_hook(see))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def starting_at(self, first: int, which: Int[Tensor, " n"]) -> Iterator[None]:
        """Blocks below ``first`` do nothing; it receives the clean residual stream of the given rows."""
        residual = self._residual[first]
        if residual is None:
            yield
            return
        start = residual[which]
        blocks = [self.model.submodule(path) for path in self.model.lm.blocks[: first + 1]]
        handle = blocks[-1].register_forward_pre_hook(
            lambda _m, args, kwargs: replace_input(args, kwargs, start), with_kwargs=True
        )
        own = [block.__dict__.get("forward") for block in blocks[:-1]]
        try:
            for layer, block in enumerate(blocks[:-1]):
                block.__dict__["forward"] = _doing_nothing(self._tuples[layer])
            yield
        finally:
            handle.remove()
            for block, forward in zip(blocks[:-1], own, strict=True):
                block.__dict__.pop("forward", None)
                if forward is not None:
                    block.__dict__["forward"] = forward


def _doing_nothing(as_tuple: bool) -> Any:
    def forward(*args: Any, **kwargs: Any) -> Any:
        value = args[0] if args else kwargs["hidden_states"]
        return (value,) if as_tuple else value

    return forward


def why_no_cache(model: HookedModel, encoded: AnswerBatch, counted: Bool[Tensor, "batch pos"], site: str) -> str:
    """Why every pass must run the tokens before the first counted one again, or an empty string; tried on a prompt."""
    if not {"use_cache", "past_key_values", "attention_mask"} <= argument_names(model.module):
        return "the module has no key–value cache"
    some = next((r for r in split(encoded, counted, 1, share=True) if r.prefix.shape[1]), None)
    if some is None:
        return ""
    with torch.no_grad():
        cache = getattr(model.module(input_ids=some.prefix, use_cache=True), "past_key_values", None)
    if not hasattr(cache, "batch_select_indices"):
        return "the module returns no key–value cache that can be copied row by row"
    none = torch.zeros_like(some.prefix, dtype=torch.bool)
    whole = Rows(
        some.index,
        some.prefix[:, :0],
        torch.cat([some.prefix, some.tokens], 1),
        torch.cat([~none, some.attended], 1),
        torch.cat([none, some.answer], 1),
        torch.cat([none, some.counted], 1),
    )
    plain, cached = (float(Suffix(model, rows, [site]).logprob[0]) for rows in (whole, some))
    gap = abs(plain - cached) / int(some.answer.sum())
    allowed = AGREE if model.dtype in (torch.float32, torch.float64) else 0.1
    return f"a pass with the key–value cache was off by {gap:.1e} nats per token" if gap > allowed else ""
