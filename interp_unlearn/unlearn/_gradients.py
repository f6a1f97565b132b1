"""Gradients of a step: added up in place, and their norm."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def accumulate(loss: Tensor, trained: Mapping[str, nn.Parameter], into: dict[str, Tensor]) -> None:
    """Add the gradients of ``loss`` to ``into``, in place; what it does not depend on has no entry."""
    for name, parameter in trained.items():
        parameter.grad = into.get(name)
    loss.backward(inputs=list(trained.values()))
    for name, parameter in trained.items():
        if parameter.grad is not None:
            into[name], parameter.grad = parameter.grad, None


def square_sum(gradient: Tensor) -> float:
    """Sum of squares, in float32 at least; summed over tensors in float64 by the caller."""
    return float(torch.linalg.vector_norm(gradient, dtype=torch.promote_types(gradient.dtype, torch.float32))) ** 2
