"""The weights that a module would have if it were made now."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from interp_unlearn._core import ModelError, generator


@torch.no_grad()
def fresh_copy(module: nn.Module, seed: int) -> nn.Module:
    """A copy with the weights, and batch-norm statistics, that every layer's own initialisation makes, by seed.

    Raises:
        ModelError: If a layer with parameters of its own cannot be initialised again.
    """
    twin = copy.deepcopy(module)
    done: set[str] = set()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator(seed, "fresh weights"))))
        for name, child in twin.named_modules():
            reset = getattr(child, "reset_parameters", None)
            if callable(reset) and not any(name.startswith(f"{parent}.") for parent in done):
                reset()
                done.add(name)
    left = [n for n, _ in twin.named_parameters() if not any(not path or n.startswith(f"{path}.") for path in done)]
    if left:
        raise ModelError(f"{left[0]} cannot be initialised anew: its module has no reset_parameters(); give it one")
    return twin


def fresh_weights(module: nn.Module, seed: int) -> dict[str, Tensor]:
    """The parameters of a `fresh_copy`, by name; the module is left alone.

    Raises:
        ModelError: As `fresh_copy`.
    """
    return {name: p.detach() for name, p in fresh_copy(module, seed).named_parameters()}
