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
