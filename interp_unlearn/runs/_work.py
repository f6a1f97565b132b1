"""What a worker of a sweep does: run one config after the other, with the model of the last one kept open."""

from __future__ import annotations

import _thread
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from interp_unlearn._core import InterpUnlearnError
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._run import run
from interp_unlearn.runs._workbench import Workbench, open_workbench

Result = dict[str, str]
"""``{"state": "done" | "failed" | "stopped", "message": …}``."""


class Work:
    """Runs configs, and keeps the opened model and task for the next run on the same target and seed.

    Args:
        threads: Threads of torch and of the linear algebra behind NumPy.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._limits = threadpool_limits(threads)
        self._opened: tuple[str, Workbench] | None = None

    def __call__(self, config: Mapping[str, Any], folder: str) -> Result:
        """Run ``config`` in ``folder``; what goes wrong is in the result and in the folder's status, never raised."""
        try:
            parsed = RunConfig.from_dict(config)
            run(parsed, folder, bench=lambda: self._bench(parsed))
        except KeyboardInterrupt:
            return {"state": "stopped", "message": "interrupted"}
        except (InterpUnlearnError, OSError) as error:
            self._opened = None
            return {"state": "failed", "message": str(error)}
        except Exception as error:  # one broken run must not end the sweep: it is written down and reported
            self._opened = None
            message = f"{type(error).__name__}: {error}"
            out = RunFolder(folder)
            if (out.path / "config.json").exists():
                out.log("error", message=message, traceback=traceback.format_exc())
                out.write_status("failed", message=message)
            return {"state": "failed", "message": message}
        return {"state": "done", "message": ""}

    def _bench(self, config: RunConfig) -> Workbench:
        if self._opened is None or self._opened[0] != config.shared_key:
            self._opened = None  # lets go of the old model before the new one is opened
            self._opened = (config.shared_key, open_workbench(config))
        return self._opened[1]


def find_work(name: str) -> Callable[[int], Callable[[Mapping[str, Any], str], Result]]:
    """The class or function that ``"package.module:name"`` names."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def serve(name: str, threads: int) -> None:
    """Serve one driver: a line of JSON in (config and folder), a line of JSON out (the result), until the input ends.

    The end of the input during a run, because the driver stops or died, interrupts the run, which then saves its
    training state.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between the answers
    jobs: queue.Queue[str | None] = queue.Queue()
    busy = threading.Event()

    def read() -> None:
        for line in sys.stdin:
            jobs.put(line)
        jobs.put(None)
        if busy.is_set():
            _thread.interrupt_main()

    def answer(value: Mapping[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    work = find_work(name)(threads)
    answer({"ready": os.getpid()})
    threading.Thread(target=read, daemon=True).start()
    try:
        while (line := jobs.get()) is not None:
            busy.set()
            job = json.loads(line)
            result = work(job["config"], job["folder"])
            busy.clear()
            answer(result)
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # the driver is gone or wants to stop; the run has saved its state
