"""What the explorer finds in a folder of runs, without a server."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from explorer.folder import comparison_of, runs_in
from explorer.words import literal, notices_of, percent, state_of

REPO = Path(__file__).resolve().parents[2]


def by_id(gallery) -> dict:
    return {one.id: one for one in runs_in(gallery.root)}


def test_every_run_is_listed_whatever_its_state(gallery):
    found = by_id(gallery)
    states = {name.removeprefix("odd/"): state_of(one.row) for name, one in found.items() if name.startswith("odd/")}
    assert states == {
        "<b>hostile": "done",
        "broken": "unreadable",
        "damaged": "done, with gaps",
        "half": "half written",
        "old": "done",
        "running": "being written",
    }
    assert sum(name.startswith("tiny/") for name in found) == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("running", "being written"),
        ("half", "half written"),
        ("old", "Written by version 0.0.1"),
        ("damaged", "behaviour"),
    ],
)
def test_what_is_wrong_with_a_run_is_said(gallery, name: str, says: str):
    assert says in " ".join(notices_of(by_id(gallery)[f"odd/{name}"].row))


def test_a_broken_run_has_a_sentence(gallery):
    assert "not valid JSON" in by_id(gallery)["odd/broken"].problem


def test_a_run_is_read_again_only_when_it_changed(make_copy):
    root = make_copy("tiny")
    (one, *_) = runs_in(root)
    first = comparison_of([one])
    (again, *_) = runs_in(root)
    assert comparison_of([again]) is first
    status = one.path / "status.json"
    facts = json.loads(status.read_text())
    status.write_text(json.dumps({**facts, "state": "failed", "message": "stopped for a test"}))
    (changed, *_) = runs_in(root)
    assert changed.row.state == "failed"
    assert comparison_of([changed]) is not first


def test_a_file_that_is_replaced_is_seen(make_copy):
    root = make_copy("tiny")
    (before, *_) = runs_in(root)
    table = next((before.path / "tables").glob("behaviour.after.json"))
    text = table.read_text()
    table.unlink()
    table.write_text(text)
    (after, *_) = runs_in(root)
    assert after.stamp != before.stamp


def test_runs_side_by_side_share_their_target(gallery):
    one, other = (by for name, by in by_id(gallery).items() if name.startswith("tiny/"))
    assert one.group == other.group
    assert list(comparison_of([one, other]).runs) == [one.row.name, other.row.name]


def test_an_empty_folder_has_no_runs(tmp_path: Path):
    assert runs_in(tmp_path) == ()
    assert runs_in(tmp_path / "absent") == ()


def test_the_explorer_starts_without_torch(gallery):
    code = (
        "import sys; from pathlib import Path; from explorer import shell; from explorer.folder import *; "
        f"[(one.row, comparison_of([one]) if one.row else 0) for one in runs_in(Path({str(gallery.root)!r}))]; "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    path = os.pathsep.join([str(REPO), str(REPO / "apps")])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    "text", ["<b>x</b>", "![a](http://b)", "[a](b)", "$x$", ":red[a]", "a_b*c`d", "# a", "- a", "1. a"]
)
def test_markup_in_names_is_shown_as_it_is(text: str):
    escaped = literal(text)
    assert escaped.replace("\\", "").replace("\u2060", "") == text
    assert "://" not in escaped.replace("\\", "")
    assert all(escaped[i - 1] == "\\" for i, c in enumerate(escaped) if c in "<>[]()!$:_*`#")


def test_numbers_that_are_missing_or_infinite():
    assert percent(float("nan")) == "–"
    assert percent(float("inf")) == "lost"
    assert percent(0.5) == "50 %"


def test_runs_that_are_offered_side_by_side_are_shown_side_by_side(make_copy):
    root = make_copy("tiny")
    for place, n_known in (("other", 9), ("elsewhere", 8)):
        copy = Path(shutil.copytree(root / "ga", root / place))
        config = json.loads((copy / "config.json").read_text())
        config["world"] |= {"n_known": n_known, "data_dir": place}
        (copy / "config.json").write_text(json.dumps(config))
    found = {one.id: one for one in runs_in(root)}
    assert found["other"].group != found["ga"].group
    beside = [one for one in found.values() if one.group == found["ga"].group]
    assert [one.id for one in beside] == ["elsewhere", "ga", "npo"]
    assert len(comparison_of(beside).runs) == 3


def test_a_run_of_odd_types_does_not_take_down_the_list(make_copy, monkeypatch):
    root = make_copy("tiny")
    config = json.loads((root / "ga" / "config.json").read_text())
    (root / "ga" / "config.json").write_text(json.dumps({**config, "target": {"entities": None, "relations": 3}}))
    assert "target.relations is not a list" in " ".join(
        next(one for one in runs_in(root) if one.id == "ga").row.problems
    )

    def broken(path: Path) -> None:
        raise TypeError("'int' object is not iterable")

    monkeypatch.setattr("explorer.folder.read_board_row", broken)
    (root / "npo" / "status.json").write_text('{"state": "stopped"}')
    one = next(one for one in runs_in(root) if one.id == "npo")
    assert one.row is None
    assert "it cannot be read (TypeError" in one.problem
