"""Key–value caches of transformers, copied layer by layer and row by row."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from interp_unlearn.hooked import HookedModel


def usable(cache: Any, model: HookedModel) -> bool:
    """Whether it can be copied layer by layer and row by row."""
    layers = getattr(cache, "layers", None) or ()
    whole = all(isinstance(getattr(layer, "keys", None), Tensor) for layer in layers)
    return len(layers) == model.lm.n_layers and whole and all(hasattr(x, "batch_select_indices") for x in layers)


def _copied(cache: Any) -> Any:
    """A cache that may be changed, with the same tensors."""
    new = copy.copy(cache)
    new.layers = [copy.copy(layer) for layer in cache.layers]
    return new


def cropped(cache: Any, start: int, end: int) -> Any:
    """A cache of the first ``start`` of ``end`` tokens; None where a layer does not keep all of them."""
    if any(getattr(layer, "is_sliding", True) or layer.keys.shape[-2] != end for layer in cache.layers):
        return None
    new = _copied(cache)
    for layer in new.layers:
        layer.keys, layer.values = layer.keys[..., :start, :], layer.values[..., :start, :]
    return new


def selected(cache: Any, which: Tensor, counts: Sequence[int]) -> Any:
    """The cache for a pass: the rows that each layer will run. One prompt is repeated without a copy."""
    new = _copied(cache)
    for layer, count in zip(new.layers, counts, strict=True):
        if not count:
            continue
        if layer.keys.shape[0] == 1:
            layer.keys, layer.values = (t.expand(count, *t.shape[1:]) for t in (layer.keys, layer.values))
        else:
            layer.batch_select_indices(which[:count])
    return new
