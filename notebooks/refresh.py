"""Run the notebooks and save them with what they show.

    python notebooks/refresh.py                        all of them
    python notebooks/refresh.py 1_open_and_capture     only this one

Each figure is saved twice: as plotly JSON, which Jupyter and VS Code draw without a network, and as a PNG, which GitHub
and other viewers show. The PNGs are drawn by the Chromium of this machine; without one they are left out, with a
notice.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
PLOTLY = "application/vnd.plotly.v1+json"
WIDTH = 760
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def execute(path: Path, folder: str | Path) -> Any:
    """A notebook with fresh outputs, run in ``folder``; an error in a cell is raised."""
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"  # plotly's own default would save its whole library as well
    notebook = nbformat.read(path, as_version=4)
    options: dict[str, Any] = {"resources": {"metadata": {"path": str(folder)}}, "record_timing": False}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", **options).execute()
    return notebook


def tidy(notebook: Any) -> None:
    """Leave out what differs from machine to machine: the kernel's version and progress bars."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not (o.get("name") == "stderr" and _is_progress(o.text))]


def _is_progress(text: str) -> bool:
    return "\r" in text or not text.strip()


def add_pictures(notebook: Any) -> None:
    """A PNG beside every plotly figure."""
    figures = [o.data for c in notebook.cells for o in c.get("outputs", ()) if PLOTLY in o.get("data", {})]
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if not figures or browser_path is None:
        if figures:
            print("no Chromium was found, so the figures are saved without a PNG", file=sys.stderr)
        return
    from playwright.sync_api import sync_playwright
    from plotly.offline import get_plotlyjs

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content("<!doctype html><meta charset=utf-8>")
        page.add_script_tag(content=get_plotlyjs())
        for data in figures:
            size = {"format": "png", "width": WIDTH, "height": data[PLOTLY]["layout"].get("height", 380)}
            url = page.evaluate("([figure, size]) => Plotly.toImage(figure, size)", [data[PLOTLY], size])
            data["image/png"] = _smaller(url.split(",", 1)[1])
        browser.close()


def _smaller(png: str) -> str:
    """A PNG (base64) in at most 256 colours: a third of the size."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        image.quantize(256, method=Image.Quantize.FASTOCTREE).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def _processor_seconds() -> float:
    used = os.times()
    return used.children_user + used.children_system


def main(names: list[str]) -> None:
    """Refresh the named notebooks, or all."""
    for path in [HERE / f"{Path(n).stem}.ipynb" for n in names] or sorted(HERE.glob("*.ipynb")):
        before = _processor_seconds()
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, folder)
        spent = _processor_seconds() - before
        tidy(notebook)
        add_pictures(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {spent:.0f} s of processor time, {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
