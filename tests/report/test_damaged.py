"""Damaged and odd run folders: the gate does not pass what it cannot tell, and every view says what it left out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interp_unlearn._core import DataError, read_json, write_json
from interp_unlearn.cli import app
from interp_unlearn.report import (
    as_text,
    find_runs,
    gate,
    read_board_row,
    read_run,
    read_runs,
    report_json,
    summarise,
    write_report,
)
from interp_unlearn.runs import RunFolder


@pytest.fixture
def run(make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("interp_unlearn.report._html.get_plotlyjs", lambda: "/* plotly */")
    return make_run(tmp_path / "run", "sae_guided")


def edit(path: Path, **changes: object) -> None:
    write_json(path, {**read_json(path), **changes})


def shorten(path: Path) -> None:
    path.write_text(path.read_text()[:300])


def drop_set(path: Path, name: str) -> None:
    table = read_json(path)
    sets = next(a for a in table["axes"] if a["name"] == "set")["labels"]
    del table["values"][sets.index(name)]
    sets.remove(name)
    write_json(path, table)


# -- the gate ----------------------------------------------------------------------------------------------------------


def test_a_whole_run_passes(run: Path):
    assert gate(read_run(run), max_side_effects=0.05).passed


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda r: shorten(r / "tables" / "behaviour.after.json"), "files are missing or damaged"),
        (lambda r: shorten(r / "task.json"), "files are missing or damaged"),
        (lambda r: (r / "tables" / "behaviour.after.json").unlink(), "no number for answered right: known neighbours"),
        (lambda r: (r / "tables" / "text_loss.after.json").unlink(), "no number for loss on general text"),
        (
            lambda r: drop_set(r / "tables" / "behaviour.after.json", "neighbours"),
            "no number for answered right: known neighbours",
        ),
        (lambda r: [p.unlink() for p in r.glob("tables/behaviour*")], "no number for answered right: known neighbours"),
        (lambda r: [p.unlink() for p in r.glob("tables/text_loss*")], "no number for loss on general text"),
    ],
)
def test_side_effects_that_cannot_be_told_do_not_pass(run: Path, damage: Callable[[Path], object], says: str):
    damage(run)
    with pytest.raises(DataError, match=says):
        gate(read_run(run), max_side_effects=0.05)
    done = CliRunner().invoke(app, ["gate", str(run), "--max-side-effects", "0.05"])
    assert done.exit_code == 2
    assert "side effects cannot be told" in " ".join(done.stderr.split())


def test_a_missing_log_of_steps_tells_nothing_of_side_effects(run: Path):
    (run / "events.jsonl").unlink()
    assert read_run(run).problems == ("events.jsonl does not exist",)
    assert gate(read_run(run), max_side_effects=0.05).passed


def test_a_model_edited_elsewhere_took_no_step(run: Path):
    edit(run / "config.json", model={"name": "smollm2-135m", "edited": "other"})
    (run / "events.jsonl").unlink()
    assert read_run(run).problems == ()
    assert gate(read_run(run), max_side_effects=0.05).passed


# -- the reader --------------------------------------------------------------------------------------------------------


ODD = [
    ("config.json", {"target": {"entities": None, "relations": 3}}, "target.relations is not a list"),
    ("config.json", {"target": 4, "model": [], "world": "x", "seed": [1]}, "target is not an object"),
    ("config.json", {"versions": 3, "recipe": 3, "evidence": None}, "versions is not an object"),
    ("task.json", {"text_eval": 5, "sources": 4, "mention_heldout": 3}, "text_eval is not a list"),
    ("task.json", {"target_entities": [3], "forget_train": {"prompts": 3}}, "forget_train.prompts is not a list"),
    ("task.json", {"modality": 3}, "modality is not a text"),
    ("status.json", {"finished": 3, "seconds": [1], "message": 2}, "finished is not a list"),
    ("verdict.json", {"label": "forgotten", "probabilities": {"forgotten": float("inf")}, "decided_by": 3}, ""),
    ("parts.json", {"parts": [1]}, "parts is not an object"),
]


@pytest.mark.parametrize(("file", "changes", "says"), ODD)
def test_a_wrong_type_is_a_sentence_in_every_view(run: Path, file: str, changes: dict, says: str):
    saved = read_json(run / file) if (run / file).exists() else {}
    write_json(run / file, {**saved, **changes})
    view = read_run(run)
    assert any(says in problem for problem in view.problems) or not says
    assert write_report([run], run / "r.html").stat().st_size
    assert json.loads(as_text(report_json([run])))["kind"] == "report"
    assert summarise([view])[0].measures
    assert read_board_row(run).state == "done"


def test_folders_where_files_should_be_do_not_end_the_report(run: Path):
    (run / "tables" / "x.json").mkdir()
    (run / "evidence" / "y.json").mkdir()
    for name in ("events.jsonl", "task.json"):
        (run / name).unlink()
        (run / name).mkdir()
    said = "; ".join(read_run(run).problems)
    for name in ("x.json", "y.json", "events.jsonl", "task.json"):
        assert f"{name} cannot be read (Is a directory)" in said
    assert write_report([run], run / "r.html").stat().st_size
    shutil.rmtree(run / "tables")
    assert read_run(run).tables == {}


# -- finding -----------------------------------------------------------------------------------------------------------


def test_every_command_finds_the_same_runs(run: Path, tmp_path: Path):
    root = tmp_path / "F"
    for place in ("japan", "grid/Japan-seed0/ga", "grid/Japan-seed0/npo"):
        shutil.copytree(run, root / place)
    (root / "model").mkdir()
    (root / "model" / "config.json").write_text('{"model_type": "llama"}')
    (root / "linked").symlink_to(run.resolve())
    (root / "grid" / "around").symlink_to(root)
    found = find_runs([root])
    names = ("grid/Japan-seed0/ga", "grid/Japan-seed0/npo", "japan", "linked")
    assert found == tuple(root / name for name in names)
    assert tuple(folder.path for folder in RunFolder.find(root)) == found
    assert read_runs([run, run])[1] == ()
    assert len(read_runs([run, run])[0]) == 1
