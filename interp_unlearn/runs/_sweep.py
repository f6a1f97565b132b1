"""`sweep`: run every run of a sweep on several workers; run folders are the only state, so the same call resumes.

A worker takes one run at a time, if possible one of the target and seed whose model it has open. A worker that is
killed loses that run alone: it is reported, a new worker takes its place, and the next call continues it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from interp_unlearn._core import InterpUnlearnError
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._ray import RayPool
from interp_unlearn.runs._run import folder_state
from interp_unlearn.runs._sweep_config import SweepConfig, SweepRun
from interp_unlearn.runs._workers import LocalPool, Pool, Worker, WorkerLostError

Planned = Literal["new", "unfinished", "failed", "done"]
Ended = Literal["done", "skipped", "failed", "lost", "stopped", "failed before"]
TICK = 0.5  # seconds between two looks at what is going on


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended.

    Attributes:
        run: The run.
        folder: Its folder.
        state: ``done``; ``skipped`` (it was done already); ``failed`` (the message says why); ``lost`` (its worker was
            killed); ``stopped`` (by Ctrl-C); ``failed before`` (by an earlier call, and not asked to be tried again).
        message: Why, where there is something to say.
        seconds: What this call spent on it.
    """

    run: SweepRun
    folder: Path
    state: Ended
    message: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether the run is complete."""
        return self.state in ("done", "skipped")


Watch = Callable[[Sequence[SweepRun], Outcome | None, int, int], None]
"""Called with (runs being worked on, the one that just ended or None, how many have ended, how many there are)."""


def watch_nothing(_active: Sequence[SweepRun], _ended: Outcome | None, _done: int, _total: int) -> None:
    """A `Watch` that shows nothing."""


def plan(config: SweepConfig, folder: str | Path) -> dict[str, Planned]:
    """What there is of each run, by its name, read from its folder.

    Raises:
        FileFormatError: If the folder of a run holds something else, or its files cannot be read.
    """
    states: dict[str, Planned] = {"new": "new", "done": "done", "failed": "failed"}
    root = Path(folder)
    return {run.name: states.get(folder_state(run.config, root / run.name), "unfinished") for run in config.runs}


def sweep(
    config: SweepConfig,
    folder: str | Path,
    *,
    workers: int | None = None,
    threads: int | None = None,
    ray: bool = False,
    ray_address: str | None = None,
    retry_failed: bool = False,
    watch: Watch = watch_nothing,
) -> tuple[Outcome, ...]:
    """Run what is not done yet of a sweep, each run in ``folder/<target>-seed<seed>/<recipe>``.

    Finished runs are skipped, interrupted and lost ones continued from their last checkpoint.

    Args:
        config: The runs.
        folder: Of the sweep; with several machines it must lie on storage that all of them see.
        workers: Processes; default one for every two cores, with Ray as many as the cluster has cores for.
        threads: Threads of each; default what the cores allow, with Ray 1.
        ray: Work on a Ray cluster (extra ``sweep``), started on this machine unless ``ray_address`` names one.
        ray_address: Address of a running Ray cluster; ``"auto"`` finds the one of this machine.
        retry_failed: Also continue runs that failed in an earlier call.
        watch: Told what is going on.

    Returns:
        One outcome for each run, in the order of the config.

    Raises:
        ConfigError: If there are fewer cores than asked for.
        FileFormatError: If the folder of a run holds something else.
        InterpUnlearnError: If no worker can be started.
        KeyboardInterrupt: On Ctrl-C, after the workers have saved what they were doing.
    """
    root = Path(folder).absolute()
    planned = plan(config, root)
    wanted = ("new", "unfinished", "failed") if retry_failed else ("new", "unfinished")
    jobs = [run for run in config.runs if planned[run.name] in wanted]
    found: dict[str, Outcome] = {}
    for run in config.runs:
        if planned[run.name] == "done":
            found[run.name] = Outcome(run, root / run.name, "skipped")
        elif planned[run.name] not in wanted:
            message = str(RunFolder(root / run.name).status().get("message", ""))
            found[run.name] = Outcome(run, root / run.name, "failed before", message)
    if jobs:
        logs = root / ".workers"
        pool = RayPool(workers, threads, ray_address) if ray or ray_address else LocalPool(workers, threads, logs)
        found |= drive(jobs, root, pool, watch)
    return tuple(found[run.name] for run in config.runs)


def drive(jobs: Sequence[SweepRun], root: Path, pool: Pool, watch: Watch = watch_nothing) -> dict[str, Outcome]:
    """Give the jobs to the workers of a pool until all have ended, and close the pool; outcomes by the run's name.

    Raises:
        InterpUnlearnError: If a worker cannot be started.
        KeyboardInterrupt: On Ctrl-C.
    """
    driver = _Driver(jobs, root, pool)
    try:
        return driver.run(watch)
    finally:
        pool.close()


class _Driver:
    """One thread for each worker; the main thread watches."""

    def __init__(self, jobs: Sequence[SweepRun], root: Path, pool: Pool) -> None:
        self._pending = list(jobs)
        self._total = len(jobs)
        self._root, self._pool = root, pool
        self._lock = threading.Lock()
        self._active: dict[int, SweepRun] = {}
        self._open: dict[int, str] = {}  # the group whose model each worker has open
        self._workers: dict[int, Worker] = {}
        self._ended: queue.Queue[Outcome | BaseException] = queue.Queue()
        self._stopping = threading.Event()

    def run(self, watch: Watch) -> dict[str, Outcome]:
        places = range(min(self._pool.size, self._total))
        threads = [threading.Thread(target=self._serve, args=(place,), daemon=True) for place in places]
        found: dict[str, Outcome] = {}
        for thread in threads:
            thread.start()
        try:
            while len(found) < self._total:
                try:
                    item = self._ended.get(timeout=TICK)
                except queue.Empty:
                    item = None
                if isinstance(item, BaseException):
                    raise item
                if item is not None:
                    found[item.run.name] = item
                with self._lock:
                    active = list(self._active.values())
                watch(active, item, len(found), self._total)
        finally:
            self._stopping.set()
            with self._lock:
                self._pending.clear()
                workers = list(self._workers.values())
            for worker in workers:
                worker.interrupt()
            for thread in threads:
                thread.join()
        return found

    def _next(self, place: int) -> SweepRun | None:
        """A run of the open target and seed, else of one that nobody works on, else any."""
        with self._lock:
            mine = self._open.get(place)
            others = Counter(group for other, group in self._open.items() if other != place)
            order = (lambda r: r.group == mine, lambda r: not others[r.group], lambda _: True)
            for wanted in order:
                run = next((r for r in self._pending if wanted(r)), None)
                if run is not None:
                    self._pending.remove(run)
                    self._active[place], self._open[place] = run, run.group
                    return run
            self._open.pop(place, None)
            return None

    def _serve(self, place: int) -> None:
        worker: Worker | None = None
        try:
            while (run := self._next(place)) is not None:
                if worker is None:
                    worker = self._pool.worker(place)
                    with self._lock:
                        self._workers[place] = worker
                        if self._stopping.is_set():
                            worker.interrupt()
                outcome, lost = self._one(worker, run)
                with self._lock:
                    del self._active[place]
                    if lost:
                        self._workers.pop(place, None)
                if lost:
                    worker.close()
                    worker = None
                self._ended.put(outcome)
        except BaseException as error:  # reaches the main thread, which ends the sweep with it
            self._ended.put(error)
        finally:
            if worker is not None:
                worker.close()

    def _one(self, worker: Worker, run: SweepRun) -> tuple[Outcome, bool]:
        """The outcome of one run, and whether its worker is gone."""
        folder = self._root / run.name
        started = time.perf_counter()
        try:
            result = worker.run(run.config.to_dict(), str(folder))
        except WorkerLostError as error:
            state: Ended = "stopped" if self._stopping.is_set() else "lost"
            message = "" if state == "stopped" else str(error)
            _note_loss(RunFolder(folder), f"{message or 'stopped'}; the same sweep continues it")
            return Outcome(run, folder, state, message, time.perf_counter() - started), True
        seconds = time.perf_counter() - started
        state, message = _checked(folder, result)
        return Outcome(run, folder, state, message, seconds), False


def _checked(folder: Path, result: dict[str, str]) -> tuple[Ended, str]:
    """What a worker said, checked against the folder, which is what counts."""
    said, message = result["state"], result.get("message", "")
    if said == "done":
        if RunFolder(folder).status().get("state") == "done":
            return "done", ""
        return "failed", f"the worker finished, but {folder} is not there: use storage that all machines see"
    return ("stopped", message) if said == "stopped" else ("failed", message)


def _note_loss(folder: RunFolder, message: str) -> None:
    """Write into an unfinished run's status that nobody works on it any more."""
    try:
        if (folder.path / "config.json").exists() and folder.status().get("state") == "running":
            folder.write_status("stopped", message=message)
    except InterpUnlearnError:  # the status itself is broken; the next sweep says so
        pass


def progress_of(run: SweepRun, folder: str | Path) -> str:
    """How far a run is, read from its folder: the part after the last finished one."""
    out = RunFolder(Path(folder) / run.name)
    try:
        finished = out.status().get("finished", [])
        steps = len(out.events("step")) if finished and finished[-1] == "before" else 0
    except InterpUnlearnError:
        return ""
    after = {"before": "training", "train": "measuring", "after": "relearning", "relearn": "gold", "gold": "probing"}
    if not finished:
        return "opening, measuring the original"
    return f"training, step {steps}" if steps else after.get(finished[-1], "looking for evidence")
