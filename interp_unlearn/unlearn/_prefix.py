"""Skip the frozen blocks below the first trained one.

When a loss ends at layer l and only blocks from f on are trained, the residual stream that enters block f is the same
in every step.
It is computed once per prompt; afterwards blocks 0 … f-1 are passed through without work and block f receives the
cached values. With blocks 8–12 of 30 trained and the loss at 12, a step costs 5 blocks instead of 13.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from interp_unlearn.hooked import Batch, HookedModel, tap
from interp_unlearn.hooked._sites import replace_input


def first_trained_block(model: HookedModel, trained: Mapping[str, nn.Parameter]) -> int:
    """Index of the lowest block that holds a trained parameter; 0 if parameters outside the blocks are trained.

    Parameters above the blocks (final norm, head) do not count, unless they are tied to the embedding.
    """
    shape = model.lm
    prefixes = [f"{path}." for path in shape.blocks]
    above = tuple(f"{path}." for path in (shape.final_norm, shape.unembed) if path)
    lowest = shape.n_layers
    for name in trained:
        layer = next((i for i, prefix in enumerate(prefixes) if name.startswith(prefix)), None)
        if layer is not None:
            lowest = min(lowest, layer)
        elif not name.startswith(above):
            return 0
    return lowest


class Prefix:
    """Runs a model from its first trained block on cached inputs.

    Args:
        model: The opened model.
        trained: Parameters that move.
        sites: Where the loss reads; blocks from the lowest of them on always run.
    """

    def __init__(self, model: HookedModel, trained: Mapping[str, nn.Parameter], sites: Sequence[str]) -> None:
        self.model = model
        lowest_site = min(-1 if layer is None else layer for layer in (model.sites[site].layer for site in sites))
        self.first = max(0, min(first_trained_block(model, trained), lowest_site))
        self._returns_tuple: dict[int, bool] = {}

    @property
    def site(self) -> str | None:
        """The site whose original values are cached per prompt, or None when there is nothing to skip."""
        return f"blocks.{self.first}.hook_resid_pre" if self.first > 0 else None

    @contextmanager
    def skipping(self, cached: Sequence[Tensor], batch: Batch) -> Iterator[None]:
        """Pass through the blocks below; feed ``cached`` rows (unpadded) into the first trained block."""
        if self.first == 0:
            yield
            return
        start = cached[0].new_zeros((*batch.tokens.shape, cached[0].shape[-1]))
        for row, value in enumerate(cached):
            start[row, : len(value)] = value
        blocks = [self.model.submodule(path) for path in self.model.lm.blocks[: self.first + 1]]
        handle = blocks[-1].register_forward_pre_hook(
            lambda _m, args, kwargs: replace_input(args, kwargs, start), with_kwargs=True
        )
        replaced = [(block, block.__dict__.get("forward")) for block in blocks[:-1]]  # accelerate puts its own there
        for layer, (block, _) in enumerate(replaced):
            block.__dict__["forward"] = self._pass_through(layer)
        try:
            yield
        finally:
            handle.remove()
            for block, own in replaced:
                del block.__dict__["forward"]
                if own is not None:
                    block.__dict__["forward"] = own

    def _pass_through(self, layer: int) -> Any:
        as_tuple = self._returns_tuple[layer]

        def forward(*args: Any, **kwargs: Any) -> Any:
            value = args[0] if args else kwargs["hidden_states"]
            return (value,) if as_tuple else value

        return forward

    @torch.no_grad()
    def learn(self, batch: Batch) -> None:
        """See on one batch whether blocks return tensors or tuples."""
        handles = []
        for layer, path in enumerate(self.model.lm.blocks[: self.first]):

            def see(_m: nn.Module, _a: Any, output: Any, layer: int = layer) -> None:
                self._returns_tuple[layer] = isinstance(output, tuple)

            handles.append(self.model.submodule(path).register_forward_hook(see))
        try:
            self.model.forward(batch)
        finally:
            for handle in handles:
                handle.remove()

    def hidden(self, batch: Batch, sites: Sequence[str], cached: Sequence[Tensor]) -> dict[str, Tensor]:
        """Values at ``sites`` with graph, from the cached values of the batch's rows; ends at the last site."""
        with self.skipping(cached, batch), tap(self.model.sites, sites) as taps:
            taps.run(lambda: self.model.forward(batch))
            return {site: taps[site] for site in sites}
