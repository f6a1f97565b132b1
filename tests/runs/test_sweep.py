"""Sweeps: who works on what, what a killed worker loses, what a second call does."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from interp_unlearn._core import ConfigError, DataError, FileFormatError, InterpUnlearnError, locked, read_json
from interp_unlearn.cli import app
from interp_unlearn.runs import Outcome, SweepConfig, SweepRun, configs_from_dict, plan, sweep, sweep_from_dict
from interp_unlearn.runs._sweep import drive, progress_of
from interp_unlearn.runs._work import Work
from interp_unlearn.runs._workers import LocalPool, WorkerLostError, cores, share_cores

HERE = Path(__file__).parent
STUB = "stub_work:Stub"


def grid(*names: str, seeds: tuple[int, ...] = (0,)) -> SweepConfig:
    recipes = [{"name": name, "objective": "ga", "steps": 2} for name in names]
    return sweep_from_dict({"sweep": {"targets": ["Japan"], "seeds": list(seeds)}, "recipe": recipes})


class FakeWorker:
    def __init__(self, pool: "FakePool", number: int) -> None:
        self.pool, self.number, self.closed = pool, number, False

    def run(self, config: Mapping[str, Any], folder: str) -> dict[str, str]:
        assert not self.closed
        with self.pool.lock:
            self.pool.log.append((self.number, Path(folder).parent.name, config["name"]))
        time.sleep(self.pool.seconds)
        if config["name"] == "die":
            raise WorkerLostError("its worker was killed")
        if config["name"] == "hang":
            self.pool.stop.wait(20)
            raise WorkerLostError("its worker was killed")
        return self.pool.work(config, folder)

    def interrupt(self) -> None:
        self.pool.stop.set()

    def close(self) -> None:
        self.closed = True


class FakePool:
    """Workers in threads of this process, which write down who did what."""

    def __init__(self, size: int, seconds: float = 0.0) -> None:
        self.size, self.seconds = size, seconds
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.log: list[tuple[int, str, str]] = []
        self.made: list[FakeWorker] = []
        self.closed = False
        spec = importlib.util.spec_from_file_location("stub_work", HERE / "stub_work.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.work = module.Stub(1)

    def worker(self, number: int) -> FakeWorker:
        self.made.append(FakeWorker(self, number))
        return self.made[-1]

    def close(self) -> None:
        assert all(worker.closed for worker in self.made)
        self.closed = True


def test_all_runs_are_done_and_a_worker_stays_with_its_target_and_seed(tmp_path: Path):
    config, pool = grid("a", "b", "c", seeds=(0, 1)), FakePool(2, 0.02)
    outcomes = drive(config.runs, tmp_path, pool)
    assert [outcomes[run.name].state for run in config.runs] == ["done"] * 6
    assert pool.closed
    groups = {number: {group for n, group, _ in pool.log if n == number} for number in (0, 1)}
    assert sorted(map(len, groups.values())) == [1, 1], pool.log


def test_a_lost_run_is_told_and_the_others_go_on(tmp_path: Path):
    config, pool = grid("a", "die", "b"), FakePool(1)
    seen: list[Outcome] = []
    outcomes = drive(config.runs, tmp_path, pool, lambda _active, ended, _done, _total: seen.append(ended))
    states = {run.config.name: outcomes[run.name].state for run in config.runs}
    assert states == {"a": "done", "die": "lost", "b": "done"}
    assert len(pool.made) == 2, "the lost worker is replaced by one other"
    assert [e.run.config.name for e in seen if e] == ["a", "die", "b"]


def test_a_worker_that_says_done_is_checked_against_the_folder(tmp_path: Path):
    config = grid("liar")
    outcome = drive(config.runs, tmp_path, FakePool(1))[config.runs[0].name]
    assert outcome.state == "failed"
    assert "storage that all machines see" in outcome.message


def test_ctrl_c_stops_the_workers_and_reaches_the_caller(tmp_path: Path):
    config, pool = grid("hang", "b"), FakePool(1)

    def interrupt(active: list[SweepRun], _ended: Outcome | None, _done: int, _total: int) -> None:
        if active:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(config.runs, tmp_path, pool, interrupt)
    assert pool.closed
    assert [name for _, _, name in pool.log] == ["hang"]


def test_a_pool_that_cannot_start_a_worker_ends_the_sweep(tmp_path: Path):
    pool = FakePool(2)

    def broken(number: int) -> FakeWorker:
        raise InterpUnlearnError("a worker of the sweep could not start; worker.log says why")

    pool.worker = broken
    with pytest.raises(InterpUnlearnError, match="could not start"):
        drive(grid("a", "b").runs, tmp_path, pool)


# -- processes of this machine -----------------------------------------------------------------------------------------


PATIENCE = 180.0  # seconds; for machines that do much else at the same time


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("nothing happened in time")


def running_pid(folder: Path) -> int | None:
    try:
        return read_json(folder / "status.json")["pid"]
    except (InterpUnlearnError, KeyError):
        return None


def test_a_killed_process_loses_its_run_only(tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    config = grid("slow", "bad", "die", "last")
    slow = tmp_path / config.runs[0].name

    def kill() -> None:
        os.kill(wait_for(lambda: running_pid(slow)), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = drive(config.runs, tmp_path, LocalPool(1, 1, tmp_path / ".workers", STUB))
    killer.join()
    found = {run.config.name: outcomes[run.name] for run in config.runs}
    assert {k: v.state for k, v in found.items()} == {"slow": "lost", "bad": "failed", "die": "lost", "last": "done"}
    assert "SIGKILL" in found["slow"].message
    assert "exit code 3" in found["die"].message
    assert found["bad"].message == "no luck"
    status = read_json(slow / "status.json")
    assert status["state"] == "stopped"
    assert "the same sweep continues it" in status["message"]
    assert read_json(tmp_path / config.runs[3].name / "status.json")["pools"] == "1"


def test_a_stopped_process_saves_and_ends(tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    config = grid("slow", "last")
    slow = tmp_path / config.runs[0].name

    def interrupt(_active: list[SweepRun], _ended: Outcome | None, _done: int, _total: int) -> None:
        if running_pid(slow):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(config.runs, tmp_path, LocalPool(1, 1, tmp_path / ".workers", STUB), interrupt)
    assert read_json(slow / "status.json")["state"] == "stopped"
    with pytest.raises(ProcessLookupError):
        os.kill(running_pid(slow), 0)
    assert not (tmp_path / config.runs[1].name).exists()


def test_a_worker_that_cannot_start_says_where_to_look(tmp_path: Path):
    with pytest.raises(InterpUnlearnError, match=r"could not start; .*worker-0\.log says why"):
        drive(grid("a").runs, tmp_path, LocalPool(1, 1, tmp_path / ".workers", "no_such_module:Stub"))
    assert "no_such_module" in (tmp_path / ".workers" / "worker-0.log").read_text()


def test_workers_and_threads_fit_the_cores():
    assert share_cores(8, None, None, "x") == (4, 2)
    assert share_cores(1, None, None, "x") == (1, 1)
    assert share_cores(8, 3, None, "x") == (3, 2)
    assert share_cores(8, None, 4, "x") == (2, 4)
    with pytest.raises(ConfigError, match="3 workers with 4 threads each need 12 cores, but this machine has 8"):
        share_cores(8, 3, 4, "this machine")
    with pytest.raises(ConfigError, match="workers is 0; use at least 1"):
        share_cores(8, 0, None, "x")


# -- what a second call does -------------------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path) -> SweepConfig:
    config = grid("done", "bad", "lost", "new")
    pool = FakePool(1)
    for run in config.runs[:2]:
        pool.work(run.config.to_dict(), str(tmp_path / run.name))
    folder = tmp_path / config.runs[2].name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"kind": "run", **config.runs[2].config.to_dict()}))
    (folder / "status.json").write_text(json.dumps({"state": "running", "finished": ["before"]}))
    return config


def test_the_plan_reads_the_folders(begun: SweepConfig, tmp_path: Path):
    assert list(plan(begun, tmp_path).values()) == ["done", "failed", "unfinished", "new"]
    assert progress_of(begun.runs[3], tmp_path) == "opening, measuring the original"
    assert progress_of(begun.runs[2], tmp_path) == "training"
    (tmp_path / begun.runs[2].name / "events.jsonl").write_text('{"kind": "step", "step": 1}\n')
    assert progress_of(begun.runs[2], tmp_path) == "training, step 1"


def test_a_second_call_skips_what_is_done_and_retries_failures_on_request(
    begun: SweepConfig, tmp_path: Path, monkeypatch
):
    pools: list[FakePool] = []
    monkeypatch.setattr("interp_unlearn.runs._sweep.LocalPool", lambda *_: pools.append(FakePool(1)) or pools[-1])
    states = [outcome.state for outcome in sweep(begun, tmp_path)]
    assert states == ["skipped", "failed before", "done", "done"]
    assert [name for _, _, name in pools[0].log] == ["lost", "new"]
    again = sweep(begun, tmp_path, retry_failed=True)
    assert [outcome.state for outcome in again] == ["skipped", "failed", "skipped", "skipped"]
    assert again[1].message == "no luck"
    sweep(begun, tmp_path)
    assert len(pools) == 2, "where nothing is left to do no worker is started"


def test_folders_that_hold_something_else_are_refused_before_anything_runs(begun: SweepConfig, tmp_path: Path):
    config = tmp_path / begun.runs[0].name / "config.json"
    whole = config.read_text()
    config.write_text(whole.replace('"steps": 2', '"steps": 3'))
    with pytest.raises(FileFormatError, match="holds a run with another config"):
        sweep(begun, tmp_path)
    config.write_text(whole[:40])
    with pytest.raises(FileFormatError, match="not valid JSON"):
        sweep(begun, tmp_path)
    config.write_text(json.dumps({**json.loads(whole), "version": "0.0.1", "era": "old"}))
    with pytest.raises(FileFormatError, match=r"was written by interp-unlearn 0\.0\.1, whose config this version"):
        sweep(begun, tmp_path)
    config.write_text(whole)
    (tmp_path / begun.runs[3].name).mkdir()
    (tmp_path / begun.runs[3].name / "notes.txt").write_text("mine")
    with pytest.raises(FileFormatError, match="is not empty and is not a run folder"):
        sweep(begun, tmp_path)


# -- the work itself ---------------------------------------------------------------------------------------------------


def test_one_folder_is_written_by_one_process_at_a_time(tmp_path: Path):
    with locked(tmp_path / "run"):
        with pytest.raises(DataError, match="another process is writing"), locked(tmp_path / "run", wait=False):
            pass
        with locked(tmp_path / "other", wait=False):
            pass
    with locked(tmp_path / "run", wait=False):
        pass
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / "run"):
            order.append("second")

    with locked(tmp_path / "run"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_broken_run_is_a_result_and_not_the_end_of_its_worker(tmp_path: Path, monkeypatch):
    opened = []

    def broken(config: object) -> None:
        opened.append(config)
        raise RuntimeError("the network is made of glass")

    monkeypatch.setattr("interp_unlearn.runs._work.open_workbench", broken)
    monkeypatch.setattr("interp_unlearn.runs._work.torch.set_num_threads", lambda _: None)
    config = configs_from_dict({"target": {"entities": ["Japan"]}, "recipe": {"objective": "ga"}}, "ga")[0]
    result = Work(2)(config.to_dict(), str(tmp_path / "ga"))
    assert result == {"state": "failed", "message": "RuntimeError: the network is made of glass"}
    assert read_json(tmp_path / "ga" / "status.json")["state"] == "failed"
    event = json.loads((tmp_path / "ga" / "events.jsonl").read_text())
    assert event["kind"] == "error"
    assert "made of glass" in event["traceback"]
    assert opened


# -- Ray ---------------------------------------------------------------------------------------------------------------

RAY = """
import json, sys
from pathlib import Path
from interp_unlearn.runs import sweep_from_dict
from interp_unlearn.runs._ray import RayPool
from interp_unlearn.runs._sweep import drive

