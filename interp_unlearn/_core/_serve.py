"""Serve jobs to another process over pipes, a line of JSON each way. Needs no torch."""

import _thread
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

Job = Callable[[Mapping[str, Any], str], Mapping[str, Any]]
"""Does one job, given by its config and folder, and says how it ended."""


def find_work(name: str) -> Callable[[int], Job]:
    """What ``"package.module:name"`` names: something that makes a `Job`, given its number of threads."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _interrupt_main() -> None:
    """Ctrl-C for the main thread, also in the middle of a sleep or a system call where the system can do so."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:  # Windows
        _thread.interrupt_main()


def serve(name: str, threads: int) -> None:
    """Serve one driver: a line in (config and folder), a line out (the result), until the input ends.

    The end of the input during a job, because the driver stops or died, interrupts the job as Ctrl-C would, so that it
    can save its state.

    Args:
        name: See `find_work`.
        threads: Passed on.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between the answers
    jobs: queue.Queue[str | None] = queue.Queue()
    busy = threading.Event()

    def read() -> None:
        for line in sys.stdin:
            jobs.put(line)
        jobs.put(None)
        if busy.is_set():
            _interrupt_main()

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
        pass  # the driver is gone or wants to stop; the job has saved its state
