"""Rows: what every probe works on. One row is one observation of one entity, with its group and template.

A language model gives one row per mention, a graph network one per node, a vision model one per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked import Activations
from interp_unlearn.worlds import ROW_GROUPS

GROUPS = ROW_GROUPS
CHUNK = 4096  # rows encoded at once


@runtime_checkable
class Dictionary(Protocol):
    """What a probe needs of an SAE, a PCA basis or a random dictionary.

    Attributes ``site`` and ``d_in`` are checked against the activations where they exist.
    """

    def encode(self, x: Any) -> Any:
        """Latents (n, m) of activations (n, d)."""
        ...

    def decode(self, z: Any) -> Any:
        """Activations (n, d) of latents (n, m)."""
        ...


@dataclass(frozen=True)
class Rows:
    """Feature vectors with the labels that make a test honest.

    Attributes:
        x: Features, (row, feature), float64.
        entity: Unit of independence of each row (an entity, a node, an image).
        group: Role of the row, see `GROUPS`.
        template: Context shared by rows of different entities; the same everywhere where there is none.
        mask_policy: Which tokens the rows stand for.
    """

    x: Float[np.ndarray, "n d"]
    entity: np.ndarray
    group: np.ndarray
    template: np.ndarray
    mask_policy: str

    def __len__(self) -> int:
        return self.x.shape[0]

    def where(self, keep: np.ndarray) -> Rows:
        """The rows chosen by a boolean or index array."""
        return Rows(self.x[keep], self.entity[keep], self.group[keep], self.template[keep], self.mask_policy)

    def of(self, *groups: str) -> Rows:
        """The rows of the given groups, in their own order."""
        return self.where(np.isin(self.group, groups))

    def bad(self) -> int:
        """How many rows hold NaN or infinity."""
        return int((~np.isfinite(self.x).all(1)).sum())


def labels_of(acts: Activations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entity, group and template of each row; without entities each row is its own, without templates all share one.

    Raises:
        DataError: If the rows have no groups or the labels differ in length.
    """
    if "group" not in acts.labels:
        raise DataError(
            f"the activations carry no 'group' label per row; label each row with one of {', '.join(GROUPS)} "
            "(probes.mention_activations does it for language models)"
        )
    group = np.asarray(list(acts.labels["group"]), dtype=np.str_)
    entity = np.asarray(list(acts.labels.get("entity", [f"row {i}" for i in range(len(group))])), dtype=np.str_)
    template = np.asarray(list(acts.labels.get("template", ["-"] * len(group))), dtype=np.str_)
    if not len(group) == len(entity) == len(template):
        raise DataError(
            f"labels differ in length: {len(group)} groups, {len(entity)} entities, {len(template)} templates"
        )
    return entity, group, template


def features(acts: Activations, site: str) -> Float[Tensor, "n d"]:
    """One float32 CPU feature vector per labelled row at ``site``.

    Raises:
        DataError: If the site holds several positions per row, or another number of rows than there are labels.
    """
    value = acts[site].detach()
    rows = len(acts.labels["group"]) if "group" in acts.labels else value.shape[0]
    if value.shape[0] != rows:
        raise DataError(f"{site} has {value.shape[0]} rows but there are {rows} labels")
    if acts.tokens is not None and value.dim() > 2 and value.shape[1] != 1:
        raise DataError(f"{site} holds {value.shape[1]} positions per row; capture one, e.g. positions=-1")
    return value.flatten(1).float().cpu()


def check_dictionary(sae: Dictionary, site: str, width: int) -> None:
    """Refuse an SAE of another site or width.

    Raises:
        DataError: With both sites or widths.
    """
    its_site, its_width = getattr(sae, "site", None), getattr(sae, "d_in", None)
    if isinstance(its_site, str) and its_site and its_site != site:
        raise DataError(f"the SAE reads {its_site} but the activations are from {site}; give site={its_site!r}")
    if isinstance(its_width, int) and its_width != width:
        raise DataError(
            f"the SAE reads vectors of width {its_width} but {site} has width {width}; use one of this model"
        )


@torch.no_grad()
def encode(sae: Dictionary, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
    """Latents of ``x`` on the CPU, a few thousand rows at a time."""
    first = next(sae.parameters(), None) if isinstance(sae, torch.nn.Module) else None
    like = first if first is not None else x
    return torch.cat([sae.encode(part.to(like.device, like.dtype)).float().cpu() for part in x.split(CHUNK)])


@torch.no_grad()
def decode(sae: Dictionary, z: Float[Tensor, "n m"]) -> Float[Tensor, "n d"]:
    """Reconstruction from latents ``z`` on the CPU, a few thousand rows at a time."""
    first = next(sae.parameters(), None) if isinstance(sae, torch.nn.Module) else None
    like = first if first is not None else z
    return torch.cat([sae.decode(part.to(like.device, like.dtype)).float().cpu() for part in z.split(CHUNK)])


def index_array(latents: Any) -> np.ndarray:
    """Latent indices as an integer array, from a tensor, an array or a sequence."""
    values = latents.detach().cpu().numpy() if isinstance(latents, Tensor) else np.asarray(latents)
    return values.astype(np.int64).reshape(-1)


def rows_of(
    acts: Activations,
    site: str,
    sae: Dictionary | None = None,
    latents: Sequence[int] | np.ndarray | Tensor | None = None,
) -> Rows:
    """Rows in residual space, or in the latent space of ``sae``.

    Args:
        acts: Activations with one row per label.
        site: Where to read.
        sae: Dictionary to encode with; None keeps the activations themselves.
        latents: Keep only these latents.

    Raises:
        DataError: If the SAE does not fit, or latents are given without one.
    """
    entity, group, template = labels_of(acts)
    x = features(acts, site)
    if sae is not None:
        check_dictionary(sae, site, x.shape[1])
        x = encode(sae, x)
        if latents is not None:
            x = x[:, torch.from_numpy(index_array(latents))]
    elif latents is not None:
        raise DataError("latents were chosen but no SAE was given; pass sae=… or leave latents out")
    return Rows(x.numpy().astype(np.float64), entity, group, template, acts.mask_policy)


def check_pair(before: Activations, after: Activations, site: str) -> None:
    """Refuse two phases that were not captured from the same rows.

    Raises:
        DataError: If labels or widths differ.
    """
    names = sorted(set(before.labels) | set(after.labels))
    different = [k for k in names if list(before.labels.get(k, [])) != list(after.labels.get(k, []))]
    if different:
        raise DataError(
            f"before and after have different rows (label {different[0]!r}); "
            "capture both phases with the same task and split"
        )
    if before[site].shape != after[site].shape:
        raise DataError(
            f"{site} has shape {tuple(before[site].shape)} before and {tuple(after[site].shape)} after; "
            "the two models have different architectures"
        )


def why_missing(phases: dict[str, Rows], groups: Sequence[str]) -> str:
    """The reason why a measure over ``groups`` cannot be computed, or an empty string."""
    for phase, rows in phases.items():
        absent = [g for g in groups if g not in rows.group]
        if absent:
            return f"{phase}: no rows of {', '.join(absent)}"
        bad = rows.of(*groups).bad()
        if bad:
            return f"{phase}: NaN or infinite activations in {bad} of {len(rows.of(*groups))} rows; the model is broken"
    return ""
