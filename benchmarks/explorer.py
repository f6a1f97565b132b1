"""How fast the explorer is on a folder of many runs, in a real browser.

    python benchmarks/explorer.py runs/japan/ga --runs 50

Copies one finished run as often as asked (each copy with another name, target and seed), serves the folder with
`interp-unlearn explore`, and drives Chromium. Measured are, warm (server and browser have seen every page once):

- first paint: from asking for the address to the list of runs being drawn,
- page change: from the click on a link to the heading of the new page being drawn,
- first picture: from that click to the first picture of the new page being drawn, and
- cold start: from starting the command to the first paint.

Beside wall time stands the processor time of server and browser together, which other programs on the machine lengthen
little: on a machine with nothing else to do, wall time is no longer than that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
LIST = "[data-testid=stDataFrame] canvas"
PICTURE = "[data-stale=false] [data-testid=stPlotlyChart] .main-svg"  # not one of the page that was left
PAGES = ("Run", "Inside", "Latents", "Lens", "Attacks")
TARGETS, SEEDS = 5, 2


def copies(run: Path, n: int, root: Path) -> None:
    """Write ``n`` runs that differ in name, target and seed."""
    for i in range(n):
        target, seed = i % TARGETS, (i // TARGETS) % SEEDS
        folder = root / f"target-{target}-seed{seed}" / f"method-{i // (TARGETS * SEEDS)}"
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("*.safetensors", "activations", "measured"))
        config = json.loads((folder / "config.json").read_text())
        config |= {"name": folder.name, "seed": seed, "target": {"entities": [f"target-{target}"]}}
        (folder / "config.json").write_text(json.dumps(config))


def serve(root: Path, port: int) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("interp-unlearn")), "explore", str(root), "--port", str(port)]
    return subprocess.Popen([*command, "--no-browser"], stdout=subprocess.DEVNULL)


class Clock:
    """Wall time and processor time of server and browser since it was made."""

    def __init__(self, server: int) -> None:
        self.processes = [psutil.Process(server), *psutil.Process().children(recursive=True)]
        self.started = time.perf_counter(), self._processor()

    def _processor(self) -> float:
        total = 0.0
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                used = process.cpu_times()
                total += used.user + used.system
        return total

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.started[0], self._processor() - self.started[1]


Times = list[tuple[float, float]]


def first_paint(page: Page, address: str, server: int) -> tuple[float, float]:
    clock = Clock(server)
    page.goto(address, wait_until="commit")
    page.wait_for_selector(LIST)
    return clock.read()


def page_change(page: Page, name: str, server: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """To the heading, and to the first picture."""
    link = page.get_by_test_id("stSidebar").get_by_role("link", name=name, exact=True)
    clock = Clock(server)
    link.click()
    page.get_by_role("heading", name=name, exact=True, level=1).wait_for()
    heading = clock.read()
    page.wait_for_selector(PICTURE)
    return heading, clock.read()


def medians(times: Times) -> dict[str, float]:
    wall, processor = zip(*times, strict=True)
    return {"wall, s": round(statistics.median(wall), 2), "processor, s": round(statistics.median(processor), 2)}


def measure(address: str, browser_path: str, repeats: int, server: int) -> dict[str, Any]:
    clock = Clock(server)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        for _ in range(600):
            with contextlib.suppress(Exception):
                page.goto(address)
                break
            time.sleep(0.2)
        page.wait_for_selector(LIST)
        cold = clock.read()[0]
        for name in PAGES:
            page_change(page, name, server)
        paints = [first_paint(page, address, server) for _ in range(repeats)]
        changes = {name: [page_change(page, name, server)] for name in PAGES}
        for _ in range(repeats - 1):
            for name in PAGES:
                changes[name].append(page_change(page, name, server))
        browser.close()
    return {
        "cold start, s": round(cold, 2),
        "first paint": medians(paints),
        "page change": medians([heading for own in changes.values() for heading, _ in own]),
        "first picture": medians([picture for own in changes.values() for _, picture in own]),
        "first picture, by page": {name: medians([picture for _, picture in own]) for name, own in changes.items()},
        "repeats": repeats,
        "programs waiting for the processor": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--browser", default=shutil.which("chromium") or "chromium")
    options = parser.parse_args()
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        copies(options.run, options.runs, Path(folder))
        server = serve(Path(folder), port)
        try:
            found = measure(f"http://127.0.0.1:{port}", options.browser, options.repeats, server.pid)
        finally:
            server.terminate()
            server.wait()
    print(json.dumps({"runs": options.runs, **found}, indent=1))


if __name__ == "__main__":
    main()
