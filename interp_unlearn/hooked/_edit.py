"""`edit`: patch, steer or ablate activations while a `with` block lasts; always undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp_unlearn._core import SiteError
from interp_unlearn.hooked._batch import Batch
from interp_unlearn.hooked._model import HookedModel
from interp_unlearn.hooked._positions import Positions, columns_of
from interp_unlearn.hooked._sites import Site, replace_input, replace_output


@dataclass(frozen=True)
class PassView:
    """Which tokens an activation belongs to, for changes that depend on them.

    Attributes:
        tokens: Token ids, or None where the pass was given embeddings.
        attended: True where a token is real.
        nth: How many attended tokens of the sequence stand before it, those of a key–value cache included; -1 at
            padding.
        whole: False where earlier tokens of the sequences are in a key–value cache and not in this pass.
    """

    tokens: Int[Tensor, "batch pos"] | None
    attended: Bool[Tensor, "batch pos"]
    nth: Int[Tensor, "batch pos"]
    whole: bool


@dataclass(frozen=True)
class Edit:
    """A change at one site.

    Attributes:
        site: Where.
        change: Maps the chosen part of the activation, (batch, position, features), or (batch, position, head,
            d_head) at ``attn.hook_z``, to its replacement of the same shape.
        what: A few words for reports and error messages.
        positions: Which tokens, as in `capture`: ints count attended tokens, a tensor holds columns. Default all.
        heads: Which heads, at a site that has them. Default all.
        sees_tokens: Whether ``change`` takes a `PassView` as its second argument; it then chooses the tokens itself.
        channels_last: Whether ``change`` is given a feature map, (batch, channel, height, width), of a model that is no
            language model with its channels last, so that features are on the last axis as everywhere.
    """

    site: str
    change: Callable[..., Tensor]
    what: str = "edit"
    positions: Positions = None
    heads: Sequence[int] | None = None
    sees_tokens: bool = False
    channels_last: bool = False


def patch(site: str, values: Tensor, positions: Positions = None, *, heads: Sequence[int] | None = None) -> Edit:
    """Replace the activation of the chosen tokens and heads by ``values``, broadcast to its shape."""

    def change(x: Tensor) -> Tensor:
        try:
            return values.to(x.device, x.dtype).expand_as(x).clone()
        except RuntimeError as error:
            raise SiteError(
                f"patch at {site!r}: values of shape {tuple(values.shape)} do not broadcast to {tuple(x.shape)}"
            ) from error

    return Edit(site, change, "patch", positions, heads)


def steer(
    site: str,
    direction: Float[Tensor, "... d"],
    coefficient: float = 1.0,
    positions: Positions = None,
    *,
    heads: Sequence[int] | None = None,
) -> Edit:
    """Add ``coefficient * direction`` to the chosen tokens and heads.

    Args:
        site: Where.
        direction: (features,), or anything that broadcasts to (batch, position, features); of a feature map, to
            (batch, height, width, channel).
        coefficient: Multiplies ``direction``.
        positions: See `Edit`.
        heads: See `Edit`.
    """

    def change(x: Tensor) -> Tensor:
        _check_broadcast("steer", site, "a direction", direction, x)
        return x + coefficient * direction.to(x.device, x.dtype)

    return Edit(site, change, "steer", positions, heads, channels_last=True)


def ablate(
    site: str,
    *,
    units: Sequence[int] | None = None,
    direction: Float[Tensor, " d"] | None = None,
    value: float | Float[Tensor, "... d"] = 0.0,
    positions: Positions = None,
    heads: Sequence[int] | None = None,
) -> Edit:
    """Set units (all by default) to ``value``, or project a direction out.

    Args:
        site: Where.
        units: Indices on the last axis; of a feature map, channels.
        direction: Remove the component along this vector instead.
        value: What units are set to: 0, another number, or a (features,) tensor such as a mean.
        positions: See `Edit`.
        heads: See `Edit`.
    """
    if units is not None and direction is not None:
        raise SiteError("ablate takes units or a direction, not both")
    if direction is not None and not bool(direction.norm() > 0):
        raise SiteError(f"ablate at {site!r}: the direction is zero or not a number")

    def change(x: Tensor) -> Tensor:
        if direction is not None:
            if direction.shape != x.shape[-1:]:
                raise _misfit("ablate", site, "a direction", direction, x)
            unit = direction.to(x.device, x.dtype)
            unit = unit / unit.norm()
            return x - (x @ unit)[..., None] * unit
        given = torch.as_tensor(value, device=x.device, dtype=x.dtype)
        _check_broadcast("ablate", site, "a value", given, x)
        fill = given.expand_as(x)
        if units is None:
            return fill.clone()
        width = x.shape[-1]
        if any(not -width <= u < width for u in units):
            raise SiteError(f"ablate at {site!r}: units must lie in 0…{width - 1}, got {list(units)}")
        keep = torch.ones(width, dtype=torch.bool, device=x.device)
        keep[list(units)] = False
        return torch.where(keep, x, fill)

    return Edit(site, change, "ablate", positions, heads, channels_last=True)


def _check_broadcast(what: str, site: str, given: str, values: Tensor, x: Tensor) -> None:
    """See that ``values`` broadcast to ``x``; the error says how wide the site is."""
    try:
        fits = torch.broadcast_shapes(values.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise _misfit(what, site, given, values, x)


def _misfit(what: str, site: str, given: str, values: Tensor, x: Tensor) -> SiteError:
    return SiteError(
        f"{what} at {site!r}: {given} of shape {tuple(values.shape)} does not fit {tuple(x.shape)}; give "
        f"{x.shape[-1]} features"
    )


@dataclass
class _Pass:
    """What is known of the forward pass under way."""

    shape: tuple[int, int] | None = None
    attended: Tensor | None = None
    tokens: Tensor | None = None
    cached: int = 0

    def look(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Pre-hook of the whole model."""
        tokens = kwargs.get("input_ids", kwargs.get("inputs_embeds"))
        tokens = next((a for a in args if isinstance(a, Tensor)), None) if tokens is None else tokens
        self.shape = (tokens.shape[0], tokens.shape[1]) if tokens is not None and tokens.dim() >= 2 else None
        mask = kwargs.get("attention_mask")
        self.attended = mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None
        ids = tokens is not None and tokens.dim() == 2 and not tokens.is_floating_point()
        self.tokens = tokens if ids else None
        cache: Any = kwargs.get("past_key_values")
        self.cached = int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0

    def view(self, x: Tensor) -> PassView:
        """The tokens of ``x``, (batch, position, …)."""
        batch, width = x.shape[:2]
        mask = self.attended
        if mask is None or mask.shape[0] != batch or mask.shape[1] < width:
            mask = torch.ones(batch, self.cached + width, dtype=torch.bool, device=x.device)
        mask = mask.to(x.device)
        nth = torch.where(mask, mask.cumsum(1) - 1, -1)[:, -width:]
        tokens = self.tokens.to(x.device) if self.tokens is not None and self.tokens.shape == (batch, width) else None
        return PassView(tokens, mask[:, -width:], nth, self.cached == 0)

    def columns(self, x: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        """Rows and columns of ``x``, (batch, position, …), that ``positions`` asks for and that this pass computes.

        With a key–value cache ``x`` holds the newest tokens only, while the mask covers all of them.
        """
        batch, width = x.shape[:2]
        mask = self.attended
        if mask is None or mask.shape[0] != batch or mask.shape[1] < width:
            mask = torch.ones(batch, width, dtype=torch.bool, device=x.device)
        columns = columns_of(Batch(mask.long(), mask, torch.zeros_like(mask)), positions)
        assert columns is not None
        columns = columns.to(x.device) - (mask.shape[1] - width)
        return torch.arange(batch, device=x.device)[:, None].expand_as(columns), columns


def _changed(model: HookedModel, item: Edit, now: _Pass, x: Tensor) -> Tensor:
    """The whole activation, as the module sees it, after one edit."""
    site = model.sites[item.site]
    shaped = site.shape_in(x, now.shape)
    if item.positions is not None and (not model.is_language_model or shaped.dim() < 3):
        raise SiteError(
            f"{item.what} at {item.site!r}: positions need a language model's (batch, position, …) activation"
        )
    if item.heads is not None and site.heads is None:
        raise SiteError(f"{item.what} at {item.site!r}: this site has no heads; use an attn.hook_z site")
    if item.channels_last and not model.is_language_model and x.dim() == 4:
        return _changed_heads(item, x.movedim(1, -1)).movedim(-1, 1)
    if item.sees_tokens:
        return _with_tokens(model, item, now, shaped).reshape(x.shape)
    if item.positions is None:
        return _changed_heads(item, shaped).reshape(x.shape)
    rows, columns = now.columns(shaped, item.positions)
    inside = columns >= 0
    if not bool(inside.any()):
        return x
    new = _changed_heads(item, shaped[rows, columns.clamp(min=0)])
    out = shaped.clone()
    out[rows[inside], columns[inside]] = new[inside]
    return out.reshape(x.shape)


def _with_tokens(model: HookedModel, item: Edit, now: _Pass, shaped: Tensor) -> Tensor:
    """The whole activation after a change that chooses its tokens itself."""
    if item.positions is not None or item.heads is not None:
        raise SiteError(f"{item.what} at {item.site!r} sees the tokens; it takes neither positions nor heads")
    if not model.is_language_model or shaped.dim() < 3:
        raise SiteError(f"{item.what} at {item.site!r} needs a language model's (batch, position, …) activation")
    new = item.change(shaped, now.view(shaped))
    if new.shape != shaped.shape:
        raise SiteError(f"{item.what} at {item.site!r} turned shape {tuple(shaped.shape)} into {tuple(new.shape)}")
    return new


def _changed_heads(item: Edit, part: Tensor) -> Tensor:
    """The chosen tokens after the change of the chosen heads."""
    if item.heads is not None and any(not -part.shape[-2] <= head < part.shape[-2] for head in item.heads):
        raise SiteError(
            f"{item.what} at {item.site!r}: heads must lie in 0…{part.shape[-2] - 1}, got {list(item.heads)}"
        )
    chosen = part if item.heads is None else part[..., list(item.heads), :]
    new = item.change(chosen)
    if new.shape != chosen.shape:
        raise SiteError(f"{item.what} at {item.site!r} turned shape {tuple(chosen.shape)} into {tuple(new.shape)}")
    if item.heads is None:
        return new
    whole = part.clone()
    whole[..., list(item.heads), :] = new
    return whole


@contextmanager
def edit(model: HookedModel, *edits: Edit) -> Iterator[HookedModel]:
    """Apply ``edits`` to every forward pass inside the block, generation included.

    Edits at one site compose in the order given. `capture` inside the block sees the edited values. In generation
    with a key–value cache, an edit reaches the passes that compute its positions (``-1``: every new token).

    Example:
        >>> with edit(model, steer("blocks.12.hook_resid_post", direction, 8.0)):
        ...     logits = model("The capital of France is")

    Raises:
        SiteError: If a site is unknown or a change alters the shape.
    """
    now = _Pass()
    handles = []

    def hook(site: Site, function: Callable[[Tensor], Tensor]) -> None:
        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return replace_input(args, kwargs, function(site.read(args, kwargs, None)))

        def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
            return replace_output(output, function(site.read((), {}, output)))

        module = model.sites.module_of(site)
        if site.kind == "input":
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        else:
            handles.append(module.register_forward_hook(after))

    # An edit of a sum goes last: its summands are upstream of it.
    ordered = sorted(((model.sites[item.site], item) for item in edits), key=lambda pair: pair[0].sum is not None)
    try:
        if model.is_language_model:
            handles.append(model.module.register_forward_pre_hook(now.look, with_kwargs=True))
        for site, item in ordered:
            if site.sum is None:
                hook(site, partial(_changed, model, item, now))
                continue
            base: list[Tensor] = []
            reader = Site(f"{site.sum.base}.input", site.sum.base, "input")
            handles.append(
                model.sites.module_of(reader).register_forward_pre_hook(
                    partial(_remember, reader, base), with_kwargs=True
                )
            )
            hook(model.sites[site.sum.increment], partial(_through_increment, model, item, now, base))
        yield model
    finally:
        for handle in handles:
            handle.remove()


def _remember(
    site: Site, base: list[Tensor], _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    base[:] = [site.read(args, kwargs, None)]


def _through_increment(model: HookedModel, item: Edit, now: _Pass, base: list[Tensor], increment: Tensor) -> Tensor:
    """The increment after an edit of ``base + increment``; exactly itself wherever the edit changes nothing."""
    total = base.pop().reshape(increment.shape) + increment
    return increment + (_changed(model, item, now, total) - total)
