"""The run folder: foreign folders are refused, events of lost steps go away, phases are shared."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_unlearn._core import Axis, FileFormatError, Labelled
from interp_unlearn.runs import RunFolder
from interp_unlearn.runs._cost import Cost
from interp_unlearn.runs._folder import file_name


def table(name: str) -> Labelled:
    return Labelled(name, np.array([1.0, 2.0]), (Axis("site", ("a", "b")),), n=3, mask_policy="content")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    out = RunFolder(tmp_path / "run")
    out.write_config({"name": "x"}, {"torch": "1"})
    return out


def test_only_run_folders_open(tmp_path: Path, folder: RunFolder):
    assert RunFolder.open(folder.path).config()["name"] == "x"
    with pytest.raises(FileFormatError, match="not a run folder"):
        RunFolder.open(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"kind": "else"}')
    with pytest.raises(FileFormatError, match="not written by interp-unlearn"):
        RunFolder.open(tmp_path / "other")


def test_find_takes_a_run_or_a_folder_of_runs(tmp_path: Path, folder: RunFolder):
    assert [f.path for f in RunFolder.find(folder.path)] == [folder.path]
    assert [f.path for f in RunFolder.find(tmp_path)] == [folder.path]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileFormatError, match="holds no run folder"):
        RunFolder.find(tmp_path / "empty")


def test_events_after_the_checkpoint_are_dropped(folder: RunFolder):
    for step in range(1, 6):
        folder.log("step", step=step, loss=float(step))
    folder.drop_events_after(3)
    assert [e["step"] for e in folder.events("step")] == [1, 2, 3]


def test_a_line_that_a_kill_cut_short_is_replaced(folder: RunFolder):
    folder.log("step", step=1)
    file = folder.path / "events.jsonl"
    file.write_bytes(file.read_bytes() + b'{"kind": "step", "st')
    assert [e["step"] for e in folder.events()] == [1]
    folder.log("error", message="x" * 100_000)
    folder.log("step", step=2)
    assert [e["kind"] for e in folder.events()] == ["step", "error", "step"]


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"state": 3}'])
def test_a_status_that_is_none_is_said(folder: RunFolder, text: str):
    (folder.path / "status.json").write_text(text)
    with pytest.raises(FileFormatError, match="does not hold the status of a run; delete"):
        folder.finished("before")


def test_a_list_of_parts_that_is_none_is_said(folder: RunFolder):
    (folder.path / "parts.json").write_text("[]")
    with pytest.raises(FileFormatError, match="does not hold the parts"):
        folder.parts()


def test_costs_of_sessions_add_up_and_the_largest_peak_stays(folder: RunFolder):
    folder.add_cost("train", Cost(2.0, 1.5, 100.0))
    folder.add_cost("train", Cost(1.0, 0.5, None))
    folder.finish_part("train", Cost(0.5, 0.25, 40.0))
    status = folder.status()
    assert (status["seconds"]["train"], status["cpu_seconds"]["train"], status["peak_mb"]["train"]) == (
        3.5,
        2.25,
        100.0,
    )
    assert status["finished"] == ["train"]


def test_files_are_as_readable_as_the_user_wants_them(folder: RunFolder):
    before = os.umask(0o077)
    try:
        folder.write_status("done")
    finally:
        os.umask(before)
    assert (folder.path / "status.json").stat().st_mode & 0o777 == 0o600


def test_tables_keep_labels_and_phases_are_linked(tmp_path: Path, folder: RunFolder):
    folder.save_tables([table("behaviour.before"), table("diff.cosine")])
    other = RunFolder(tmp_path / "other")
    other.link_phase_from(folder, "before")
    found = other.table("behaviour.before")
    assert found is not None
    assert found.at(site="b") == 2.0
    assert other.table("diff.cosine") is None


def test_checkpoint_pointer_moves_last(folder: RunFolder):
    assert folder.checkpoint() is None
    for step in (1, 2):
        folder.save_checkpoint(step, {"w": torch.full((2,), float(step))}, {"rng": [step]})
    step, tensors, facts = folder.checkpoint() or (0, {}, {})
    assert (step, facts["rng"]) == (2, [2])
    assert torch.equal(tensors["w"], torch.full((2,), 2.0))
    assert len(list((folder.path / "checkpoint").glob("*.safetensors"))) == 1
    folder.drop_checkpoint()
    assert folder.checkpoint() is None


def test_finished_parts_survive_reopening(folder: RunFolder):
    folder.finish_part("before", Cost(1.5, 1.0))
    again = RunFolder.open(folder.path)
    assert again.finished("before")
    assert not again.finished("train")
    assert again.status()["seconds"]["before"] == 1.5


def test_names_become_plain_file_names():
    assert file_name("alignment.t/residual") == "alignment.t-residual"
    assert "/" not in file_name("../../etc/passwd")
