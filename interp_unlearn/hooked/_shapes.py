"""Which sites a module has, in the order in which one pass comes to them, and how large each is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from interp_unlearn._core import SiteError
from interp_unlearn.hooked._forward import evaluating
from interp_unlearn.hooked._sites import Site, called_modules

if TYPE_CHECKING:
    from interp_unlearn.hooked._model import HookedModel


@torch.no_grad()
def shapes(model: HookedModel, inputs: Any) -> dict[str, tuple[int, ...]]:
    """Module-path sites of one pass in order of execution, with the shapes of their values as the modules see them.

    A part that is not called, or that takes or returns no tensor, is left out; of several calls the first counts.

    Args:
        model: Any opened model.
        inputs: As for `capture`.
    """
    found: dict[str, tuple[int, ...]] = {}

    def note(site: Site, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        try:
            found.setdefault(site.name, tuple(site.read(args, kwargs, output).shape))
        except SiteError:
            return

    def before(path: str, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        note(Site(f"{path}.input", path, "input"), args, kwargs, None)

    def after(path: str, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        note(Site(f"{path}.output", path, "output"), (), {}, output)

    handles = []
    try:
        for path, part in called_modules(model.module):
            handles.append(part.register_forward_pre_hook(partial(before, path), with_kwargs=True))
            handles.append(part.register_forward_hook(partial(after, path)))
        with evaluating(model.module):
            model.forward(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
