"""`capture`: copies of the activations at chosen sites and positions, with the token mask beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_unlearn._core import (
    DataError,
    FileFormatError,
    SiteError,
    __version__,
    nearest,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from interp_unlearn.hooked._batch import Batch, MaskPolicy
from interp_unlearn.hooked._forward import evaluating
from interp_unlearn.hooked._model import HookedModel
from interp_unlearn.hooked._positions import Positions, columns_of
from interp_unlearn.hooked._sites import Site
from interp_unlearn.hooked._tap import tap


@dataclass(frozen=True)
class Activations:
    """Captured activations.

    Attributes:
        values: Site name to (batch, position, …) tensor; for models that are not language models, whatever the site
            holds.
        tokens: Token ids at the kept positions, (batch, position), or None.
        mask: True where a token counts under ``mask_policy``, or None.
        positions: Column of each kept position in the padded input, or None.
        mask_policy: See `MASK_POLICIES`.
        labels: Free labels per row (entity, group, class …).

    Raises:
        DataError: If a label list is not as long as there are rows.
    """

    values: Mapping[str, Tensor]
    tokens: Int[Tensor, "batch pos"] | None = None
    mask: Bool[Tensor, "batch pos"] | None = None
    positions: Int[Tensor, "batch pos"] | None = None
    mask_policy: str = "all"
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = next((v.shape[0] for v in self.values.values()), None) if self.mask is None else self.mask.shape[0]
        for name, labels in self.labels.items():
            if len(labels) != rows:
                raise DataError(f"label {name!r} has {len(labels)} entries for {rows} rows of activations")

    @property
    def sites(self) -> tuple[str, ...]:
        """The captured site names."""
        return tuple(self.values)

    def __getitem__(self, site: str) -> Tensor:
        if site not in self.values:
            raise SiteError(
                f"site {site!r} was not captured{nearest(site, self.values)}; captured: {', '.join(self.values)}"
            )
        return self.values[site]

    def flat(self, site: str) -> Float[Tensor, "n d"]:
        """Rows of the tokens that count, (n, features).

        Of a feature map, (batch, channel, height, width), each place of each image is a row of its channels.
        """
        value = self[site]
        if self.mask is None:
            value = value.movedim(1, -1) if value.dim() == 4 else value
            return value.reshape(-1, value.shape[-1])
        return value.flatten(2)[self.mask]

    def save(self, folder: str | Path) -> None:
        """Write ``activations.safetensors`` and ``activations.json`` into ``folder``."""
        folder = Path(folder)
        extra = {k: getattr(self, k) for k in ("tokens", "mask", "positions") if getattr(self, k) is not None}
        write_tensors(folder / "activations.safetensors", {**{f"site:{k}": v for k, v in self.values.items()}, **extra})
        facts = {"kind": "activations", "mask_policy": self.mask_policy, "version": __version__}
        labels = {k: list(v) for k, v in self.labels.items()}
        write_json(folder / "activations.json", {**facts, "sites": list(self.sites), "labels": labels})

    @classmethod
    def load(cls, folder: str | Path) -> Activations:
        """Read what `save` wrote.

        Raises:
            FileFormatError: If the folder holds something else, or one of its two files belongs to another save.
        """
        folder = Path(folder)
        facts = read_json(folder / "activations.json")
        if not isinstance(facts, dict) or facts.get("kind") != "activations":
            raise FileFormatError(f"{folder} does not hold saved activations")
        tensors = read_tensors(folder / "activations.safetensors")
        values = {k.removeprefix("site:"): v for k, v in tensors.items() if k.startswith("site:")}
        sites, labels = facts.get("sites", list(values)), facts.get("labels", {})
        foreign = f"{folder}: activations.json and activations.safetensors do not belong together"
        if set(sites) != set(values):
            raise FileFormatError(foreign)
        values = {site: values[site] for site in sites}
        tokens, mask, positions = (tensors.get(k) for k in ("tokens", "mask", "positions"))
        try:
            return cls(values, tokens, mask, positions, facts.get("mask_policy", "all"), labels)
        except DataError as error:
            raise FileFormatError(f"{foreign}: {error}") from error


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

    Without ``grad`` the module is read in evaluation mode (no dropout, batch-norm statistics untouched) and put back.

    Args:
        model: A model from `open_model`.
        inputs: For language models a text, texts, token ids (batch, position) or a `Batch`; for any other module, its
            arguments (a tensor, a tuple of arguments or a dict of keyword arguments).
        sites: Site names; required, since "everything" is rarely what is meant and never cheap.
        positions: Which tokens to keep, see `columns_of`. Default all.
        grad: Keep the graph and the module's mode, so that a loss on the result reaches the weights. Then a value is
            the model's own tensor where nothing had to be reshaped, so that one site can be differentiated by
            another; do not change it in place. Otherwise results are detached copies.
        dtype: Convert to this dtype.
        device: Move to this device, masks and tokens too.
        stop: End the forward pass after the last wanted site.
        mask_policy: Which tokens count in ``acts.mask``.
        batch_size: Split into runs of so many rows to bound memory.

    Returns:
        `Activations` with one (batch, position, …) tensor per site.

    Raises:
        SiteError: If a site is unknown (the nearest names are shown) or was not reached.
        DataError: If the prompts do not fit the model's context.
    """
    read = partial(_read, model, sites=sites, grad=grad, dtype=dtype, device=device, stop=stop)
    if not model.is_language_model:
        if positions is not None or batch_size is not None:
            raise DataError(f"{model.name} is no language model, so positions and batch_size mean nothing for it")
        return Activations(read(inputs, None, None))
    batch = model.batch(inputs)
    mask = batch.mask(mask_policy)
    columns = columns_of(batch, positions)
    size = len(batch) if batch_size is None else batch_size
    if size < 1:
        raise DataError(f"batch_size must be at least 1, got {size}")
    parts = []
    for start in range(0, len(batch), size):
        rows = slice(start, start + size)
        part = batch if size >= len(batch) else Batch(batch.tokens[rows], batch.attended[rows], batch.special[rows])
        where = None if columns is None else columns[rows]
        if where is not None and part is not batch:
            used = part.attended.any(0).index_put((where,), torch.tensor(True, device=where.device))
            part = Batch(part.tokens[:, used], part.attended[:, used], part.special[:, used])
            where = (used.cumsum(0) - 1)[where]
        parts.append(read(part, part.tokens.shape, where))
    values = parts[0] if len(parts) == 1 else {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    if columns is None:
        columns = torch.arange(batch.tokens.shape[1], device=mask.device).expand_as(mask)
    tokens, mask = batch.tokens.gather(1, columns), mask.gather(1, columns)
    where = mask.device if device is None else device
    return Activations(values, tokens.to(where), mask.to(where), columns.to(where, copy=True), mask_policy)


def _read(
    model: HookedModel,
    inputs: Any,
    shape: Sequence[int] | None,
    columns: Tensor | None,
    *,
    sites: Sequence[str],
    grad: bool,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    stop: bool,
) -> dict[str, Tensor]:
    """One forward pass: the value of each site, at the given columns of each row."""
    batch_shape = None if shape is None else (shape[0], shape[1])

    def keep(site: Site, value: Tensor) -> Tensor:
        value = site.shape_in(value, batch_shape)
        if columns is not None:
            if value.dim() < 3 or value.shape[:2] != batch_shape:
                raise SiteError(
                    f"site {site.name!r} has shape {tuple(value.shape)}, without a (batch, position) to choose from"
                )
            rows = torch.arange(value.shape[0], device=value.device)[:, None]
            value = value[rows, columns.to(value.device)]
        if grad:
            return value.to(device=device, dtype=dtype)
        return value.detach().to(device=device, dtype=dtype, copy=columns is None)

    mode = torch.enable_grad() if grad else torch.no_grad()
    evaluation = nullcontext() if grad else evaluating(model.module)
    with mode, evaluation, tap(model.sites, sites, keep=keep, stop=stop) as taps:
        taps.run(lambda: model.forward(inputs))
        return {name: taps[name] for name in sites}
