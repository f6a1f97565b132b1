"""Change weights for a while: afterwards every bit is as before, whatever happens in between."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from interp_unlearn._core import ConfigError, nearest
from interp_unlearn.hooked import HookedModel


def select_weights(model: HookedModel, which: str) -> dict[str, nn.Parameter]:
    """Parameters that an attack may change, by real name.

    Args:
        model: A language model (any module for ``"all"`` or a regular expression).
        which: ``"all"``, ``"blocks"`` (every block), ``"upper"`` (the upper two thirds of the blocks), or a regular
            expression searched in parameter names.

    Raises:
        ConfigError: If nothing matches or the expression is broken.
    """
    every = {name: p for name, p in model.module.named_parameters() if p.is_floating_point()}
    if which == "all":
        return every
    if which in ("blocks", "upper"):
        n_layers = model.lm.n_layers
        return dict(model.layer_parameters(range(n_layers // 3 if which == "upper" else 0, n_layers)))
    try:
        found = {name: p for name, p in every.items() if re.search(which, name)}
    except re.error as error:
        raise ConfigError(f"trainable {which!r} is not a regular expression ({error})") from error
    if not found:
        raise ConfigError(
            f"trainable {which!r} matches no parameter{nearest(which, ['all', 'blocks', 'upper', *every])}; "
            "use 'upper', 'blocks', 'all' or a regular expression on parameter names"
        )
    return found


@contextmanager
def weights_kept(model: HookedModel, weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Let the body change ``weights``; put them back bit for bit, also after an error or Ctrl-C.

    Inside, only ``weights`` ask for gradients and every submodule is in evaluation mode (no dropout). Afterwards
    gradients, ``requires_grad`` flags and modes are as they were. Only copies of ``weights`` are held, no second model.

    Args:
        model: The model.
        weights: Parameters that the body may change, by name.
    """
    parameters = list(model.module.parameters())
    flags = [(p, p.requires_grad, p.grad) for p in parameters]
    modes = [(part, part.training) for part in model.module.modules()]
    copies = [(p, p.detach().clone()) for p in weights.values()]
    chosen = {id(p) for p in weights.values()}
    try:
        for p in parameters:
            p.grad = None
            p.requires_grad_(id(p) in chosen)
        model.module.eval()
        yield
    finally:
        _copy_back(copies)
        for p, flag, grad in flags:
            p.requires_grad_(flag)
            p.grad = grad
        for part, training in modes:
            part.training = training


@torch.no_grad()
def _copy_back(copies: Iterable[tuple[nn.Parameter, torch.Tensor]]) -> None:
    for parameter, value in copies:
        parameter.copy_(value)
