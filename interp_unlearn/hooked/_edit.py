"""`edit`: patch, steer or ablate activations while a `with` block lasts; always undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import SiteError
from interp_unlearn.hooked._model import HookedModel
from interp_unlearn.hooked._sites import replace_input, replace_output

Columns = int | Sequence[int] | Int[Tensor, " batch"] | Int[Tensor, "batch p"] | None


@dataclass(frozen=True)
class Edit:
    """A change at one site.

    Attributes:
        site: Where.
        change: Maps the activation (batch, position, features) to its replacement of the same shape.
        what: A few words for reports and error messages.
    """

    site: str
    change: Callable[[Tensor], Tensor]
    what: str = "edit"


def _at(value: Tensor, columns: Columns) -> tuple[Any, ...]:
    """Index of the chosen columns in a (batch, position, …) tensor."""
    if columns is None:
        return (slice(None), slice(None))
    if isinstance(columns, Tensor):
        columns = columns[:, None] if columns.dim() == 1 else columns
        return (torch.arange(value.shape[0], device=value.device)[:, None], columns.to(value.device))
    return (slice(None), [columns] if isinstance(columns, int) else list(columns))


def patch(site: str, values: Tensor, positions: Columns = None) -> Edit:
    """Replace the activation by ``values`` (broadcast to (batch, p, features)) at the given columns."""

    def change(x: Tensor) -> Tensor:
        out = x.clone()
        where = _at(out, positions)
        out[where] = values.to(x.device, x.dtype).expand_as(out[where])
        return out

    return Edit(site, change, "patch")


def steer(site: str, direction: Float[Tensor, " d"], coefficient: float = 1.0, positions: Columns = None) -> Edit:
    """Add ``coefficient * direction`` at the given columns."""

    def change(x: Tensor) -> Tensor:
        out = x.clone()
        where = _at(out, positions)
        out[where] = out[where] + coefficient * direction.to(x.device, x.dtype)
        return out

    return Edit(site, change, "steer")


def ablate(
    site: str,
    *,
    units: Sequence[int] | None = None,
    direction: Float[Tensor, " d"] | None = None,
    value: float | Float[Tensor, " d"] = 0.0,
    positions: Columns = None,
) -> Edit:
    """Set units (all by default) to ``value``, or project a direction out.

    Args:
        site: Where.
        units: Indices on the last axis.
        direction: Remove the component along this vector instead.
        value: What units are set to: 0, another number, or a (features,) tensor such as a mean.
        positions: Columns; default all.
    """
    if units is not None and direction is not None:
        raise SiteError("ablate takes units or a direction, not both")

    def change(x: Tensor) -> Tensor:
        out = x.clone()
        where = _at(out, positions)
        part = out[where]
        if direction is not None:
            unit = direction.to(x.device, x.dtype)
            unit = unit / unit.norm()
            part = part - (part @ unit)[..., None] * unit
        else:
            fill = value.to(x.device, x.dtype) if isinstance(value, Tensor) else torch.tensor(value, device=x.device, dtype=x.dtype)
            index = list(units) if units is not None else slice(None)
            part = part.clone()
            part[..., index] = fill[index] if fill.dim() else fill
        out[where] = part
        return out

    return Edit(site, change, "ablate")


@contextmanager
def edit(model: HookedModel, *edits: Edit) -> Iterator[HookedModel]:
    """Apply ``edits`` to every forward pass inside the block.

    Edits at one site compose in the order given. `capture` inside the block sees the edited values.

    Example:
        >>> with edit(model, steer("blocks.12.hook_resid_post", direction, 8.0)):
        ...     logits = model("The capital of France is")

    Raises:
        SiteError: If a site is unknown or a change alters the shape.
    """
    handles = []

    def checked(item: Edit, x: Tensor) -> Tensor:
        site = model.sites[item.site]
        shaped = site.shape_in(x, None)
        out = item.change(shaped)
        if out.shape != shaped.shape:
            raise SiteError(f"{item.what} at {item.site!r} turned shape {tuple(shaped.shape)} into {tuple(out.shape)}")
        return out.reshape(x.shape)

    def before(item: Edit) -> Callable[..., Any]:
        site = model.sites[item.site]
        return lambda _m, args, kwargs: replace_input(args, kwargs, checked(item, site.read(args, kwargs, None)))

    def after(item: Edit) -> Callable[..., Any]:
        site = model.sites[item.site]
        return lambda _m, _args, output: replace_output(output, checked(item, site.read((), {}, output)))

    try:
        for item in edits:
            site = model.sites[item.site]
            module = model.sites.module_of(site)
            if site.kind == "input":
                handles.append(module.register_forward_pre_hook(before(item), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(after(item)))
        yield model
    finally:
        for handle in handles:
            handle.remove()
