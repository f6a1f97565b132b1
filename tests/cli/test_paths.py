"""Names, paths and files on the command line: printed as they are, refused in one sentence before any work is done."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from interp_unlearn.cli import app
from interp_unlearn.cli._audit import plain_name
from interp_unlearn.cli._catalog import fetch_command, show_world_command
from interp_unlearn.cli._table import print_table, print_verdicts
from interp_unlearn.report import page_path
from interp_unlearn.runs import RunFolder

ONE = '[target]\nentities = ["Japan"]\n[recipe]\nobjective = "ga"\n'
TWO = '[target]\nentities = ["Japan"]\n[[recipe]]\nobjective = "ga"\n[[recipe]]\nobjective = "npo"\n'
SAE = 'site = "blocks.1.hook_resid_post"\nd_sae = 128\nmodel = "none"\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("interp_unlearn.report._html.get_plotlyjs", lambda: "/* plotly */")
    return tmp_path


def told(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join((result.output + (result.stderr or "")).split())


def make(folder: Path, **changes: object) -> Path:
    """A run folder with as much as a list of runs needs."""
    for part in ("tables", "evidence"):
        (folder / part).mkdir(parents=True)
    config = {"kind": "run", "name": folder.name, "seed": 0, "target": {"entities": ["Japan"]}, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "status.json").write_text(json.dumps({"state": "done"}))
    return folder


# -- what is printed ---------------------------------------------------------------------------------------------------


def test_square_brackets_in_names_and_paths_are_printed(here: Path, capsys: pytest.CaptureFixture[str]):
    run = make(here / "[old]" / "x", name="ga [v2]", model={"name": "[m] :smile:"})
    (run / "verdict.json").write_text(json.dumps({"label": "kept", "sentence": "[a] says so"}))
    assert "[old]/x/report.html" in told("report", "[old]/x")[1]
    code, said = told("compare", "[old]", "--csv", "[old]/t.csv")
    assert code == 0
    assert "CSV: [old]/t.csv" in said
    assert "[m] :smile:" in said
    assert "[none] holds no run folder" in told("report", "[none]")[1]
    print_table([RunFolder(run)])
    print_verdicts([RunFolder(run)])
    printed = capsys.readouterr().out
    for name in ("ga [v2]", "[m] :smile:", "[a] says so"):
        assert name in printed


@pytest.mark.parametrize("text", [ONE, TWO])
def test_ctrl_c_says_what_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("interp_unlearn.runs.run", stop)
    monkeypatch.setattr("interp_unlearn.runs.run_many", stop)
    (here / "x.toml").write_text(text)
    code, said = told("run", "x.toml")
    assert code == 130
    assert "The same command goes on." in said


# -- files of other origin ---------------------------------------------------------------------------------------------


def test_a_page_of_other_origin_is_not_replaced(here: Path, monkeypatch: pytest.MonkeyPatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("refused before any work")

    monkeypatch.setattr("interp_unlearn.runs.run_many", never)
    run = make(here / "runs" / "one")
    mine = here / "runs" / "report.html"
    mine.write_text("<h1>My thesis</h1>")
    (here / "x.toml").write_text(TWO)
    for words in (
        ("run", "x.toml", "--out", "runs"),
        ("resume", "runs"),
        ("evidence", "runs"),
        ("report", "runs"),
        ("report", run, "--out", mine),
        ("compare", run, "--html", mine),
        ("audit", "a", "b", "-t", "Japan", "--out", "runs"),
    ):
        code, said = told(*words)
        assert code == 2, words
        assert "was not made by interp-unlearn and is not replaced" in said, words
    assert mine.read_text() == "<h1>My thesis</h1>"


def test_pages_of_ours_are_replaced(here: Path):
    run = make(here / "one")
    for _ in range(2):
        assert told("report", run)[0] == 0
        assert told("compare", run, "--html", "c.html")[0] == 0
    assert page_path(here / "c.html") == here / "c.html"
    assert told("compare", run, "--html", here)[0] == 0
    assert (here / "compare.html").exists()


def test_what_cannot_be_read_or_written_is_said_first(here: Path):
    run = make(here / "one")
    (here / "latin.txt").write_bytes("Köln ist schön.".encode("latin-1"))
    recipes = {"empty": '[""]', "none": '["nope*.txt"]', "latin": '["latin.txt"]', "root": f'["{here}/latin.txt"]'}
    for name, texts in recipes.items():
        (here / f"{name}.toml").write_text(f"{SAE}texts = {texts}\n")
    site = ("--site", "blocks.1.hook_resid_post", "--out", "store")
    for words, says in (
        (("compare", run, "--csv", here), "--csv"),
        (("compare", run, "--csv-runs", here), "is a folder; give a file, for example"),
        (("run", here), "is a folder; give the path of a TOML config"),
        (("sweep", here), "is a folder; give the path of a TOML file"),
        (("audit", "a", "b", "--questions", here), "is a folder; give the path of a file of questions"),
        (("capture", "none", "latin.txt", *site), "latin.txt is not UTF-8 text (invalid start byte at byte 1)"),
        (("capture", "none", here, *site), "is a folder; give a text file"),
        (("capture", "none", "latin.txt", *site, "--length", "0"), "--length"),
        (("capture", "none", "latin.txt", *site, "--length", "-3"), "--length"),
        (("sae", "eval", "none", "latin.txt"), "latin.txt is not UTF-8 text"),
        (("sae", "train", "empty.toml", "--out", "x"), "match no file"),
        (("sae", "train", "none.toml", "--out", "x"), "match no file"),
        (("sae", "train", "latin.toml", "--out", "x"), "latin.txt is not UTF-8 text"),
        (("sae", "train", "root.toml", "--out", "x"), "latin.txt is not UTF-8 text"),
        (("sae", "train", here, "--out", "x"), "is a folder; give the path of a TOML recipe"),
    ):
        code, said = told(*words)
        assert code == 2, words
        assert says in said, words


def test_an_audit_keeps_the_dots_of_a_name():
    names = (
        "runs/step-0.5",
        "step-0.7/",
        "org/model-v0.1",
        "a/w.safetensors",
        "a/m-q4.0.gguf",
        "a/delta.x.safetensors",
    )
    assert [plain_name(n) for n in names] == ["step-0.5", "step-0.7", "model-v0.1", "w", "m-q4.0", "delta.x"]


# -- several runs ------------------------------------------------------------------------------------------------------


def test_one_run_that_cannot_be_resumed_does_not_stop_the_others(here: Path, monkeypatch: pytest.MonkeyPatch):
    from interp_unlearn._core import TrainingDivergedError

    for name in ("a", "grid/Japan-seed0/b", "c"):
        make(here / "runs" / name)
    (here / "runs" / "c" / "verdict.json").write_text(json.dumps({"label": "kept", "sentence": "It is kept."}))
    (here / "runs" / "broken").mkdir()
    (here / "runs" / "broken" / "config.json").write_text("{")
    seen = []

    def resume(path: Path, progress: object) -> RunFolder:
        seen.append(path.name)
        if path.name == "a":
            raise TrainingDivergedError("the loss is NaN")
        return RunFolder(path)

    monkeypatch.setattr("interp_unlearn.runs.resume", resume)
    code, said = told("resume", "runs")
    assert code == 2
    assert seen == ["a", "c", "b"]
    for words in ("runs/a: the loss is NaN", "left out: runs/broken/config.json", "c: It is kept.", "runs/report.html"):
        assert words in said


# -- lists -------------------------------------------------------------------------------------------------------------


def test_what_is_listed_can_be_shown(here: Path, capsys: pytest.CaptureFixture[str]):
    # Called as they are: the groups' own callbacks take a context of which typer has a class of its own.
    show_world_command("citations", None, None)
    assert "600 nodes" in capsys.readouterr().out
    show_world_command("coloured-shapes", None, None)
    assert "training images" in capsys.readouterr().out
    fetch_command("small-resnet")
    assert "nothing to fetch" in capsys.readouterr().out
    for name, entity in (("cora", None), ("citations", "Japan")):
        with pytest.raises(typer.Exit):
            show_world_command(name, here, entity)
    said = capsys.readouterr().err
    assert "cora is not at hand" in said
    assert "has none; leave it out" in said
