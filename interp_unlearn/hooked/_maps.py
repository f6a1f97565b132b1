"""Blocks and head of a network that reads images, found by what its modules give in one forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_unlearn._core import ModelError
from interp_unlearn.hooked._forward import evaluating
from interp_unlearn.hooked._model import HookedModel

LEAST_BLOCKS = 3


@dataclass(frozen=True)
class ImageShape:
    """Where the parts of an image classifier are.

    Attributes:
        blocks: Module paths of the blocks in order of depth; each gives maps (batch, channel, height, width) or tokens
            (batch, token, width).
        head: Module path of the last linear layer, whose input is what the classes are read from.
        n_classes: Number of outputs.
    """

    blocks: tuple[str, ...]
    head: str
    n_classes: int

    @property
    def sites(self) -> tuple[str, ...]:
        """The output of every block, then the input of the head."""
        return (*(f"{path}.output" for path in self.blocks), f"{self.head}.input")


def class_logits(output: object) -> Tensor:
    """The logits in what an image classifier returns: a tensor, or an object that has ``logits``.

    Raises:
        ModelError: If there are none of shape (batch, class).
    """
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(found, Tensor) or found.dim() != 2:
        raise ModelError(
            f"the model returns {type(output).__name__} without logits of shape (batch, class); an image classifier "
            "is needed"
        )
    return found


@torch.no_grad()
def image_shape(model: HookedModel, images: Float[Tensor, "batch 3 h w"]) -> ImageShape:
    """Find the blocks and the head of an image classifier; modules are read, not guessed from names.

    Args:
        model: Any module that takes images and returns logits.
        images: One or more inputs.

    Raises:
        ModelError: If it returns no logits, or has no linear head or no block.
    """
    maps: dict[str, tuple[int, ...]] = {}
    linear: list[str] = []

    def look(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            if isinstance(module, nn.Linear):
                linear.append(name)
            elif isinstance(output, Tensor) and output.dim() in (3, 4) and next(module.children(), None) is not None:
                maps.setdefault(name, tuple(output.shape))

        return module.register_forward_hook(hook)

    handles = [look(name, module) for name, module in model.module.named_modules() if name]
    try:
        with evaluating(model.module):
            logits = class_logits(model.forward(images))
    finally:
        for handle in handles:
            handle.remove()
    heads = [path for path in linear if model.submodule(path).out_features == logits.shape[1]]
    blocks = _blocks(model.module, list(maps))
    if not heads or not blocks:
        raise ModelError(
            f"{model.name} has no {'block that gives maps' if heads else 'linear layer that gives the classes'}; "
            "image evidence needs both"
        )
    return ImageShape(tuple(blocks), heads[-1], int(logits.shape[1]))


def _blocks(module: nn.Module, maps: list[str]) -> list[str]:
    """The outermost modules that give maps; containers are opened until there are enough blocks."""
    found = [name for name in maps if not any(name.startswith(f"{other}.") for other in maps)]
    while len(found) < LEAST_BLOCKS:
        inside = {name: list(_inner(name, maps)) for name in found}
        widest = max(found, key=lambda name: len(inside[name]), default=None)
        if widest is None or len(inside[widest]) < 2:
            break
        at = found.index(widest)
        found[at : at + 1] = inside[widest]
    order = {name: i for i, (name, _) in enumerate(module.named_modules())}
    return sorted(found, key=lambda name: order[name])


def _inner(name: str, maps: list[str]) -> Iterator[str]:
    """The outermost modules with maps inside one."""
    inside = [other for other in maps if other.startswith(f"{name}.")]
    return (one for one in inside if not any(one.startswith(f"{other}.") for other in inside))


def pooled(value: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch d"]:
    """One vector per image: the mean over the places of a map, or over tokens; a vector stays as it is."""
    return value.mean((2, 3)) if value.dim() == 4 else value.mean(1) if value.dim() == 3 else value
