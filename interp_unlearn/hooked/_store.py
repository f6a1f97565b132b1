"""An on-disk store of activations: plain shards mapped into memory, and a JSON manifest that says what they are.

A folder holds ``manifest.json``, ``values-00000.bin`` … (rows × d numbers, little-endian) and ``index-00000.bin`` …
(three int32 per row: token id, sequence, position among the attended tokens of the sequence). The manifest is
replaced atomically after the bytes that it counts are on disk, so whatever kills the writer, what the manifest says
is there; bytes beyond it are an unfinished write and are dropped when writing goes on.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import DataError, FileFormatError, __version__, numpy_rng, read_json

if TYPE_CHECKING:
    from interp_unlearn.hooked._store_writer import StoreWriter

KIND = "activation_store"
FORMAT = 1
DTYPES: dict[torch.dtype, tuple[str, np.dtype]] = {
    torch.float32: ("float32", np.dtype("<f4")),
    torch.float16: ("float16", np.dtype("<f2")),
    torch.bfloat16: ("bfloat16", np.dtype("<u2")),  # NumPy has no bfloat16: its bits
}
TORCH_DTYPES = {name: dtype for dtype, (name, _) in DTYPES.items()}
INDEX = np.dtype("<i4")


@dataclass(frozen=True)
class Shard:
    """One pair of files.

    Attributes:
        values: File of the activations.
        index: File of token ids, sequences and positions.
        rows: How many rows both hold.
        values_crc: CRC-32 of the first file.
        index_crc: CRC-32 of the second.
    """

    values: str
    index: str
    rows: int = 0
    values_crc: int = 0
    index_crc: int = 0


@dataclass(frozen=True)
class Manifest:
    """What a store holds.

    Attributes:
        site: Where the activations were read.
        model: Name of the model.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        d: Features per row.
        mask_policy: Which tokens have a row.
        winsorise: Rows were shortened to at most this many times the running median norm; None where they were not.
        complete: Whether the writer came to its end.
        n_sequences: Sequences read so far (those without a row count too).
        facts: Whatever the writer must remember: provenance, settings, progress.
        shards: The files.
        version: Library version.
    """

    site: str
    model: str
    dtype: str
    d: int
    mask_policy: str
    winsorise: float | None = None
    complete: bool = False
    n_sequences: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()
    version: str = __version__

    @property
    def n_rows(self) -> int:
        """Rows in all shards."""
        return sum(s.rows for s in self.shards)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of activations."""
        return self.d * DTYPES[TORCH_DTYPES[self.dtype]][1].itemsize

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {"kind": KIND, "format": FORMAT, "n_rows": self.n_rows, **asdict(self)}

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a store.

        Raises:
            FileFormatError: If the folder holds something else.
        """
        path = folder / "manifest.json"
        if not path.exists():
            raise FileFormatError(f"{folder} is not an activation store: it has no manifest.json")
        data = read_json(path)
        if not isinstance(data, dict) or data.get("kind") != KIND:
            raise FileFormatError(f"{path} is not the manifest of an activation store")
        if data.get("format") != FORMAT:
            raise FileFormatError(f"{path} has format {data.get('format')}; this version reads format {FORMAT}")
        try:
            shards = tuple(Shard(**s) for s in data["shards"])
            fields = {k: v for k, v in data.items() if k not in ("kind", "format", "n_rows")}
            return cls(**{**fields, "shards": shards})
        except (KeyError, TypeError) as error:
            raise FileFormatError(f"{path} is not a whole manifest ({error}); it was changed by hand or cut") from error


class ActivationStore:
    """Read a store written by `write_store` or a `StoreWriter`.

    Example:
        >>> store = ActivationStore.open("captures/layer12")
        >>> store[0:1000].shape
        torch.Size([1000, 576])
        >>> for rows in store.iter_batches(4096, seed=0): ...

    Attributes:
        folder: Where it is.
        manifest: What it holds.
    """

    def __init__(self, folder: str | Path, manifest: Manifest, *, verify: bool = True) -> None:
        self.folder = Path(folder)
        self.manifest = manifest
        self._verify = verify
        self._maps: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._ends = np.cumsum([s.rows for s in manifest.shards], dtype=np.int64)

    @staticmethod
    def create(folder: str | Path, model: str, site: str, **settings: Any) -> StoreWriter:
        """Begin a new store; see `StoreWriter.create` for the settings."""
        from interp_unlearn.hooked._store_writer import StoreWriter

        return StoreWriter.create(folder, model, site, **settings)

    @classmethod
    def open(cls, folder: str | Path, *, partial: bool = False, verify: bool = True) -> ActivationStore:
        """Open a store for reading.

        Args:
            folder: Where it is.
            partial: Accept a store whose writer has not finished.
            verify: Check each shard's checksum when it is first read (its length is always checked, now).

        Raises:
            FileFormatError: If the folder holds something else, a shard is missing, cut or longer than it was, or the
                store is unfinished.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        if not manifest.complete and not partial:
            raise FileFormatError(
                f"{folder} is unfinished ({manifest.n_rows} rows of {manifest.n_sequences} sequences): run the same "
                "command again to finish it, or open it with partial=True"
            )
        for shard in manifest.shards:
            for name, size in ((shard.values, manifest.row_bytes), (shard.index, 3 * INDEX.itemsize)):
                check_size(folder / name, shard.rows * size, at_least=not manifest.complete)
        return cls(folder, manifest, verify=verify)

    def __len__(self) -> int:
        return self.manifest.n_rows

    def __repr__(self) -> str:
        m = self.manifest
        return f"ActivationStore({str(self.folder)!r}, {m.site} of {m.model}, {len(self)} rows of {m.d}, {m.dtype})"

    @property
    def d(self) -> int:
        """Features per row."""
        return self.manifest.d

    @property
    def site(self) -> str:
        """Where the activations were read."""
        return self.manifest.site

    def __getitem__(self, rows: int | slice | Sequence[int] | Int[Tensor, " n"] | np.ndarray) -> Tensor:
        """A copy of one row (d,), of a slice or of a list of rows (n, d), in the stored dtype.

        Raises:
            IndexError: If a row does not exist.
            FileFormatError: If a shard's checksum is wrong.
        """
        if isinstance(rows, int):
            return self[[rows]][0]
        return self._gather(rows)[0]

    def index(self, rows: slice | Sequence[int] | Int[Tensor, " n"] | np.ndarray) -> Int[Tensor, "n 3"]:
        """Token id, sequence and position of rows, (n, 3)."""
        return self._gather(rows, values=False)[1]

    @property
    def tokens(self) -> Int[Tensor, " n"]:
        """Token id of every row."""
        return self.index(slice(None))[:, 0]

    @property
    def sequences(self) -> Int[Tensor, " n"]:
        """Sequence number of every row."""
        return self.index(slice(None))[:, 1]

    @property
    def positions(self) -> Int[Tensor, " n"]:
        """Position of every row among the attended tokens of its sequence."""
        return self.index(slice(None))[:, 2]

    def iter_batches(
        self, size: int, *, seed: int | None = None, start: int = 0, drop_last: bool = False
    ) -> Iterator[Float[Tensor, "n d"]]:
        """Rows in batches, once through the store.

        Args:
            size: Rows per batch.
            seed: Shuffle all rows with this seed (the same order in every process); default the stored order.
            start: Skip so many batches, to go on where a run was interrupted.
            drop_last: Leave a shorter last batch out.
        """
        if size < 1:
            raise DataError(f"a batch needs at least one row, got {size}")
        n = len(self)
        order = None if seed is None else numpy_rng(seed, "activation store").permutation(n)
        for begin in range(start * size, n - (size - 1) * drop_last, size):
            end = min(begin + size, n)
            yield self[slice(begin, end)] if order is None else self[order[begin:end]]

    def verify(self) -> None:
        """Check every checksum now.

        Raises:
            FileFormatError: If a shard is not what was written.
        """
        for number, shard in enumerate(self.manifest.shards):
            if shard.rows:
                self._check(shard, *self._map(number, verify=False))

    def _gather(self, rows: Any, values: bool = True) -> tuple[Tensor, Tensor]:
        n, m = len(self), self.manifest
        wanted = np.arange(*rows.indices(n)) if isinstance(rows, slice) else np.asarray(rows, dtype=np.int64)
        if wanted.size and (wanted.min() < -n or wanted.max() >= n):
            raise IndexError(f"rows must lie in 0…{n - 1}")
        wanted = np.where(wanted < 0, wanted + n, wanted)
        numbers = np.empty((len(wanted) if values else 0, m.d), DTYPES[TORCH_DTYPES[m.dtype]][1])
        index = np.empty((0 if values else len(wanted), 3), INDEX)
        where = np.searchsorted(self._ends, wanted, side="right")
        for shard in np.unique(where):
            here = where == shard
            local = wanted[here] - (self._ends[shard] - m.shards[shard].rows)
            maps = self._map(int(shard), verify=self._verify)
            if values:
                numbers[here] = maps[0][local]
            else:
                index[here] = maps[1][local]
        out = torch.from_numpy(numbers)
        return out.view(torch.bfloat16) if m.dtype == "bfloat16" else out, torch.from_numpy(index).long()

    def _map(self, number: int, *, verify: bool) -> tuple[np.ndarray, np.ndarray]:
        """The two files of a shard, mapped into memory; checked when they are first used."""
        if number not in self._maps:
            m, shard = self.manifest, self.manifest.shards[number]
            values = np.memmap(
                self.folder / shard.values, DTYPES[TORCH_DTYPES[m.dtype]][1], "r", shape=(shard.rows, m.d)
            )
            index = np.memmap(self.folder / shard.index, INDEX, "r", shape=(shard.rows, 3))
            if verify:
                self._check(shard, values, index)
            self._maps[number] = (values, index)
        return self._maps[number]

    def _check(self, shard: Shard, values: np.ndarray, index: np.ndarray) -> None:
        for name, mapped, want in ((shard.values, values, shard.values_crc), (shard.index, index, shard.index_crc)):
            if zlib.crc32(mapped.data.cast("B")) != want:
                raise FileFormatError(
                    f"{self.folder / name} is not the file that was written here (its checksum differs); "
                    "it was changed or replaced: make the store again"
                )


def check_size(path: Path, size: int, *, at_least: bool = False) -> None:
    """Compare a shard file with the length that the manifest says.

    Args:
        path: The file.
        size: Bytes it must have.
        at_least: Accept more (an unfinished write at the end).

    Raises:
        FileFormatError: If it is missing or has another length.
    """
    found = path.stat().st_size if path.exists() else None
    if found is None:
        raise FileFormatError(
            f"{path} is missing; the manifest beside it counts {size} bytes: copy or make the store again"
        )
    if found < size or (found > size and not at_least):
        what = "truncated" if found < size else "longer than what was written"
        raise FileFormatError(f"{path} is {what} ({found} of {size} bytes): copy or make the store again")
