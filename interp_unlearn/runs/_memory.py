"""How much memory a part of a run needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Peak:
    """Memory of one block.

    Attributes:
        mb: Highest resident memory of the process inside the block, above that at its start, in megabytes; None until
            the block ends, and where the system does not tell.
    """

    mb: float | None = None


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watch the memory of the block. Linux only: the kernel keeps the high-water mark, which costs nothing."""
    peak = Peak()
    start = _reset()
    try:
        yield peak
    finally:
        high = _status_mb("VmHWM")
        if start is not None and high is not None:
            peak.mb = round(max(high - start, 0.0), 1)


def _reset() -> float | None:
    """Start the high-water mark anew; the resident memory now, or None where that is impossible."""
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
