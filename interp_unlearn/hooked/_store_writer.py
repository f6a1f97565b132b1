"""Write an activation store so that a kill at any moment loses only what was not yet committed."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import DataError, InterpUnlearnError, write_json
from interp_unlearn.hooked._store import DTYPES, INDEX, ActivationStore, Manifest, Shard, check_size

SHARD_BYTES = 64 * 2**20


class StoreWriter:
    """Append rows, commit now and then, finish at the end.

    Rows are safe once `commit` has returned. Used as a context manager it commits and finishes when its block ends
    well, and leaves what was committed when it does not.

    Example:
        >>> with ActivationStore.create(folder, "tiny", "blocks.3.hook_resid_post", d=64) as writer:
        ...     writer.append(rows, tokens, sequences, positions)

    Attributes:
        folder: Where the store is.
        manifest: What it holds, rows that are not yet committed included.
    """

    def __init__(self, folder: Path, manifest: Manifest, shard_rows: int) -> None:
        self.folder = folder
        self.manifest = manifest
        self._committed = manifest
        self._shard_rows = shard_rows
        self._lock = _lock(folder)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        model: str,
        site: str,
        *,
        d: int,
        dtype: torch.dtype = torch.float32,
        mask_policy: str = "inner",
        winsorise: float | None = None,
        shard_bytes: int = SHARD_BYTES,
        facts: Mapping[str, Any] | None = None,
    ) -> StoreWriter:
        """Begin a new store.

        Args:
            folder: New or empty.
            model: Name of the model.
            site: Where the activations are read.
            d: Features per row.
            dtype: float32, float16 or bfloat16.
            mask_policy: Which tokens get a row.
            winsorise: Written into the manifest; the caller shortens the rows (see `write_store`).
            shard_bytes: A shard holds so many bytes of activations at most.
            facts: Provenance for the manifest.

        Raises:
            DataError: If the folder is not empty or the dtype is not one of the three.
        """
        folder = Path(folder)
        if dtype not in DTYPES:
            raise DataError(f"a store holds float32, float16 or bfloat16, not {dtype}")
        if folder.exists() and any(not _is_scrap(path) for path in folder.iterdir()):
            raise DataError(f"{folder} is not empty; choose a new folder, or delete what it holds")
        manifest = Manifest(site, model, DTYPES[dtype][0], d, mask_policy, winsorise, facts=dict(facts or {}))
        shard_rows = max(1, shard_bytes // manifest.row_bytes)
        manifest = replace(manifest, facts={**manifest.facts, "shard_rows": shard_rows})
        folder.mkdir(parents=True, exist_ok=True)
        writer = cls(folder, manifest, shard_rows)
        with writer._full_disk():
            write_json(folder / "manifest.json", manifest.to_json())
        return writer

    @classmethod
    def resume(cls, folder: str | Path) -> StoreWriter:
        """Go on with an unfinished store: bytes that were never committed are dropped.

        Raises:
            FileFormatError: If the folder holds no store, or committed bytes are missing or changed.
            DataError: If the store is finished or another process is writing it.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        if manifest.complete:
            raise DataError(f"{folder} is finished; choose a new folder")
        writer = cls(folder, manifest, int(manifest.facts["shard_rows"]))
        try:
            for shard in manifest.shards:
                check_size(folder / shard.values, shard.rows * manifest.row_bytes, at_least=True)
                check_size(folder / shard.index, shard.rows * 3 * INDEX.itemsize, at_least=True)
            writer._drop_uncommitted()
            if manifest.shards:
                store = ActivationStore(folder, replace(manifest, shards=manifest.shards[-1:]))
                store.verify()
        except BaseException:
            writer.close()  # a failed resume must not keep others out
            raise
        return writer

    def append(
        self,
        rows: Float[Tensor, "n d"],
        tokens: Int[Tensor, " n"],
        sequences: Int[Tensor, " n"],
        positions: Int[Tensor, " n"],
    ) -> None:
        """Write rows with their token ids, sequence numbers and positions.

        Raises:
            DataError: If the rows have another width, or are not finite in the store's dtype.
            InterpUnlearnError: If the disk is full; what was committed stays.
        """
        if rows.shape[1] != self.manifest.d:
            raise DataError(f"rows of {rows.shape[1]} features in a store of {self.manifest.d}")
        dtype = next(t for t, (name, _) in DTYPES.items() if name == self.manifest.dtype)
        stored = rows.detach().to(device="cpu", dtype=dtype)
        if not bool(torch.isfinite(stored).all()):
            raise DataError(
                f"activations at {self.manifest.site} are not finite as {self.manifest.dtype}; "
                "use float32, or look for NaN in the weights"
            )
        bits = stored.view(torch.int16) if dtype is torch.bfloat16 else stored
        numbers = np.ascontiguousarray(bits.numpy()).view(DTYPES[dtype][1])
        index = torch.stack([tokens, sequences, positions], 1).cpu().numpy().astype(INDEX)
        with self._full_disk():
            done = 0
            while done < len(numbers):
                room = self._shard_rows - (self.manifest.shards[-1].rows if self.manifest.shards else self._shard_rows)
                if room == 0:
                    name = f"{len(self.manifest.shards):05d}.bin"
                    shards = (*self.manifest.shards, Shard(f"values-{name}", f"index-{name}"))
                    self.manifest = replace(self.manifest, shards=shards)
                    continue
                self._write(numbers[done : done + room], index[done : done + room])
                done += room

    def commit(self, n_sequences: int | None = None, facts: Mapping[str, Any] | None = None) -> None:
        """Make everything appended so far safe.

        Args:
            n_sequences: How many sequences have been read.
            facts: Replaces what the manifest remembers under these keys.
        """
        n = self.manifest.n_sequences if n_sequences is None else n_sequences
        self.manifest = replace(self.manifest, n_sequences=n, facts={**self.manifest.facts, **(facts or {})})
        with self._full_disk():
            known = set(self._committed.shards)
            for shard in self.manifest.shards:
                if shard not in known:
                    _sync(self.folder / shard.values)
                    _sync(self.folder / shard.index)
            write_json(self.folder / "manifest.json", self.manifest.to_json())
        self._committed = self.manifest

    def finish(self) -> ActivationStore:
        """Commit, mark the store complete, and open it."""
        self.manifest = replace(self.manifest, complete=True)
        self.commit()
        self.close()
        return ActivationStore.open(self.folder)

    def close(self) -> None:
        """Let other processes write; what was not committed will be dropped."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self.manifest.complete:
                self.finish()
        finally:
            self.close()

    def _write(self, numbers: np.ndarray, index: np.ndarray) -> None:
        """Add bytes to the open shard and note them in the manifest."""
        shard = self.manifest.shards[-1]
        values_bytes, index_bytes = numbers.data.cast("B"), index.data.cast("B")
        _append(self.folder / shard.values, values_bytes)
        _append(self.folder / shard.index, index_bytes)
        longer = replace(
            shard,
            rows=shard.rows + len(numbers),
            values_crc=zlib.crc32(values_bytes, shard.values_crc),
            index_crc=zlib.crc32(index_bytes, shard.index_crc),
        )
        self.manifest = replace(self.manifest, shards=(*self.manifest.shards[:-1], longer))

    def _drop_uncommitted(self) -> None:
        """Cut files back to what the committed manifest counts; delete shards that it does not know."""
        self.manifest = self._committed
        sizes: dict[str, int] = {}
        for shard in self.manifest.shards:
            sizes[shard.values] = shard.rows * self.manifest.row_bytes
            sizes[shard.index] = shard.rows * 3 * INDEX.itemsize
        for path in self.folder.iterdir():
            size = sizes.get(path.name)
            if size is None and (_is_shard(path) or _is_scrap(path)) and path.name != ".lock":
                path.unlink()
            elif size is not None and path.stat().st_size > size:
                os.truncate(path, size)

    @contextmanager
    def _full_disk(self) -> Iterator[None]:
        """Turn a full disk into one sentence, after giving back the space of what was not committed."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._drop_uncommitted()
            self.close()
            raise InterpUnlearnError(
                f"the disk of {self.folder} is full; {self._committed.n_rows} rows are safe there: free some space and "
                "run the same command again to go on"
            ) from error


def _append(path: Path, data: memoryview) -> None:
    with path.open("ab", buffering=0) as file:
        while data:
            data = data[file.write(data) :]  # a nearly full disk takes a part, then says so


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_shard(path: Path) -> bool:
    stem, _, number = path.stem.partition("-")
    return stem in ("values", "index") and number.isdigit() and path.suffix == ".bin"


def _is_scrap(path: Path) -> bool:
    """What a writer that was killed before its first manifest leaves behind."""
    return path.name == ".lock" or (path.name.startswith(".manifest.json.") and path.suffix == ".tmp")


def _lock(folder: Path) -> int | None:
    """Hold the folder for this process; released by `close`, by exit, and by a kill."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise DataError(f"another process is writing {folder}; wait for it, or choose another folder") from error
    return handle
