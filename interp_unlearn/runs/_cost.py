"""What a part of a run costs: wall time, processor time, memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from interp_unlearn._core import give_back_memory


@dataclass
class Cost:
    """Cost of one block, complete when it ends.

    Attributes:
        seconds: Wall time.
        cpu_seconds: Processor time of all threads of this process, which other programs do not lengthen.
        peak_mb: Highest resident memory of the process inside the block, above that at its start, in megabytes; None
            where the system does not tell. Freed memory is given back first (`give_back_memory`), so that it is not
            taken for granted.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float | None = None


@contextmanager
def measured(cost: Cost | None = None) -> Iterator[Cost]:
    """Measure the block into ``cost`` (default: a new one), which is complete also when the block raises.

    Memory on Linux only: the kernel keeps the high-water mark, which costs nothing.
    """
    cost = cost or Cost()
    resident = _reset()
    wall, processor = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        cost.seconds, cost.cpu_seconds = time.perf_counter() - wall, time.process_time() - processor
        high = _status_mb("VmHWM")
        if resident is not None and high is not None:
            cost.peak_mb = round(max(high - resident, 0.0), 1)


def _reset() -> float | None:
    """Start the high-water mark anew; the resident memory now, or None where that is impossible."""
    give_back_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # another system, or a container that forbids it
        return None
    return _status_mb("VmRSS")


def _status_mb(field: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:")), None)
