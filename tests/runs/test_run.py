"""Whole runs on a small TinyWorld: what is saved, resumed, restored and refused."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_unlearn._core import (
    FileFormatError,
    InterpUnlearnError,
    NothingToForgetError,
    RunsFailedError,
    TrainingDivergedError,
)
from interp_unlearn.report import write_report
from interp_unlearn.runs import (
    LatentsSpec,
    RunConfig,
    RunFolder,
    Workbench,
    open_workbench,
    resume,
    run,
    run_many,
    sweep,
    sweep_from_dict,
)
from interp_unlearn.runs._workers import cores

pytestmark = pytest.mark.slow

RUNNER = """
import json, sys
from interp_unlearn.runs import RunConfig, run
run(RunConfig.from_dict(json.loads(sys.argv[1])), sys.argv[2], checkpoint_seconds=0.0)
"""


def light(config: RunConfig) -> RunConfig:
    """The same run with little evidence."""
    return dataclasses.replace(
        config, evidence=dataclasses.replace(config.evidence, relearn=False, gold=False, lens=False)
    )


def weights(bench: Workbench) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in bench.model.module.named_parameters()}


@pytest.fixture(scope="module")
def finished(bench: Workbench, make_config, tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    configs = [make_config("ga"), make_config("sae", objective="sae_guided", steps=20)]
    before = weights(bench)
    out = tmp_path_factory.mktemp("runs")
    done = [run(c, out / c.name, bench=bench) for c in configs]
    after = weights(bench)
    assert all(torch.equal(before[n], after[n]) for n in before), "the shared model must get its weights back"
    return done


def test_a_run_saves_what_the_architecture_promises(finished: list[RunFolder]):
    for folder in finished:
        assert folder.status()["state"] == "done"
        finished = {part for part in folder.status()["finished"] if not part.startswith("evidence.")}
        assert finished == {"before", "train", "after", "relearn", "gold", "evidence"}
        for name in ("config.json", "task.json", "recipe.json", "events.jsonl", "delta.safetensors"):
            assert (folder.path / name).exists(), name
        for phase in ("before", "after", "gold"):
            assert folder.table(f"behaviour.{phase}") is not None
            assert folder.table(f"text_loss.{phase}") is not None
            assert folder.activations(phase).labels["group"]
        names = {e.name for e in folder.evidence()}
        assert {"parity", "alignment.t/residual", "alignment.t/sae", "two_sample.auc/residual"} <= names
        assert folder.checkpoint() is None
        parity = next(e for e in folder.evidence() if e.name == "parity")
        assert parity.value == 0.0
        assert folder.config()["versions"]["torch"] == torch.__version__


def test_the_target_was_known_and_gold_does_not_know_it(finished: list[RunFolder]):
    folder = finished[0]
    recall = {p: folder.table(f"behaviour.{p}").at(set="base", metric="exact") for p in ("before", "after", "gold")}
    assert recall["before"] >= 0.5, "even this short training must teach the target's facts"
    assert recall["gold"] <= recall["before"] - 0.3
    answer = {p: folder.table(f"behaviour.{p}").at(set="base", metric="probability") for p in ("before", "after")}
    assert answer["after"] < answer["before"]


def test_every_step_is_logged_once(finished: list[RunFolder]):
    steps = [e["step"] for e in finished[0].events("step")]
    assert steps == list(range(1, 13))
    assert all(np.isfinite(e["loss"]) for e in finished[0].events("step"))


def test_runs_side_by_side_share_the_baseline(finished: list[RunFolder]):
    first, second = (f.table("behaviour.before") for f in finished)
    assert np.array_equal(first.values, second.values, equal_nan=True)
    assert len(list(finished[0].path.parent.glob(".baseline-*"))) == 1


def test_the_report_needs_only_saved_files(finished: list[RunFolder], tmp_path: Path):
    page = write_report([f.path for f in finished], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "gold" in page
    assert "sae" in page


def test_a_finished_run_is_not_run_again(finished: list[RunFolder]):
    before = (finished[0].path / "delta.safetensors").stat().st_mtime_ns
    assert resume(finished[0].path).status()["state"] == "done"
    assert (finished[0].path / "delta.safetensors").stat().st_mtime_ns == before


def test_the_delta_opens_as_the_edited_model(finished: list[RunFolder], bench: Workbench):
    delta = finished[0].delta()
    original = weights(bench)
    bench.load(delta)
    try:
        edited = dict(bench.model.module.named_parameters())
        assert all(torch.equal(edited[n], delta[n]) for n in delta)
        assert any(not torch.equal(original[n], delta[n]) for n in delta)
    finally:
        bench.restore()


@pytest.mark.parametrize("objective", ["ga", "sae_guided"])
def test_a_killed_run_ends_with_the_same_weights(
    objective: str, bench: Workbench, make_config, cache: Path, tmp_path: Path
):
    config: RunConfig = make_config(objective, objective=objective, steps=30)
    config = dataclasses.replace(
        config, evidence=dataclasses.replace(config.evidence, relearn=False, gold=False, lens=False)
    )
    whole = run(config, tmp_path / "whole", bench=bench)
    killed = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, json.dumps(config.to_dict()), str(killed)], env=environment
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        events = killed / "events.jsonl"
        if events.exists() and events.read_text().count("\n") >= 8:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert RunFolder.open(killed).status()["state"] == "running"
    again = run(config, killed, bench=bench)
    first, second = whole.delta(), again.delta()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert [e["step"] for e in again.events("step")] == [e["step"] for e in whole.events("step")]


def test_a_diverging_run_keeps_the_last_good_weights(bench: Workbench, make_config, tmp_path: Path):
    before = weights(bench)
    with pytest.raises(TrainingDivergedError, match="step"):
        run(make_config("nan", lr=1e30, clip=0.0, warmup=0), tmp_path / "nan", bench=bench)
    folder = RunFolder.open(tmp_path / "nan")
    assert folder.status()["state"] == "failed"
    assert all(torch.isfinite(t).all() for t in folder.delta().values())
    assert all(torch.equal(before[n], p) for n, p in bench.model.module.named_parameters())


def test_a_full_disk_is_said_and_the_run_can_go_on(bench: Workbench, make_config, tmp_path: Path, monkeypatch):
    config = make_config("full")

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save_evidence", full)
        with pytest.raises(OSError, match="No space left"):
            run(config, tmp_path / "full", bench=bench)
    assert "free some space" in RunFolder.open(tmp_path / "full").status()["message"]
    assert run(config, tmp_path / "full", bench=bench).status()["state"] == "done"


def test_a_disk_full_while_weights_are_saved_gives_the_model_its_weights_back(
    bench: Workbench, make_config, tmp_path: Path, monkeypatch
):
    before = weights(bench)

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "save_delta", full)
    with pytest.raises(OSError, match="No space left"):
        run(make_config("full"), tmp_path / "full", bench=bench)
    assert all(torch.equal(before[n], p) for n, p in bench.model.module.named_parameters())


def test_an_unexpected_error_is_written_down(bench: Workbench, make_config, tmp_path: Path, monkeypatch):
    def broken(*_args: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(RunFolder, "save_evidence", broken)
    with pytest.raises(RuntimeError):
        run(make_config("broken"), tmp_path / "broken", bench=bench)
    status = RunFolder(tmp_path / "broken").status()
    assert (status["state"], status["message"]) == ("failed", "RuntimeError: no such kernel")


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    """Ctrl-C as Python handles it; processes that tests are spread over ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupt")
def test_ctrl_c_inside_a_step_waits_for_its_end(bench: Workbench, make_config, tmp_path: Path, monkeypatch):
    """Weights move before the step is counted, so a checkpoint taken in between would mix two steps."""
    config = light(make_config("stopped", steps=6))
    whole = run(config, tmp_path / "whole", bench=bench).delta()
    inner, calls = torch.optim.AdamW.step, []

    def interrupted(self, *args, **kwargs):
        done = inner(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "stopped", bench=bench)
    folder = RunFolder(tmp_path / "stopped")
    assert folder.checkpoint()[0] == 3
    first = folder.status()["seconds"]["train"]
    assert run(config, folder.path, bench=bench).status()["seconds"]["train"] > first > 0
    assert all(torch.equal(value, whole[name]) for name, value in folder.delta().items())


