"""The folder of runs: what lies in it, read once and again only when it has changed. Knows no streamlit.

A run is named by its path below the folder. Only names that were found there are opened, so that no name in a URL
leads out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from interp_unlearn._core import InterpUnlearnError
from interp_unlearn.report import BoardRow, Comparison, RunView, compare, find_runs, read_board_row, read_run

WATCHED = (
    "config.json",
    "status.json",
    "verdict.json",
    "parts.json",
    "events.jsonl",
    "task.json",
    "tables",
    "evidence",
)
"""What changes when a run does: files are replaced as a whole, which changes the time of their folder."""

Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Listed:
    """One run folder.

    Attributes:
        id: Its path below the folder of runs.
        path: Where it lies.
        stamp: Changes when the run does.
    """

    id: str
    path: Path
    stamp: Stamp

    @property
    def row(self) -> BoardRow | None:
        """What the list of runs says of it, or None where it cannot be read."""
        return _row(self.path, self.stamp)[0]

    @property
    def problem(self) -> str:
        """Why it cannot be read, or empty."""
        return _row(self.path, self.stamp)[1]

    @property
    def group(self) -> str:
        """Runs of one group can be shown side by side; one that cannot be read is alone."""
        return self.row.group if self.row else self.id


def runs_in(root: Path) -> tuple[Listed, ...]:
    """Every run at or below ``root``; none where there is none."""
    try:
        found = find_runs([root])
    except InterpUnlearnError:
        return ()
    return tuple(Listed(_id(path, root), path, _stamp(path)) for path in found)


def view_of(listed: Listed) -> RunView:
    """Everything that a run saved.

    Raises:
        FileFormatError: If it cannot be read.
    """
    return _view(listed.path, listed.stamp)


def comparison_of(chosen: Sequence[Listed]) -> Comparison:
    """Runs of one group side by side.

    Raises:
        FileFormatError: If one of them cannot be read.
    """
    return _comparison(tuple((one.path, one.stamp) for one in chosen))


def _id(path: Path, root: Path) -> str:
    relative = path.relative_to(root).as_posix()
    return path.resolve().name if relative == "." else relative


def _stamp(path: Path) -> Stamp:
    times = []
    for name in WATCHED:
        try:
            facts = (path / name).stat()
        except OSError:
            times.append(0)
        else:
            times += [facts.st_mtime_ns, facts.st_size]
    return tuple(times)


@lru_cache(maxsize=4096)
def _row(path: Path, _stamp: Stamp) -> tuple[BoardRow | None, str]:
    try:
        return read_board_row(path), ""
    except Exception as error:  # whatever is wrong with one run, the others stay in the list
        return None, str(error) if isinstance(
            error, (InterpUnlearnError, OSError)
        ) else f"it cannot be read ({error!r})"


@lru_cache(maxsize=24)
def _view(path: Path, _stamp: Stamp) -> RunView:
    return read_run(path)


@lru_cache(maxsize=24)
def _comparison(chosen: tuple[tuple[Path, Stamp], ...]) -> Comparison:
    return compare([_view(path, stamp) for path, stamp in chosen])[0]
