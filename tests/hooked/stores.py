"""Small stores for tests."""

from pathlib import Path

import torch

from interp_unlearn.hooked import ActivationStore

from .conftest import random_ids

SITE = "blocks.1.hook_resid_post"
LENGTHS = [7, 2, 12, 5, 1, 9, 3, 3, 8, 4, 11, 6, 2]
IDS = random_ids(LENGTHS)


def contents(folder):
    """Every byte of a store, except what a lock or the order of keys could change."""
    return {p.name: p.read_bytes() for p in sorted(Path(folder).iterdir()) if p.name != ".lock"}


def filled(folder, n=40, d=3, dtype=torch.float32, shard_bytes=120, finish=True):
    rows = torch.arange(n * d, dtype=torch.float32).reshape(n, d)
    ids = torch.arange(n)
    writer = ActivationStore.create(folder, "m", "s", d=d, dtype=dtype, shard_bytes=shard_bytes)
    for part in torch.arange(n).split(7):
        writer.append(rows[part], ids[part], ids[part] // 5, ids[part] % 5)
    if finish:
        writer.finish()
    return rows