config = sweep_from_dict(json.loads(sys.argv[1]))
outcomes = drive(config.runs, Path(sys.argv[2]), RayPool(2, 1, None, "stub_work:Stub"))
print(json.dumps({o.run.config.name: [o.state, o.message] for o in outcomes.values()}))
"""


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed (extra 'sweep')")
@pytest.mark.skipif(cores() < 2, reason="two workers need two cores")
def test_a_ray_cluster_of_two_workers_survives_a_killed_one(tmp_path: Path):
    recipes = [{"name": name, "objective": "ga"} for name in ("slow", "a", "bad", "b")]
    data = {"sweep": {"targets": ["Japan"]}, "recipe": recipes}
    path = os.pathsep.join([str(HERE), str(Path.cwd())])
    # Not in this process: the suite's blocked sockets and its checked annotations stay out of Ray's way.
    with subprocess.Popen(
        [sys.executable, "-c", RAY, json.dumps(data), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        try:
            slow = tmp_path / "Japan-seed0" / "slow"
            pid = wait_for(lambda: running_pid(slow) or driver.poll() is not None)
            assert driver.poll() is None, driver.communicate()[1][-3000:]
            os.kill(pid, signal.SIGKILL)
            out, err = driver.communicate(timeout=PATIENCE)
        finally:
            driver.kill()
    assert driver.returncode == 0, err[-3000:]
    found = json.loads(out.splitlines()[-1])
    assert {name: state for name, (state, _) in found.items()} == {
        "slow": "lost",
        "a": "done",
        "bad": "failed",
        "b": "done",
    }
    assert "Ray worker is gone" in found["slow"][1]
    workers = {read_json(tmp_path / "Japan-seed0" / name / "status.json")["pid"] for name in ("slow", "a", "b")}
    assert len(workers) >= 2


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text('[sweep]\ntargets = ["Japan"]\n[[recipe]]\nobjective = "ga"\n[recipe.grid]\nsteps = [1, 2]\n')
    return path


def test_the_command_lists_runs_reports_failures_and_exits_with_1(file: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("interp_unlearn.runs._sweep.LocalPool", lambda *_: FakePool(1))
    out = tmp_path / "runs"
    listed = CliRunner().invoke(app, ["sweep", str(file), "--out", str(out), "--list"])
    assert listed.exit_code == 0, listed.output
    assert "Japan-seed0/ga steps=1" in listed.output
    assert "2 new" in listed.output
    done = CliRunner().invoke(app, ["sweep", str(file), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "[2/2] done: Japan-seed0/ga steps=2" in done.output
    assert "2 runs: 2 finished." in done.output
    file.write_text(file.read_text() + '[[recipe]]\nname = "bad"\nobjective = "npo"\n')
    failed = CliRunner().invoke(app, ["sweep", str(file), "--out", str(out)])
    assert failed.exit_code == 1
    assert "3 runs: 2 were finished already, 1 failed." in failed.output
    assert "failed: Japan-seed0/bad: no luck" in failed.output
    assert "--retry-failed" in failed.output


def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path: Path):
    (tmp_path / "empty.toml").write_text("")
    result = CliRunner().invoke(app, ["sweep", str(tmp_path / "empty.toml")])
    assert result.exit_code == 2
    assert "recipe is missing" in result.output
