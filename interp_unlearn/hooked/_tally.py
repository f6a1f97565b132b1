"""`tally`: stream data through a model and keep statistics of its activations, never the activations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from interp_unlearn._core import (
    DataError,
    FileFormatError,
    SiteError,
    __version__,
    nearest,
    read_tensors,
    write_tensors,
)
from interp_unlearn.hooked._batch import MaskPolicy
from interp_unlearn.hooked._capture import capture
from interp_unlearn.hooked._model import HookedModel
from interp_unlearn.hooked._positions import Positions, columns_of
from interp_unlearn.hooked._stats import Statistic

SEQUENCE_SHIFT = 32


@dataclass(frozen=True)
class Tally:
    """Statistics of activations at several sites over one stream of data.

    Attributes:
        stats: Site to name to statistic.
        n_sequences: Sequences (first-axis entries) seen.
        mask_policy: Which tokens counted, see `MASK_POLICIES`; ``"-"`` for modules without tokens.
        model: Name of the model.
        version: Library version.
    """

    stats: Mapping[str, Mapping[str, Statistic]]
    n_sequences: int
    mask_policy: str
    model: str
    version: str = __version__

    def __getitem__(self, site: str) -> Mapping[str, Statistic]:
        if site not in self.stats:
            raise SiteError(f"site {site!r} was not tallied{nearest(site, self.stats)}")
        return self.stats[site]

    def save(self, path: str | Path) -> None:
        """Write one ``.safetensors`` file."""
        tensors = {
            f"{site}|{name}|{key}": tensor
            for site, group in self.stats.items()
            for name, statistic in group.items()
            for key, tensor in statistic.state_dict().items()
        }
        facts = {k: getattr(self, k) for k in ("n_sequences", "mask_policy", "model", "version")}
        kinds = {site: {name: s.kind for name, s in group.items()} for site, group in self.stats.items()}
        tensors["facts"] = _as_bytes({**facts, "kinds": kinds})
        write_tensors(path, tensors, {"kind": "tally", "version": self.version})

    @classmethod
    def load(cls, path: str | Path) -> Tally:
        """Read what `save` wrote.

        Raises:
            FileFormatError: If the file is something else or truncated.
        """
        tensors = read_tensors(path)
        if "facts" not in tensors:
            raise FileFormatError(f"{path} is not a saved tally")
        facts = json.loads(bytes(tensors.pop("facts").tolist()))
        stats: dict[str, dict[str, Statistic]] = {}
        for site, kinds in facts.pop("kinds").items():
            for name, kind in kinds.items():
                prefix = f"{site}|{name}|"
                state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                stats.setdefault(site, {})[name] = _restored(kind, state)
        return cls(stats, **facts)

    def merge(self, other: Tally) -> Tally:
        """The tally of both streams; sequence numbers of `TopK` ids stay those of each stream.

        Raises:
            DataError: If sites, statistics or mask policies differ.
        """
        if self.mask_policy != other.mask_policy or set(self.stats) != set(other.stats):
            raise DataError("only tallies of the same sites under the same mask policy can be merged")
        stats = {}
        for site, group in self.stats.items():
            if set(group) != set(other.stats[site]):
                raise DataError(f"the tallies hold different statistics of {site}")
            stats[site] = {n: _restored(s.kind, s.state_dict()).merge(other.stats[site][n]) for n, s in group.items()}
        model = self.model if self.model == other.model else f"{self.model} + {other.model}"
        return Tally(stats, self.n_sequences + other.n_sequences, self.mask_policy, model)


def tally(
    model: HookedModel,
    batches: Iterable[Any],
    sites: Sequence[str],
    stats: Mapping[str, Callable[[], Statistic]],
    *,
    mask_policy: MaskPolicy = "inner",
    positions: Positions = None,
    progress: bool = False,
) -> Tally:
    """Statistics of activations over ``batches``, in one forward pass per batch and constant memory.

    Row ids (for `TopK`) pack the running sequence number and the position among its attended tokens; see
    `unpack_ids`.

    Args:
        model: A model from `open_model`.
        batches: Anything `capture` takes as inputs, one batch at a time.
        sites: Site names; at sites with heads the heads are laid side by side.
        stats: Name to a function that makes an empty statistic, e.g. ``{"mean": Mean, "top": lambda: TopK(20)}``.
        mask_policy: Which tokens count; ``"inner"`` leaves out the first one, whose activations are massive.
        positions: Only these positions, see `columns_of`.
        progress: Show a progress bar.

    Raises:
        DataError: If a value is not finite, or a module's output is not (rows, features) or (rows, position,
            features).
    """
    made = {site: {name: make() for name, make in stats.items()} for site in sites}
    if not stats:
        raise DataError("name at least one statistic, e.g. {'mean': Mean}")
    total = len(batches) if isinstance(batches, Sized) else None
    seen = 0
    for inputs in tqdm(batches, total=total, desc="tally", unit="batch", disable=not progress):
        if model.is_language_model:
            batch = model.batch(inputs)
            acts = capture(model, batch, list(made), positions=positions, mask_policy=mask_policy, device="cpu")
            columns = columns_of(batch, positions)
            nth = batch.position_ids() if columns is None else batch.position_ids().gather(1, columns)
            assert acts.mask is not None
            ids = ((torch.arange(len(nth))[:, None] + seen) << SEQUENCE_SHIFT | nth.cpu())[acts.mask]
            rows = {site: acts.flat(site) for site in made}
            seen += len(batch)
        else:
            acts = capture(model, inputs, list(made), device="cpu")
            rows = {site: _module_rows(site, acts[site]) for site in made}
            ids = None
            seen += next(iter(acts.values.values())).shape[0]
        for site, group in made.items():
            for statistic in group.values():
                statistic.add(rows[site].float(), ids)
    return Tally(made, seen, mask_policy if model.is_language_model else "-", model.name)


def unpack_ids(ids: Int[Tensor, "*n"]) -> tuple[Int[Tensor, "*n"], Int[Tensor, "*n"]]:
    """Sequence number and position (among attended tokens) of row ids made by `tally`."""
    return ids >> SEQUENCE_SHIFT, ids & ((1 << SEQUENCE_SHIFT) - 1)


def _module_rows(site: str, value: Tensor) -> Tensor:
    if value.dim() not in (2, 3):
        raise DataError(
            f"{site} has shape {tuple(value.shape)}; statistics need (rows, features): pool or flatten it in a module"
        )
    return value.reshape(-1, value.shape[-1])


def _as_bytes(value: Any) -> Tensor:
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def _restored(kind: str, state: Mapping[str, Tensor]) -> Statistic:
    classes = list(Statistic.__subclasses__())
    for made in classes:
        classes += made.__subclasses__()
    found = {made.kind: made for made in classes if hasattr(made, "kind")}
    if kind not in found:
        raise FileFormatError(f"unknown statistic {kind!r}{nearest(kind, found)}; known: {', '.join(sorted(found))}")
    settings = {name: float(state[name]) for name in found[kind].settings if name in state}
    plain = {name: int(value) if value.is_integer() and name == "k" else value for name, value in settings.items()}
    return found[kind](**plain).load_state_dict(state)
