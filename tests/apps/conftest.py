"""A folder of real runs of a tiny model, with broken, running, old and hostile ones beside them; and its server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from interp_unlearn.latents import identity_basis
from interp_unlearn.runs import Workbench, configs_from_dict, run
from interp_unlearn.worlds import TinyWorldConfig, make_task, tinyworld
from interp_unlearn.zoo import tinyworld_model

REPO = Path(__file__).resolve().parents[2]
APPS = REPO / "apps"
sys.path.append(str(APPS))

HOSTILE = '<script>window.hacked=1</script><img src="http://outside.example/x.png" onerror="window.hacked=1">'
PICTURE = "![x](http://outside.example/y.png)"
BROWSER_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
WORLD = {"n_known": 20, "n_unknown": 24, "n_layers": 2, "d_model": 32, "steps": 1, "batch_size": 8}
SITE = "blocks.1.hook_resid_post"
RUNS = {
    "model": {"name": "tinyworld"},
    "world": {"name": "tinyworld", "options": WORLD, "n_known": 8, "n_unknown": 20},
    "target": {"entities": ["person-0"]},
    "evidence": {"layer_stride": 1, "level": "quick", "require_known": False, "gold": False},
    "recipe": [{"objective": "ga", "steps": 2, "lr": 1e-3}, {"objective": "npo", "steps": 2, "lr": 1e-3}],
}


@dataclasses.dataclass(frozen=True)
class Gallery:
    """A folder of runs, one finished run in it, what it was made with, and where its models are cached."""

    root: Path
    real: Path
    bench: Workbench
    cache: Path


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("gallery")
    root, cache = folder / "runs", folder / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_UNLEARN_CACHE", str(cache))
        bench = tiny_bench()
        for config in configs_from_dict(RUNS, "tiny"):
            run(config, root / "tiny" / config.name, bench=bench)
    real = root / "tiny" / "ga"
    spoil(root, real)
    return Gallery(root, real, bench, cache)


def tiny_bench() -> Workbench:
    """A model of one training step with the axes of its residual stream as latents, so that a run takes seconds."""
    settings = TinyWorldConfig(**WORLD)
    model, world = tinyworld_model(settings, progress=lambda *_: None), tinyworld(settings)
    task = make_task(world, ["person-0"], tokenizer=model.tokenizer, n_known=8, n_unknown=20, max_prompts=8)
    task = dataclasses.replace(task, text_eval=task.text_eval[:4], text_train=task.text_train[:40])
    return Workbench(model, task, world, {"main": identity_basis(model.lm.d_model, site=SITE)})


def spoil(root: Path, real: Path) -> None:
    """Copies of a run with everything that can be wrong with one."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(real, root / "odd" / name))

    def change(file: Path, **facts: object) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))

    running = copy("running")
    change(running / "status.json", state="running")
    shutil.rmtree(running / "evidence")
    with (running / "events.jsonl").open("a") as events:
        events.write('{"kind": "step", "st')
    old = copy("old")
    change(old / "config.json", version="0.0.1")
    for file in (old / "tables").glob("view.*"):
        file.unlink()
    damaged = copy("damaged")
    (damaged / "tables" / "behaviour.after.json").write_text('{"kind": "labelled", "val')
    (damaged / "evidence" / "extra.json").write_text('{"kind": "evidence"}')
    (damaged / "verdict.json").write_text("[1, 2]")
    half = root / "odd" / "half"
    half.mkdir()
    shutil.copy(real / "config.json", half)
    (root / "odd" / "broken").mkdir()
    (root / "odd" / "broken" / "config.json").write_text('{"kind": "run", "name":')
    hostile = copy("<b>hostile")
    change(hostile / "config.json", name=f"{HOSTILE} {PICTURE}")
    verdict = {"label": HOSTILE, "sentence": f"{PICTURE} {HOSTILE}"}
    (hostile / "verdict.json").write_text(json.dumps(verdict))
    task = json.loads((hostile / "task.json").read_text())
    task["target_entities"][0]["name"] = HOSTILE
    (hostile / "task.json").write_text(json.dumps(task))


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def server(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an explorer that serves the gallery."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    start = "from interp_unlearn.cli import app; app()"
    command = [sys.executable, "-c", start, "explore", str(gallery.root), "--port", str(port), "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    environment["INTERP_UNLEARN_CACHE"] = str(gallery.cache)
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
        else:
            raise AssertionError(f"the explorer did not start: {log.read_text()}")
        yield address
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Debian's Chromium, driven by Playwright."""
    path = find_browser()
    if path is None:
        pytest.skip("no browser: install Chromium (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of pages are saved: $INTERP_UNLEARN_SCREENSHOTS, else a folder of the test session."""
    named = os.environ.get("INTERP_UNLEARN_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def make_copy(gallery: Gallery, tmp_path: Path):
    """`make_copy("tiny")` is a folder of runs that a test may change."""

    def make(part: str) -> Path:
        return Path(shutil.copytree(gallery.root / part, tmp_path / "runs"))

    return make
