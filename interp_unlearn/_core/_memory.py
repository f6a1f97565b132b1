"""Memory that the process holds but does not use."""

from __future__ import annotations

import ctypes
import sys


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library can (glibc); elsewhere nothing happens.

    glibc keeps freed blocks under some megabytes, which is what gradients and optimiser states of most layers are: a
    process that trains one model after the other otherwise stays as large as it was at its worst, several times over.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
