"""AdamW as every training here uses it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def adamw(parameters: Iterable[nn.Parameter | torch.Tensor], **settings: Any) -> torch.optim.AdamW:
    """AdamW in its fused form, one pass over memory instead of ten, where all parameters' devices have it."""
    chosen = list(parameters)
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in chosen)
    return torch.optim.AdamW(chosen, fused=fused, **settings)


@torch.no_grad()
def values_before_adamw(optimizer: torch.optim.AdamW, parameter: torch.Tensor, lr: float) -> torch.Tensor:
    """Values of ``parameter`` before the last step of ``optimizer``, computed from its moments, to rounding.

    The inverse of w′ = (1 − lr·λ)·w − lr·m̂ / (√v̂ + ε) with the bias-corrected moments m̂ and v̂ of that step
    (Loshchilov & Hutter 2019, Algorithm 2).

    Args:
        optimizer: Made by `adamw`, with at least one step taken.
        parameter: One that it moves.
        lr: Learning rate of that step.

    Returns:
        A tensor of the parameter's shape and dtype.
    """
    (group,) = (g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    state = optimizer.state[parameter]
    steps, (beta1, beta2) = float(state["step"]), group["betas"]
    wide = torch.promote_types(parameter.dtype, torch.float32)
    mean = state["exp_avg"].to(wide) / (1 - beta1**steps)
    scale = (state["exp_avg_sq"].to(wide) / (1 - beta2**steps)).sqrt_().add_(group["eps"])
    return ((parameter.to(wide) + lr * mean / scale) / (1 - lr * group["weight_decay"])).to(parameter.dtype)
