"""A clear sentence for every file of a store that is not what it should be."""

import json
import shutil

import pytest
import torch

from interp_unlearn._core import FileFormatError
from interp_unlearn.hooked import ActivationStore, StoreWriter

from .stores import filled


def damage_truncated(folder):
    path = folder / "values-00001.bin"
    path.write_bytes(path.read_bytes()[:-1])
    return "truncated"


def damage_truncated_index(folder):
    path = folder / "index-00000.bin"
    path.write_bytes(path.read_bytes()[:-4])
    return "truncated"


def damage_longer(folder):
    with (folder / "values-00000.bin").open("ab") as file:
        file.write(b"x")
    return "longer than what was written"


def damage_missing(folder):
    (folder / "values-00000.bin").unlink()
    return "is missing"


def damage_foreign_shard(folder):
    path = folder / "values-00001.bin"
    path.write_bytes(bytes(len(path.read_bytes())))
    return "checksum differs"


def damage_foreign_index(folder):
    path = folder / "index-00001.bin"
    path.write_bytes(path.read_bytes()[::-1])
    return "checksum differs"


def damage_no_manifest(folder):
    (folder / "manifest.json").unlink()
    return "no manifest.json"


def damage_cut_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:100])
    return "truncated"


def damage_foreign_manifest(folder):
    (folder / "manifest.json").write_text('{"kind": "evidence"}')
    return "not the manifest of an activation store"


def damage_later_format(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    return "format 2"


def damage_manifest_without_fields(folder):
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    del data["site"]
    path.write_text(json.dumps(data))
    return "not a whole manifest"


DAMAGES = {k.removeprefix("damage_"): v for k, v in globals().items() if k.startswith("damage_")}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
@pytest.mark.parametrize("unfinished", [False, True])
def test_damage_is_refused_with_a_clear_error(tmp_path, damage, unfinished):
    folder = tmp_path / "s"
    filled(folder, n=30)
    if unfinished:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "complete": False}))
    words = DAMAGES[damage](folder)
    if unfinished and damage == "longer":  # an unfinished write at the end: read past it, and cut it when writing
        assert len(ActivationStore.open(folder, partial=True)) == 30
        StoreWriter.resume(folder).close()
        return
    with pytest.raises(FileFormatError, match=words):
        ActivationStore.open(folder, partial=unfinished)[:], ActivationStore.open(folder, partial=unfinished).tokens
    if words == "checksum differs":
        unchecked = ActivationStore.open(folder, partial=unfinished, verify=False)
        assert unchecked[:].shape == (30, 3)
        with pytest.raises(FileFormatError, match=words):
            unchecked.verify()


def test_resume_refuses_damaged_shards(tmp_path):
    for name in ("truncated", "missing", "cut_manifest"):
        folder = tmp_path / name
        filled(folder, n=20, finish=False)
        writer = StoreWriter.__new__(StoreWriter)
        del writer
        shutil.rmtree(folder)
        rows = torch.randn(20, 3)
        made = ActivationStore.create(folder, "m", "s", d=3, shard_bytes=120)
        made.append(rows, *[torch.arange(20)] * 3)
        made.commit(20)
        made.close()
        words = DAMAGES[name](folder)
        with pytest.raises(FileFormatError, match=words):
            StoreWriter.resume(folder)
    folder = tmp_path / "last"
    made = ActivationStore.create(folder, "m", "s", d=3, shard_bytes=10**6)
    made.append(torch.randn(20, 3), *[torch.arange(20)] * 3)
    made.commit(20)
    made.close()
    path = folder / "values-00000.bin"
    path.write_bytes(bytes(240))
    with pytest.raises(FileFormatError, match="checksum differs"):
        StoreWriter.resume(folder)
