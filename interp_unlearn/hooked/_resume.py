"""Start a forward pass in the middle: the blocks below do nothing, one block receives a given residual stream.

What is changed inside block ``l`` leaves the blocks below it as they were, so many passes over the same tokens that
change only block ``l`` or later ones need not run them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from interp_unlearn.hooked._model import HookedModel
from interp_unlearn.hooked._sites import replace_input


@contextmanager
def watch_tuples(model: HookedModel) -> Iterator[dict[int, bool]]:
    """Whether each block returns a tuple, by block index, filled by the passes inside the block."""
    seen: dict[int, bool] = {}
    handles = []
    for layer, path in enumerate(model.lm.blocks):

        def see(_m: nn.Module, _a: Any, output: Any, layer: int = layer) -> None:
            seen[layer] = isinstance(output, tuple)

        handles.append(model.submodule(path).register_forward_hook(see))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def resumed(model: HookedModel, layer: int, hidden: Tensor, tuples: Mapping[int, bool]) -> Iterator[None]:
    """Passes inside the block start at block ``layer``, which receives ``hidden`` whatever comes from below.

    Args:
        model: A language model.
        layer: The first block that runs.
        hidden: Its input as the module sees it, e.g. captured at ``blocks.<layer>.hook_resid_pre``.
        tuples: Result of `watch_tuples`.
    """
    blocks = [model.submodule(path) for path in model.lm.blocks[: layer + 1]]
    handle = blocks[-1].register_forward_pre_hook(
        lambda _m, args, kwargs: replace_input(args, kwargs, hidden), with_kwargs=True
    )
    own = [block.__dict__.get("forward") for block in blocks[:-1]]
    try:
        for below, block in enumerate(blocks[:-1]):
            block.__dict__["forward"] = _doing_nothing(tuples[below])
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