def test_evaluations_while_training_are_logged(bench: Workbench, make_config, tmp_path: Path):
    folder = run(light(make_config("watched", steps=4, eval_every=2)), tmp_path / "watched", bench=bench)
    events = folder.events("eval")
    assert [e["step"] for e in events] == [2, 4]
    after = folder.table("behaviour.after")
    for name in ("paraphrased", "neighbours"):
        assert events[-1][f"{name}.exact"] == pytest.approx(float(after.at(set=name, metric="exact")))


def test_a_folder_in_which_nothing_was_measured_takes_a_corrected_config(bench: Workbench, make_config, tmp_path: Path):
    wrong = dataclasses.replace(light(make_config("x", steps=2)), latents=LatentsSpec("/nowhere"))
    with pytest.raises(InterpUnlearnError):
        run(wrong, tmp_path / "x")
    assert run(light(make_config("x", steps=2)), tmp_path / "x", bench=bench).status()["state"] == "done"
    with pytest.raises(FileFormatError, match="another config"):
        run(light(make_config("x", steps=3)), tmp_path / "x", bench=bench)


def test_one_recipe_that_diverges_does_not_stop_the_others(bench: Workbench, make_config, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("interp_unlearn.runs._run.open_workbench", lambda *_: bench)
    wild = light(make_config("wild", lr=1e30, clip=0.0, warmup=0, steps=4))
    with pytest.raises(RunsFailedError, match=r"1 of 2 recipes failed: wild: the .* at step") as caught:
        run_many([wild, light(make_config("tame", steps=2))], tmp_path)
    assert [f.path.name for f in caught.value.done] == ["tame"]
    assert RunFolder(tmp_path / "tame").status()["state"] == "done"


def test_every_recipe_has_its_folder_before_the_first_begins(
    bench: Workbench, make_config, tmp_path: Path, monkeypatch
):
    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("interp_unlearn.runs._run.open_workbench", lambda *_: bench)
    with monkeypatch.context() as patched:
        patched.setattr("interp_unlearn.runs._run._parts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_many([light(make_config(name, steps=2)) for name in "ab"], tmp_path)
    found = RunFolder.find(tmp_path)
    assert [(f.path.name, f.status()["state"]) for f in found] == [("a", "stopped"), ("b", "stopped")]
    assert [resume(f.path).status()["state"] for f in found] == ["done", "done"]


def test_foreign_folders_and_other_configs_are_refused(
    finished: list[RunFolder], bench: Workbench, make_config, tmp_path: Path
):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileFormatError, match="not empty"):
        run(make_config(), tmp_path, bench=bench)
    with pytest.raises(FileFormatError, match="another config"):
        run(make_config("ga", steps=5), finished[0].path, bench=bench)


def test_an_unknown_entity_is_nothing_to_forget(cache: Path, make_config):
    config = dataclasses.replace(
        make_config(), target=dataclasses.replace(make_config().target, entities=("unknown-person-0",))
    )
    with pytest.raises(NothingToForgetError, match="nothing to forget"):
        open_workbench(config)


def test_run_many_opens_the_model_once_and_skips_what_is_done(
    bench: Workbench, make_config, tmp_path: Path, monkeypatch
):
    opened = []
    monkeypatch.setattr("interp_unlearn.runs._run.open_workbench", lambda *_: opened.append(1) or bench)
    configs = [light(make_config("a", steps=2)), light(make_config("b", objective="npo", steps=2))]
    assert [f.status()["state"] for f in run_many(configs, tmp_path)] == ["done", "done"]
    run_many(configs, tmp_path)
    assert opened == [1]


def test_a_sweep_of_two_processes_shares_the_baseline(cache: Path, bench: Workbench, make_config, tmp_path: Path):
    base = make_config().to_dict()
    data = {k: base[k] for k in ("model", "world")}
    data |= {"evidence": {"layer_stride": 1, "lens": False, "relearn": False, "gold": False, "level": "quick"}}
    data |= {"sweep": {"targets": ["person-0"], "seeds": [0]}}
    data |= {"recipe": [{"objective": "ga", "steps": 2, "grid": {"lr": [1e-5, 2e-5]}}]}
    config = sweep_from_dict(data)
    outcomes = sweep(config, tmp_path, workers=min(2, cores()), threads=1)
    assert [o.state for o in outcomes] == ["done", "done"], [o.message for o in outcomes]
    first, second = (RunFolder.open(o.folder) for o in outcomes)
    assert len(list(first.path.parent.glob(".baseline-*"))) == 1
    assert np.array_equal(first.table("behaviour.before").values, second.table("behaviour.before").values)
    assert [o.state for o in sweep(config, tmp_path)] == ["skipped", "skipped"]
    assert [f.path for f in RunFolder.find(tmp_path)] == [first.path, second.path]
