"""Registered parts of the evidence in runs: levels, resuming, sharing, adding later; phases on disk."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_unlearn._core import Axis, ConfigError, FileFormatError, Labelled, read_json, write_json
from interp_unlearn.probes import PARTS, Found, Part
from interp_unlearn.report import read_run, write_report
from interp_unlearn.runs import RunFolder, RunPhases, Workbench, add_evidence, add_evidence_many, run

from .tiny import Counting, embedding, tiny_bench, tiny_run_config


@pytest.fixture(scope="module")
def bench(cache: Path) -> Workbench:
    return tiny_bench()


@pytest.fixture
def parts(monkeypatch):
    """Registers parts for one test, in place of the library's own."""
    monkeypatch.setattr(PARTS, "_items", {})

    def register(*made: Counting) -> None:
        for one in made:
            PARTS._items[one.name] = one.part()

    return register


def test_a_run_looks_for_the_parts_of_its_level(bench: Workbench, parts, tmp_path: Path):
    quick, full = Counting("quick"), Counting("dear", level="full", kind="attack")
    parts(quick, full)
    out = run(tiny_run_config(), tmp_path / "ga", bench=bench)
    assert out.status()["state"] == "done"
    assert out.finished("evidence.quick")
    assert not out.finished("evidence.dear")
    assert (quick.looked, full.looked) == (1, 0)
    (found,) = [e for e in out.evidence() if e.name == "quick.sum/embed"]
    assert found.value != found.control, "the edited model was measured, and not the original"
    assert out.table("quick.sums").at(phase="after") == found.value
    assert out.parts()["quick"]["evidence"] == ["quick.sum/embed"]
    assert "evidence" not in out.parts()["dear"]
    page = write_report([out.path], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Not tried: counts as dear" in page
    assert "What is the sum?" in page


def test_a_config_names_parts_beyond_its_level(bench: Workbench, parts, tmp_path: Path):
    quick, dear, other = Counting("quick"), Counting("dear", level="full"), Counting("other", level="full")
    parts(quick, dear, other)
    out = run(tiny_run_config(also=("dear", "quick")), tmp_path / "ga", bench=bench)
    assert (quick.looked, dear.looked, other.looked) == (1, 1, 0)
    assert out.finished("evidence.dear")


def test_a_config_skips_parts_which_can_be_added_later(bench: Workbench, parts, tmp_path: Path):
    kept, view = Counting("kept"), Counting("view")
    parts(kept, view)
    config = tiny_run_config(skip=("view",))
    assert config.shared_key == tiny_run_config().shared_key, "the original's measurements are shared all the same"
    out = run(config, tmp_path / "ga", bench=bench)
    assert (kept.looked, view.looked) == (1, 0)
    assert not out.finished("evidence.view")
    add_evidence(out.path, "quick", bench=bench)
    assert (kept.looked, view.looked) == (1, 1)
    with pytest.raises(ConfigError, match="vieww"):
        run(tiny_run_config(skip=("vieww",)), tmp_path / "wrong", bench=bench)


def test_what_every_run_measures_cannot_be_skipped(bench: Workbench, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"evidence\.skip names lens, which every run measures itself"):
        run(tiny_run_config(skip=("lens",)), tmp_path / "ga", bench=bench)
    with pytest.raises(ConfigError, match=r"these are in evidence\.also too"):
        tiny_run_config(also=("readout",), skip=("readout",))


def test_before_is_measured_once_for_all_runs_on_a_target(bench: Workbench, parts, tmp_path: Path):
    part = Counting("quick")
    parts(part)
    for name in ("one", "two"):
        run(tiny_run_config(name), tmp_path / name, bench=bench)
    assert len(part.measured) == 3, "before once, after twice"
    shared = list(tmp_path.glob(".baseline-*/measured/before/*.json"))
    assert len(shared) == 1
    assert read_json(shared[0])["name"] == "quick/sum"


def test_gold_is_a_phase_where_it_can_be_made(bench: Workbench, parts, tmp_path: Path):
    part = Counting("quick")
    parts(part)
    out = run(tiny_run_config(gold=True), tmp_path / "ga", bench=bench)
    assert part.measured == ["tinyworld", "tinyworld", "tinyworld (gold)"]
    assert out.table("quick.sums").axes[0].labels == ("before", "after", "gold")


def test_what_cannot_be_measured_is_said_and_tried_again(bench: Workbench, parts, tmp_path: Path):
    part = Counting("quick", fails=1)
    parts(part)
    out = run(tiny_run_config(), tmp_path / "ga", bench=bench)
    (absent,) = [e for e in out.evidence() if e.name == "quick"]
    assert absent.value != absent.value
    assert absent.reason == "no such thing here; make one"
    assert out.status()["state"] == "done"
    assert "quick" in read_run(out.path).parts
    add_evidence(out.path, "quick", bench=bench)
    assert [e.name for e in out.evidence() if e.name.startswith("quick")] == ["quick.sum/embed"]
    add_evidence(out.path, "quick", bench=bench)
    assert part.looked == 2, "what is there is not measured again"
    broken = Counting("broken", level="full")
    broken.look = lambda *_: 1 / 0  # type: ignore[method-assign]
    parts(part, broken, Counting("also", level="full"))
    with pytest.raises(ZeroDivisionError):
        add_evidence(out.path, "full", bench=bench)
    assert out.status()["state"] == "done", "the run stays what it was"
    assert out.finished("evidence.also")


def test_a_view_has_no_evidence_and_says_why_it_saved_nothing(bench: Workbench, parts, tmp_path: Path):
    parts(Counting("quick"))
    shown = labelled("shown")

    def refuse(phases, progress):
        raise ConfigError("there is nothing <b>here</b> to show")

    PARTS._items["works"] = Part("works", "maps", "view", "quick", lambda p, _: Found(tables={"view.works": shown}))
    PARTS._items["token_map"] = Part("token_map", "maps", "view", "quick", refuse)
    out = run(tiny_run_config(), tmp_path / "ga", bench=bench)
    assert out.status()["state"] == "done"
    known = out.parts()
    assert known["works"]["tables"] == ["view.works"] and out.table("view.works") is not None
    assert known["token_map"]["reason"] == "there is nothing <b>here</b> to show"
    assert not known["token_map"]["evidence"] and not any(e.name == "token_map" for e in out.evidence())
    page = write_report([out.path], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "there is nothing &lt;b&gt;here&lt;/b&gt; to show" in page


def labelled(name: str) -> Labelled:
    return Labelled(name, np.ones(1), (Axis("x", ("a",)),), n=1, mask_policy="-")


def test_other_errors_are_bugs_and_fail_loudly(bench: Workbench, parts, tmp_path: Path):
    broken, fine = Counting("b"), Counting("a")
    broken.look = lambda *_: 1 / 0  # type: ignore[method-assign]
    parts(broken, fine)
    with pytest.raises(ZeroDivisionError):
        run(tiny_run_config(), tmp_path / "ga", bench=bench)
    assert RunFolder(tmp_path / "ga").finished("evidence.a"), "what was measured before it is kept"
    assert not bench.originals, "the model got its weights back"
    parts(Counting("b"))
    assert run(tiny_run_config(), tmp_path / "ga", bench=bench).status()["state"] == "done"
    assert fine.looked == 1


def test_evidence_is_added_to_a_run_of_an_earlier_version(bench: Workbench, parts, tmp_path: Path, monkeypatch):
    out = run(tiny_run_config(), tmp_path / "ga", bench=bench)
    config = read_json(out.path / "config.json")
    del config["evidence"]["level"], config["model"]["edited"], config["model"]["gold"]
    write_json(out.path / "config.json", config)
    (out.path / "parts.json").unlink()
    part, other = Counting("dear", level="full"), Counting("other", level="full")
    parts(part, other)
    opened = []
    monkeypatch.setattr("interp_unlearn.runs._evidence.reopen_workbench", lambda *_: opened.append(1) or bench)
    (done,) = add_evidence_many([out.path], only=["dear"])
    assert opened == [1]
    assert (part.looked, other.looked) == (1, 0)
    assert done.finished("evidence.dear")
    add_evidence_many([out.path], "full")
    assert (part.looked, other.looked) == (1, 1)
    with pytest.raises(ConfigError, match="unknown part of the evidence 'deer'; nearest: dear"):
        add_evidence(out.path, only=["deer"])
    with pytest.raises(ConfigError, match="not one of quick, standard, full"):
        add_evidence(out.path, "most")  # type: ignore[arg-type]


def test_only_a_finished_run_takes_evidence(bench: Workbench, parts, tmp_path: Path):
    out = run(tiny_run_config(), tmp_path / "ga", bench=bench)
    out.write_status("stopped")
    with pytest.raises(FileFormatError, match="first: interp-unlearn resume"):
        add_evidence(out.path, bench=bench)
    with pytest.raises(FileFormatError, match="add to it, once it is finished, with: interp-unlearn evidence"):
        run(tiny_run_config(level="full"), out.path, bench=bench)


def test_the_verdict_is_taken_from_all_saved_evidence(bench: Workbench, parts, tmp_path: Path, monkeypatch):
    class Verdict:
        def __init__(self, names):
            self.names = names

        def to_json(self):
            return {"label": "kept", "probabilities": {"kept": 1.0}, "sentence": ", ".join(self.names)}

    def verdict(folder):
        return Verdict([e.name for e in RunFolder(folder).evidence()])

    parts(Counting("quick"))
    monkeypatch.setattr("interp_unlearn.runs._evidence.has_calibration", lambda: True)
    monkeypatch.setattr("interp_unlearn.runs._evidence.verdict", verdict)
    out = run(tiny_run_config(), tmp_path / "ga", bench=bench)
    saved = json.loads((out.path / "verdict.json").read_text())
    assert "quick.sum/embed" in saved["sentence"]


# -- phases ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    saved = dict(PARTS._items)
    PARTS._items.clear()
    try:
        return run(tiny_run_config(), tmp_path_factory.mktemp("runs") / "ga", bench=bench)
    finally:
        PARTS._items.update(saved)


def test_phases_swap_the_weights_and_give_them_back(bench: Workbench, folder: RunFolder):
    before = {n: p.detach().clone() for n, p in bench.model.module.named_parameters()}
    delta = folder.delta()
    with RunPhases(tiny_run_config(), folder, bench) as phases:
        assert phases.names == ("before", "after")
        for _ in range(2):
            with phases.open("after") as model:
                now = dict(model.module.named_parameters())
                assert all(torch.equal(now[n], delta[n]) for n in delta)
            with phases.open("before") as model:
                now = dict(model.module.named_parameters())
                assert all(torch.equal(now[n], before[n]) for n in before)
        with phases.open("after"):
            pass
        with pytest.raises(ConfigError, match="no phase 'aftr'; nearest: after"), phases.open("aftr"):
            pass
        with phases.open("after"), phases.open("after"):
            pass
        with (
            pytest.raises(RuntimeError, match="leave its block before opening 'before'"),
            phases.open("after"),
            phases.open("before"),
        ):
            pass
    assert all(torch.equal(p, before[n]) for n, p in bench.model.module.named_parameters())


def test_once_keeps_tensors_on_disk_bit_for_bit(bench: Workbench, folder: RunFolder):
    config = tiny_run_config()
    calls = []

    def measure(model):
        calls.append(1)
        return {
            **embedding(model),
            "flags": torch.tensor([True, False]),
            "ids": torch.arange(3),
            "none": torch.empty(0),
        }

    with RunPhases(config, folder, bench) as phases:
        first = phases.once("after", "states at 50 %/blocks.1", measure)
    with RunPhases(config, folder, bench) as phases:
        again = phases.once("after", "states at 50 %/blocks.1", measure)
        phases.once("after", "states at 50 %-blocks.1", measure)
    assert len(calls) == 2, "names that differ only in what files cannot hold do not meet"
    assert list(first) == list(again), "sites read from disk are in the order in which they were captured"
    assert all(torch.equal(first[k], again[k]) and first[k].dtype == again[k].dtype for k in first)


def test_a_damaged_measurement_is_said(bench: Workbench, folder: RunFolder):
    config = tiny_run_config()
    with RunPhases(config, folder, bench) as phases:
        phases.once("after", "sum", embedding)
    file = folder.path / "measured" / "after" / "sum.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with RunPhases(config, folder, bench) as phases, pytest.raises(FileFormatError, match="make or copy it again"):
        phases.once("after", "sum", embedding)
    facts = folder.path / "measured" / "after" / "sum.json"
    write_json(facts, {**read_json(facts), "version": "0.0.0"})
    with RunPhases(config, folder, bench) as phases:
        assert "sum" in phases.once("after", "sum", embedding), "another version's measurement is made again"


def test_level_and_edited_checkpoint_do_not_change_what_is_shared():
    config = tiny_run_config()
    assert config.shared_key == tiny_run_config(level="full").shared_key
    edited = dataclasses.replace(config, recipe={}, model=dataclasses.replace(config.model, edited="x"))
    assert edited.shared_key == config.shared_key
    gold = dataclasses.replace(config, model=dataclasses.replace(config.model, gold="x"))
    assert gold.shared_key != config.shared_key
    with pytest.raises(ConfigError, match="unlearned elsewhere"):
        dataclasses.replace(config, model=dataclasses.replace(config.model, edited="x"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("graph_scores", r"'graph_scores' of the evidence works on graph models, and this run's .* for language"),
        ("memorization", r"part of the evidence 'memorization'.*memorisation"),
    ],
)
def test_a_wrong_part_is_refused_before_training(bench: Workbench, tmp_path: Path, name: str, says: str):
    with pytest.raises(ConfigError, match=says):
        run(tiny_run_config(also=(name,)), tmp_path / "ga", bench=bench)
    assert not RunFolder(tmp_path / "ga").finished("train")


def test_a_part_for_other_models_is_not_added(bench: Workbench, tmp_path: Path):
    out = run(tiny_run_config(), tmp_path / "ga", bench=bench)
    with pytest.raises(ConfigError, match=r"'maps' of the evidence works on image models.*leave the part out"):
        add_evidence(out.path, only=["maps"], bench=bench)
    with pytest.raises(FileFormatError, match=r"--only sampling --only noise"):
        run(tiny_run_config(also=("sampling", "noise")), tmp_path / "ga", bench=bench)
