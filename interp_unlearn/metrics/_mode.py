"""Measure with dropout off, and leave the module as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager

from interp_unlearn.hooked import HookedModel


@contextmanager
def evaluation_mode(model: HookedModel) -> Iterator[None]:
    """Put every submodule in evaluation mode inside the block; afterwards each has its own mode again."""
    training = [part for part in model.module.modules() if part.training]
    model.module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
