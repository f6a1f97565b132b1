"""Sites: named places in a model, each the input or output of a real module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from interp_unlearn._core import SiteError, nearest


@dataclass(frozen=True)
class Site:
    """A place in a model.

    Attributes:
        name: TransformerLens name, or ``"<module path>.input"`` / ``".output"``.
        path: Path of the real module (empty for the root).
        kind: Whether the value is what the module receives or what it returns.
        layer: Block index for sites inside a block, else None.
        heads: Split the last axis into (heads, d_head) when set (``attn.hook_z``).
    """

    name: str
    path: str
    kind: Literal["input", "output"]
    layer: int | None = None
    heads: int | None = None

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor:
        """The tensor at this site, from what a hook receives."""
        value = _first_input(args, kwargs) if self.kind == "input" else _first_output(output)
        if not isinstance(value, Tensor):
            raise SiteError(f"site {self.name!r}: its {self.kind} is {type(value).__name__}, not a tensor")
        return value

    def shape_in(self, value: Tensor, batch: int | None) -> Tensor:
        """Undo a flattened (batch · position) axis and split heads, as a view."""
        if batch is not None and value.dim() == 2 and value.shape[0] != batch and value.shape[0] % batch == 0:
            value = value.unflatten(0, (batch, value.shape[0] // batch))
        return value.unflatten(-1, (self.heads, -1)) if self.heads else value


def _first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args:
        return args[0]
    for key in ("hidden_states", "input", "x", "inputs", "query"):
        if key in kwargs:
            return kwargs[key]
    return next((v for v in kwargs.values() if isinstance(v, Tensor) and v.is_floating_point()), None)


def _first_output(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)):
        return output[0] if output else None
    if hasattr(output, "logits"):
        return output.logits
    if hasattr(output, "last_hidden_state"):
        return output.last_hidden_state
    return output


def replace_input(args: tuple[Any, ...], kwargs: dict[str, Any], value: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a module call with its first tensor replaced."""
    if args:
        return (value, *args[1:]), kwargs
    for key in ("hidden_states", "input", "x", "inputs", "query"):
        if key in kwargs:
            return args, {**kwargs, key: value}
    raise SiteError("cannot replace the input of a module that takes no tensor; edit its output instead")


def replace_output(output: Any, value: Tensor) -> Any:
    """A module's return value with its first tensor replaced."""
    if isinstance(output, Tensor):
        return value
    if isinstance(output, tuple):
        return (value, *output[1:])
    if isinstance(output, list):
        return [value, *output[1:]]
    for key in ("logits", "last_hidden_state"):
        if hasattr(output, key):
            output[key] = value
            return output
    raise SiteError(f"cannot replace the output of type {type(output).__name__}")


class SiteMap(Mapping[str, Site]):
    """All sites of one opened model; unknown names raise an error that shows the nearest ones."""

    def __init__(self, module: nn.Module, named: Mapping[str, Site]) -> None:
        self._module = module
        self._named = dict(named)
        self._modules = dict(module.named_modules(remove_duplicate=False))

    def __getitem__(self, name: str) -> Site:
        if name in self._named:
            return self._named[name]
        path, _, kind = name.rpartition(".")
        if kind in ("input", "output") and (path in self._modules or name in ("input", "output")):
            return Site(name, path, kind)
        known = [*self._named, *(f"{p}.output" for p in self._modules if p)]
        where = "TransformerLens names or '<module path>.input' / '.output'" if self._named else "'<module path>.output'"
        raise SiteError(f"unknown site {name!r}{nearest(name, known)} (sites are {where})")

    def __contains__(self, name: object) -> bool:
        try:
            self[str(name)]
        except SiteError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    def module_of(self, site: Site) -> nn.Module:
        """The real module that a site reads."""
        return self._modules[site.path]

    def at_layer(self, layer: int) -> list[str]:
        """Names of the sites inside block ``layer``."""
        return [name for name, site in self._named.items() if site.layer == layer]


def as_float32(value: Tensor) -> Tensor:
    """Half-precision activations as float32; other dtypes unchanged."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
