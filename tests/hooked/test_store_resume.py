"""An interrupted or killed `write_store` goes on to the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_unlearn._core import FileFormatError
from interp_unlearn.hooked import ActivationStore, StoreWriter, write_store

from .stores import IDS, SITE, contents


def test_interrupted_in_this_process(tiny, tmp_path):
    """Any exception in the middle, also from the data itself: going on gives the bytes of a straight run."""
    options = {"batch_size": 1, "shard_bytes": 900, "winsorise": 1.2, "progress": False}
    write_store(tiny, IDS, SITE, tmp_path / "whole", **options)

    def breaking(at):
        for i, ids in enumerate(IDS):
            if i == at:
                raise KeyboardInterrupt
            yield ids

    for at in (3, 4, 6, 9, 12):
        with pytest.raises(KeyboardInterrupt):
            write_store(tiny, breaking(at), SITE, tmp_path / "s", **options)
    write_store(tiny, IDS, SITE, tmp_path / "s", **options)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


WORKER = """
import sys, torch
from torch import nn
torch.set_num_threads(1)
from interp_unlearn.hooked import wrap, write_store

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.mlp = nn.Linear(32, 32), nn.Linear(32, 32)
    def forward(self, x):
        x = x + self.attn(x).cumsum(1)
        return x + self.mlp(x)

class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(100, 32), nn.Linear(32, 100)
        self.blocks = nn.ModuleList([Block(), Block()])
    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

torch.manual_seed(0)
model = wrap(Decoder(), name="worker", overrides={"unembed": "head"})
lengths = torch.randint(2, 32, (1500,)).tolist()
data = [torch.randint(0, 100, (n,)) for n in lengths]
for folder in sys.argv[1:]:
    print("ready", flush=True)
    write_store(model, data, "blocks.0.hook_resid_post", folder, batch_size=4, shard_bytes=150_000, winsorise=3.0,
                progress=False)
    print("done", flush=True)
"""


def run_worker(*folders):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WORKER, *map(str, folders)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_kill_9_at_any_moment(tmp_path):
    """Killed again and again at different moments: the same bytes as the uninterrupted run."""
    folder, whole = tmp_path / "s", tmp_path / "whole"
    rng = np.random.default_rng(0)
    kills = rows = 0
    for _ in range(3):
        worker = run_worker(folder)
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        waited, target = 0.0, rows + int(rng.integers(100, 4000))
        while rows < target and waited < 60:
            time.sleep(0.002)
            waited += 0.002
            path = folder / "manifest.json"
            rows = json.loads(path.read_text())["n_rows"] if path.exists() else 0
        time.sleep(float(rng.uniform(0, 0.02)))  # into the middle of a write
        worker.send_signal(signal.SIGKILL)
        kills += worker.wait() == -signal.SIGKILL
        worker.stdout.close()
    assert kills == 3
    manifest = json.loads((folder / "manifest.json").read_text())
    assert not manifest["complete"] and 0 < manifest["n_sequences"] < 1500
    worker = run_worker(folder, whole)
    out, _ = worker.communicate(timeout=300)
    assert worker.returncode == 0 and out.count("done") == 2
    assert contents(folder) == contents(whole)
    assert len(ActivationStore.open(folder).manifest.shards) > 5


def test_a_failed_resume_lets_others_write(tmp_path):
    writer = ActivationStore.create(tmp_path / "s", "m", "s", d=3)
    writer.append(torch.ones(4, 3), *(torch.arange(4) for _ in range(3)))
    writer.commit()
    writer.close()
    values = tmp_path / "s" / "values-00000.bin"
    whole = values.read_bytes()
    values.write_bytes(whole[:-4])
    with pytest.raises(FileFormatError):
        StoreWriter.resume(tmp_path / "s")
    values.write_bytes(whole)
    StoreWriter.resume(tmp_path / "s").close()


def test_a_store_that_cannot_be_finished_lets_others_write(tmp_path, monkeypatch):
    writer = ActivationStore.create(tmp_path / "s", "m", "s", d=3)

    def fail():
        raise RuntimeError("no")

    monkeypatch.setattr(writer, "finish", fail)
    with pytest.raises(RuntimeError, match="no"), writer:
        pass
    StoreWriter.resume(tmp_path / "s").close()
