"""Ctrl-C between two steps of training, never inside one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupted_between() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back; what is yielded raises it and is called where the state is whole.

    A step moves weights first and counts itself later, so a checkpoint taken inside one mixes two steps. A second
    Ctrl-C is not held back: it ends a step that takes too long, and training then resumes from its last checkpoint.
    Outside the main thread, and where the program handles Ctrl-C itself, nothing is held back.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: None
        return
    asked = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.default_int_handler(number, frame)
        asked = True

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, hold)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    check()
