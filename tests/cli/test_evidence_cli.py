"""`audit`, `evidence` and `run --evidence` on the command line: lists, exit codes, one sentence for what is wrong."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interp_unlearn.cli import app
from interp_unlearn.probes import PARTS, Found, Part


def nothing(phases, progress) -> Found:
    raise AssertionError("listing measures nothing")


@pytest.fixture
def parts(monkeypatch):
    made = [
        Part("b-dear", "takes long", "attack", "full", nothing),
        Part("a-cheap", "is quick", "probe", "quick", nothing),
    ]
    monkeypatch.setattr(PARTS, "_items", {part.name: part for part in made})


def told(arguments: list[str]) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, " ".join((result.output + (result.stderr or "")).split())


def test_parts_are_listed_by_cost(parts):
    code, said = told(["evidence", "--list"])
    assert code == 0
    assert said.index("a-cheap") < said.index("b-dear")
    assert "takes long" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evidence"], "name at least one run folder"),
        (["evidence", "x", "--level", "most"], "not one of quick, standard, full"),
        (["evidence", "x", "--only", "a-chep"], "nearest: a-cheap"),
        (["evidence", "none"], "holds no run folder"),
        (["audit", "one", "two"], "name at least one entity"),
        (["audit", "one", "two", "-t", "Japan", "--level", "most"], "not one of quick, standard, full"),
        (["audit", "one", "two", "--questions", "none.json"], "none.json does not exist"),
        (["gate", "none", "--require", "forgotten"], "holds no run folder"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(parts, tmp_path: Path, monkeypatch, arguments, says: str):
    monkeypatch.chdir(tmp_path)
    code, said = told(arguments)
    assert code == 2
    assert says in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_the_level_of_a_run_can_be_chosen(tmp_path: Path, monkeypatch):
    seen = []

    def run(config, folder, progress):
        seen.append(config.evidence.level)
        raise KeyboardInterrupt

    monkeypatch.setattr("interp_unlearn.runs.run", run)
    file = tmp_path / "x.toml"
    file.write_text('[target]\nentities = ["Japan"]\n[recipe]\nobjective = "ga"\n')
    assert told(["run", str(file)])[0] == 130
    assert told(["run", str(file), "--evidence", "full"])[0] == 130
    assert seen == ["standard", "full"]
    code, said = told(["run", str(file), "--evidence", "most"])
    assert code == 2
    assert "evidence.level = 'most'" in said


def test_a_run_without_a_verdict_fails_the_gate_with_2(tmp_path: Path):
    folder = tmp_path / "run"
    (folder / "evidence").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"kind": "run", "name": "r"}))
    (folder / "status.json").write_text(json.dumps({"state": "done"}))
    code, said = told(["gate", str(folder), "--require", "forgotten"])
    assert code == 2
    assert "no verdict was saved" in said
