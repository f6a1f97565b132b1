"""Attention of many variants of one prompt: the keys before their start are the same for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class SharedPrefix(TorchFunctionMode):
    """While it is entered, attention multiplies all rows at once with the keys and values that they share.

    All keys but those of the new tokens must be the same in every row, and need no gradient. The fused kernel reads
    them once per row, and writes a gradient for each of them, which nobody asked for.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            found = _attend(*args, **kwargs)
            if found is not None:
                return found
        return func(*args, **kwargs)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,  # noqa: ARG001 - read off the shapes
) -> Tensor | None:
    """Rows (row, head, new, width) of queries on keys (row, head, shared + new, width); None if it does not apply."""
    rows, heads, new, width = query.shape
    shared, groups = key.shape[2] - new, key.shape[1]
    if dropout_p or is_causal or shared < 1 or heads % groups or (attn_mask is None and new > 1):
        return None
    fold = (rows, groups, heads // groups * new, width)  # query heads that share a key head, like more queries
    q = query.reshape(fold) * (1 / math.sqrt(width) if scale is None else scale)
    before = q.transpose(0, 1).flatten(1, 2) @ key[0, :, :shared].detach().transpose(1, 2)
    before = before.unflatten(1, (rows, -1)).transpose(0, 1)
    scores = torch.cat([before, q @ key[:, :, shared:].transpose(2, 3)], -1).reshape(rows, heads, new, -1)
    if attn_mask is not None:
        dead = attn_mask if attn_mask.dtype == torch.bool else None
        scores = scores + attn_mask if dead is None else scores.masked_fill(~dead, -torch.inf)
    weights = scores.softmax(-1).to(value.dtype).reshape(*fold[:3], -1)
    out = weights[..., :shared].transpose(0, 1).flatten(1, 2) @ value[0, :, :shared].detach()
    out = out.unflatten(1, (rows, -1)).transpose(0, 1) + weights[..., shared:] @ value[:, :, shared:]
    return out.reshape(rows, heads, new, value.shape[3])
