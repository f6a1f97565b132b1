"""The notebooks run, their lessons hold, and what is saved in them is small, whole and free of local facts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NEED_SMOLLM2 = ("1_", "2_")
PLOTLY = "application/vnd.plotly.v1+json"


def outputs(notebook: Any) -> list[Any]:
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


def structure(notebook: Any) -> list[list[str]]:
    """Kinds of output of each cell, each once: how a stream is cut into pieces is a matter of time."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [list(dict.fromkeys(o.output_type for o in c.outputs if o.get("name") != "stderr")) for c in cells]


def marked(path: Path) -> Any:
    marks = [pytest.mark.slow, *([pytest.mark.model] if path.name.startswith(NEED_SMOLLM2) else [])]
    return pytest.param(path, id=path.stem, marks=marks)


@pytest.mark.timeout(1800)  # under a minute each on a quiet machine
@pytest.mark.allow_localhost  # a kernel talks through sockets of this machine
@pytest.mark.parametrize("path", [marked(path) for path in NOTEBOOKS])
def test_runs_and_its_lessons_hold(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # more suffer badly where other programs are busy
    notebook = nbformat.read(path, as_version=4)
    saved = structure(notebook)
    client = NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises where a cell, or an assert in it, fails
    assert not [o.text for o in outputs(notebook) if o.get("name") == "stderr" and "Warning" in o.text]
    assert structure(notebook) == saved


def test_there_are_eight_and_the_table_lists_them() -> None:
    assert [int(path.name[0]) for path in NOTEBOOKS] == list(range(1, 9))
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in NOTEBOOKS if f"]({path.name})" not in readme] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_saved_outputs_are_whole_and_small(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert path.stat().st_size < 300_000
    assert notebook.metadata.kernelspec.name == "python3"
    found = outputs(notebook)
    assert not [o for o in found if o.output_type == "error" or o.get("name") == "stderr"]
    figures = [o.data for o in found if PLOTLY in o.get("data", {})]
    assert figures and all("image/png" in data for data in figures)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_private_and_nothing_local(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    source = "\n".join(cell.source for cell in notebook.cells)
    assert not re.findall(r"^\s*(?:from|import) interp_unlearn[\w.]*\._\w+", source, re.MULTILINE)
    texts = [o.get("text", "") or json.dumps(o.get("data", {}).get("text/plain", "")) for o in outputs(notebook)]
    assert not re.findall(r"(?:^|[\s'\"(])/(?:home|root|tmp|work|Users)/\S+", "\n".join([source, *texts]))
    linked = re.findall(r"\]\(([\w./-]+\.(?:ipynb|md))\)", source)
    assert [name for name in linked if not (FOLDER / name).exists()] == []
