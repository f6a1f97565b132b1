"""`capture`: copies of the activations at chosen sites and positions, with the token mask beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_unlearn._core import DataError, FileFormatError, SiteError, nearest, read_json, read_tensors, write_json, write_tensors
from interp_unlearn.hooked._batch import Batch, MaskPolicy
from interp_unlearn.hooked._model import HookedModel
from interp_unlearn.hooked._sites import Site
from interp_unlearn.hooked._tap import tap

Positions = int | str | Sequence[int] | Int[Tensor, " batch"] | Int[Tensor, "batch p"] | None


@dataclass(frozen=True)
class Activations:
    """Captured activations.

    Attributes:
        values: Site name to (batch, position, …) tensor; for models that are not language models, whatever the site holds.
        tokens: Token ids at the kept positions, (batch, position), or None.
        mask: True where a token counts under ``mask_policy``, or None.
        positions: Column of each kept position in the padded input, or None.
        mask_policy: See `MASK_POLICIES`.
        labels: Free labels per row (entity, group, class …).
    """

    values: Mapping[str, Tensor]
    tokens: Int[Tensor, "batch pos"] | None = None
    mask: Bool[Tensor, "batch pos"] | None = None
    positions: Int[Tensor, "batch pos"] | None = None
    mask_policy: str = "all"
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[str, ...]:
        """The captured site names."""
        return tuple(self.values)

    def __getitem__(self, site: str) -> Tensor:
        if site not in self.values:
            raise SiteError(f"site {site!r} was not captured{nearest(site, self.values)}; captured: {', '.join(self.values)}")
        return self.values[site]

    def flat(self, site: str) -> Float[Tensor, "n d"]:
        """Rows of the tokens that count, (n, features)."""
        value = self[site]
        if self.mask is None:
            return value.reshape(-1, value.shape[-1])
        return value.flatten(2)[self.mask]

    def save(self, folder: str | Path) -> None:
        """Write ``activations.safetensors`` and ``activations.json`` into ``folder``."""
        folder = Path(folder)
        extra = {k: getattr(self, k) for k in ("tokens", "mask", "positions") if getattr(self, k) is not None}
        write_tensors(folder / "activations.safetensors", {**{f"site:{k}": v for k, v in self.values.items()}, **extra})
        labels = {k: list(v) for k, v in self.labels.items()}
        write_json(folder / "activations.json", {"kind": "activations", "mask_policy": self.mask_policy, "labels": labels})

    @classmethod
    def load(cls, folder: str | Path) -> Activations:
        """Read what `save` wrote."""
        folder = Path(folder)
        facts = read_json(folder / "activations.json")
        if not isinstance(facts, dict) or facts.get("kind") != "activations":
            raise FileFormatError(f"{folder} does not hold saved activations")
        tensors = read_tensors(folder / "activations.safetensors")
        values = {k.removeprefix("site:"): v for k, v in tensors.items() if k.startswith("site:")}
        return cls(
            values,
            tensors.get("tokens"),
            tensors.get("mask"),
            tensors.get("positions"),
            facts["mask_policy"],
            facts["labels"],
        )


def columns_of(batch: Batch, positions: Positions) -> Int[Tensor, "batch p"] | None:
    """Columns of the padded batch that ``positions`` asks for (None means every column).

    ``positions`` counts among the attended tokens of each row: ``-1`` or ``"last"`` is the last real token whatever the
    padding; a sequence of ints applies to every row; a (batch,) or (batch, p) tensor gives *columns* row by row, as
    `span_last_token` returns them.
    """
    if positions is None:
        return None
    if isinstance(positions, str):
        if positions != "last":
            raise DataError(f"positions={positions!r} is not understood; use 'last', an int, a list of ints or a tensor")
        positions = -1
    if isinstance(positions, Tensor):
        columns = positions[:, None] if positions.dim() == 1 else positions
        if columns.shape[0] != len(batch) or bool((columns >= batch.tokens.shape[1]).any()) or bool((columns < 0).any()):
            raise DataError(
                f"a positions tensor needs one row of columns per prompt: got {tuple(positions.shape)} for {len(batch)} prompts"
            )
        return columns.to(batch.tokens.device)
    wanted = [positions] if isinstance(positions, int) else list(positions)
    return batch.index_of(torch.tensor(wanted, device=batch.tokens.device).expand(len(batch), -1))


def capture(
    model: HookedModel,
    inputs: Any,
    sites: Sequence[str],
    *,
    positions: Positions = None,
    grad: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    stop: bool = True,
    mask_policy: MaskPolicy = "content",
    batch_size: int | None = None,
) -> Activations:
    """Activations of ``model`` at ``sites``.

    Args:
        model: A model from `open_model`.
        inputs: For language models a text, texts, token ids (batch, position) or a `Batch`; for any other module, its
            arguments (a tensor, a tuple or a dict of keyword arguments).
        sites: Site names; required, since "everything" is rarely what is meant and never cheap.
        positions: Which tokens to keep, see `columns_of`. Default all.
        grad: Keep the graph, so that a loss on the result reaches the weights; otherwise results are detached copies.
        dtype: Convert to this dtype.
        device: Move to this device.
        stop: End the forward pass after the last wanted site.
        mask_policy: Which tokens count in ``acts.mask``.
        batch_size: Split into runs of so many rows to bound memory.

    Returns:
        `Activations` with one (batch, position, …) tensor per site.

    Raises:
        SiteError: If a site is unknown (the nearest names are shown) or was not reached.
        DataError: If the prompts do not fit the model's context.
    """
    if not model.is_language_model:
        return _capture_module(model, inputs, sites, grad=grad, dtype=dtype, device=device, stop=stop)
    batch = model.batch(inputs)
    columns = columns_of(batch, positions)
    if batch_size is not None and len(batch) > batch_size:
        return _capture_in_runs(model, batch, columns, sites, batch_size, grad, dtype, device, stop, mask_policy)
    rows = torch.arange(len(batch), device=batch.tokens.device)[:, None]

    def keep(site: Site, value: Tensor) -> Tensor:
        value = site.shape_in(value, len(batch))
        if columns is not None:
            value = value[rows.to(value.device), columns.to(value.device)]
            value = value if grad else value.detach()
        else:
            value = value if grad else value.detach().clone()
        return value.to(device=device, dtype=dtype)

    with (nullcontext() if grad else torch.no_grad()), tap(model.sites, sites, keep=keep, stop=stop) as taps:
        taps.run(lambda: model.forward(batch))
        values = {name: taps[name] for name in sites}
    mask, tokens = batch.mask(mask_policy), batch.tokens
    if columns is None:
        columns = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    return Activations(values, tokens.gather(1, columns), mask.gather(1, columns), columns.clone(), mask_policy)


def _capture_in_runs(model, batch, columns, sites, size, grad, dtype, device, stop, mask_policy) -> Activations:  # noqa: ANN001
    """The same as one call, a few rows at a time, keeping the padded width so that rows line up."""
    parts = []
    for start in range(0, len(batch), size):
        rows = slice(start, start + size)
        part = Batch(batch.tokens[rows], batch.attended[rows], batch.special[rows])
        where = None if columns is None else columns[rows]
        parts.append(
            capture(
                model, part, sites, positions=where, grad=grad, dtype=dtype, device=device, stop=stop, mask_policy=mask_policy
            )
        )
    join = lambda get: torch.cat([get(p) for p in parts])  # noqa: E731
    return Activations(
        {name: join(lambda p, name=name: p.values[name]) for name in sites},
        join(lambda p: p.tokens),
        join(lambda p: p.mask),
        join(lambda p: p.positions),
        mask_policy,
    )


def _capture_module(model: HookedModel, inputs: Any, sites: Sequence[str], *, grad, dtype, device, stop) -> Activations:  # noqa: ANN001
    def keep(_site: Site, value: Tensor) -> Tensor:
        return (value if grad else value.detach().clone()).to(device=device, dtype=dtype)

    with (nullcontext() if grad else torch.no_grad()), tap(model.sites, sites, keep=keep, stop=stop) as taps:
        taps.run(lambda: model.forward(inputs))
        return Activations({name: taps[name] for name in sites})
