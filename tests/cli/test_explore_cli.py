"""`explore` on the command line: what it refuses, and how it keeps to this machine."""

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interp_unlearn.cli import app
from interp_unlearn.cli._explore import arguments, explorer_script

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with one run, as far as a list of runs looks."""
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"kind": "run", "name": "one"}))
    return tmp_path / "runs"


def told(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["explore", *words])
    return result.exit_code, " ".join((result.output + (result.stderr or "")).split())


def test_a_missing_or_empty_folder_says_what_to_run(tmp_path: Path):
    for folder, says in ((tmp_path / "none", "there is no folder"), (tmp_path, "holds no run folder yet")):
        code, said = told(str(folder))
        assert code == 2
        assert says in said
        assert "interp-unlearn run CONFIG" in said


def test_without_streamlit_it_says_what_to_install(runs: Path, monkeypatch):
    def no_module(name: str):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("interp_unlearn._core._optional.import_module", no_module)
    code, said = told(str(runs))
    assert code == 2
    assert "pip install 'interp-unlearn[app]'" in said


def test_it_listens_on_this_machine_and_reports_nothing(runs: Path):
    given = arguments(runs, port=8765, browser=False)
    flags = dict(zip(given[2:-2:2], given[3:-2:2], strict=True))
    assert flags["--server.address"] == "127.0.0.1"
    assert flags["--browser.gatherUsageStats"] == "false"
    assert flags["--server.port"] == "8765"
    assert given[-2:] == ["--", str(runs.resolve())]


def test_the_explorer_is_shipped():
    assert explorer_script().is_file()
    wheel = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "apps" in wheel["only-include"]
    assert wheel["sources"]["apps"] == "interp_unlearn/_apps"
