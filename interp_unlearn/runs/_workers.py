"""Workers as the driver of a sweep sees them: processes of this machine. Those of a Ray cluster are in `_ray`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from interp_unlearn._core import ConfigError, InterpUnlearnError

WORK = "interp_unlearn.runs._work:Work"
SERVE = "import sys; from interp_unlearn._core import serve; serve(sys.argv[1], int(sys.argv[2]))"
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PATIENCE = 60.0  # seconds that a stopped worker has to save its training state


class WorkerLostError(Exception):
    """A worker ended in the middle of a run; the text says how."""


@runtime_checkable
class Worker(Protocol):
    """Something that runs one config at a time, somewhere else."""

    def run(self, config: Mapping[str, Any], folder: str) -> dict[str, str]:
        """Run and wait.

        Raises:
            WorkerLostError: If the worker is gone; it cannot be used again.
        """
        ...

    def interrupt(self) -> None:
        """Let the worker save what it is doing and end; returns at once. May be called from any thread, and twice."""
        ...

    def close(self) -> None:
        """End the worker and wait for it; called by the thread that ran it."""
        ...


@runtime_checkable
class Pool(Protocol):
    """Where workers come from."""

    size: int

    def worker(self, number: int) -> Worker:
        """A new worker for place ``number``."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


def cores() -> int:
    """Processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def share_cores(available: int, workers: int | None, threads: int | None, where: str) -> tuple[int, int]:
    """(workers, threads of each), so that all together use no more than the ``available`` cores.

    Raises:
        ConfigError: If more is asked for than there is.
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; use at least 1")
    if workers is None:
        workers = max(1, available // threads) if threads else max(1, available // 2)
    if threads is None:
        threads = max(1, available // workers)
    if workers * threads > available:
        raise ConfigError(
            f"{workers} workers with {threads} {'thread' if threads == 1 else 'threads'} each need {workers * threads} "
            f"cores, but {where} has {available}; lower workers or threads"
        )
    return workers, threads


class LocalPool:
    """Processes of this machine.

    Args:
        workers: How many; default one for every two cores.
        threads: Threads of each; default what the cores allow.
        logs: Folder for what the workers print.
        work: What they do, ``"package.module:name"``.
    """

    def __init__(self, workers: int | None, threads: int | None, logs: Path, work: str = WORK) -> None:
        self.size, self.threads = share_cores(cores(), workers, threads, "this machine")
        self._logs, self._work = logs, work

    def worker(self, number: int) -> Worker:
        """Start a process."""
        return LocalWorker(self.threads, self._logs / f"worker-{number}.log", self._work)

    def close(self) -> None:
        """Nothing to give back: workers end by themselves."""


class LocalWorker:
    """A process of this machine that runs configs; it ends with its driver."""

    def __init__(self, threads: int, log: Path, work: str) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(p for p in sys.path if p)  # the same package as here, whatever the working directory
        environment = {**os.environ, **dict.fromkeys(POOLS, str(threads)), "PYTHONPATH": path}
        with log.open("a", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE, work, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the driver alone, which stops its workers in order
            )
        self._killer = threading.Timer(PATIENCE, self._process.kill)
        self._killer.daemon = True
        self._told = threading.Lock()  # taken by the first who interrupts: the driver, or the thread that closes
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs, self._answers = self._process.stdin, self._process.stdout
        if not self._answers.readline():
            self.close()
            raise InterpUnlearnError(f"a worker of the sweep could not start; {log} says why")

    def run(self, config: Mapping[str, Any], folder: str) -> dict[str, str]:
        """See `Worker`."""
        try:
            self._jobs.write(json.dumps({"config": dict(config), "folder": folder}) + "\n")
            self._jobs.flush()
            line = self._answers.readline()
        except (OSError, ValueError):  # a broken or closed pipe
            line = ""
        if not line.endswith("\n"):
            raise WorkerLostError(self._how_it_ended())
        return json.loads(line)

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"its worker ended with exit code {code}"
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
        hint = "; the machine may have run out of memory" if name == "SIGKILL" else ""
        return f"its worker was killed ({name}{hint})"

    def interrupt(self) -> None:
        """See `Worker`. A worker that does not end in time is killed."""
        with contextlib.suppress(OSError):  # what was not flushed has no reader any more
            self._jobs.close()
        if self._told.acquire(blocking=False):
            self._killer.start()

    def close(self) -> None:
        """See `Worker`."""
        self.interrupt()
        self._process.wait()
        self._killer.cancel()
        self._answers.close()
