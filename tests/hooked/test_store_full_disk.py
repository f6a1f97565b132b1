"""A full disk loses nothing that was committed."""

import errno
from pathlib import Path

import pytest
import torch

from interp_unlearn._core import InterpUnlearnError
from interp_unlearn.hooked import ActivationStore, write_store

from .stores import IDS, SITE, contents


class FullDisk:
    """Writes fail with ENOSPC after so many bytes, as on a real full disk: the last write is cut short."""

    def __init__(self, monkeypatch, room):
        self.room = room
        real = Path.open
        disk = self

        class File:
            def __init__(self, inner):
                self.inner = inner

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.inner.close()

            def write(self, data):
                if disk.room <= 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                part = data[: disk.room]
                disk.room -= len(part)
                return self.inner.write(part)

        def opened(path, mode="r", *args, **kwargs):
            file = real(path, mode, *args, **kwargs)
            return File(file) if mode == "ab" else file

        monkeypatch.setattr(Path, "open", opened)


@pytest.mark.parametrize("room", [0, 100, 700, 2500, 5001])
def test_full_disk_loses_nothing(tiny, tmp_path, monkeypatch, room):
    whole = write_store(tiny, IDS, SITE, tmp_path / "whole", batch_size=1, shard_bytes=1500, progress=False)
    with monkeypatch.context() as patched:
        FullDisk(patched, room)
        with pytest.raises(InterpUnlearnError, match=r"disk of .* is full; \d+ rows are safe"):
            write_store(tiny, IDS, SITE, tmp_path / "s", batch_size=1, shard_bytes=1500, progress=False)
    kept = ActivationStore.open(tmp_path / "s", partial=True)
    assert torch.equal(kept[:], whole[: len(kept)])
    on_disk = sum(p.stat().st_size for p in (tmp_path / "s").glob("values-*"))
    assert on_disk == len(kept) * 32 * 4  # the space of what was not committed was given back
    write_store(tiny, IDS, SITE, tmp_path / "s", batch_size=1, shard_bytes=1500, progress=False)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_full_disk_while_the_manifest_is_written(tiny, tmp_path, monkeypatch):
    import interp_unlearn.hooked._store_writer as module

    real, calls = module.write_json, []

    def failing(path, value):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, value)

    monkeypatch.setattr(module, "write_json", failing)
    with pytest.raises(InterpUnlearnError, match="is full"):
        write_store(tiny, IDS, SITE, tmp_path / "s", batch_size=1, progress=False)
    assert write_store(tiny, IDS, SITE, tmp_path / "s", batch_size=1, progress=False).manifest.complete

    def denied(path, value):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, "write_json", denied)
    with pytest.raises(PermissionError):  # not every OSError is a full disk
        write_store(tiny, IDS, SITE, tmp_path / "t", progress=False)
