"""What stands between the last block and the logits: a norm, a matrix, a factor, a soft cap, or more than these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 16  # allowed error of the logits, in machine epsilons of their length
LINEAR = 0.9  # soft-capped logits are compared below this share of the cap, where the tanh can be undone


def soft_cap(module: nn.Module) -> float | None:
    """The config's soft cap on logits, or None."""
    config: Any = getattr(module, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(config, "final_logit_softcapping", None)


def finish_logits(raw: Tensor, scale: float, cap: float | None) -> Tensor:
    """Logits from what the output head's matrix gives."""
    logits = raw if scale == 1 else raw * scale
    return logits if cap is None else cap * (logits / cap).tanh()


def logit_scale(module: nn.Module, last: Tensor, logits: Tensor, norm: str | None, head: str) -> float | None:
    """The factor c of ``logits = c · head(norm(last))``, by least squares; None where no factor fits.

    Args:
        module: The model, in evaluation mode.
        last: Output of the last block.
        logits: What the model made of it.
        norm: Module path of the final norm, or None.
        head: Module path of the output head.

    Returns:
        Exactly 1 where the factor is 1 within rounding, and where values are not finite and nothing can be said.
    """
    read: Callable[[Tensor], Tensor] = module.get_submodule(head)
    try:
        raw = read(last if norm is None else module.get_submodule(norm)(last))
    except (RuntimeError, TypeError):  # a projection in between, or a head that wants more than one tensor
        return None
    if not isinstance(raw, Tensor) or raw.shape != logits.shape:
        return None
    tolerance = TOLERANCE * max(torch.finfo(t.dtype).eps for t in (last, logits))
    found, given = logits.double().flatten(), raw.double().flatten()
    cap = soft_cap(module)
    if cap is not None:
        open_part = found.abs() < LINEAR * cap
        found, given = cap * (found[open_part] / cap).atanh(), given[open_part]
    if not bool(found.isfinite().all() and given.isfinite().all()) or not bool(given.any()):
        return 1.0
    scale = float(found @ given / (given @ given))
    if abs(scale - 1) <= tolerance:
        scale = 1.0
    fits = float((found - scale * given).norm()) <= tolerance * float(found.norm())
    return scale if fits and scale != 0 else None
