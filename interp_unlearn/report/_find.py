"""Find run folders below the paths that a user gives: single runs, folders of runs, whole sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from interp_unlearn._core import ConfigError, FileFormatError, run_folders
from interp_unlearn.report._read import RunView, read_all


def find_runs(paths: Sequence[str | Path]) -> tuple[Path, ...]:
    """Run folders at or below ``paths``, each once, in the order given and by name within each.

    Folders whose name starts with a dot, and other things than runs, are passed over; links to folders are followed.

    Raises:
        ConfigError: If no path is given.
        FileFormatError: If a path holds no run folder.
    """
    if not paths:
        raise ConfigError("give at least one run folder, or a folder of run folders")
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        here = run_folders(path)
        if not here:
            raise FileFormatError(f"{path} holds no run folder; give a folder made by: interp-unlearn run CONFIG")
        for folder in here:
            found.setdefault(folder.resolve(), folder)
    return tuple(found.values())


def read_runs(folders: Sequence[str | Path]) -> tuple[tuple[RunView, ...], tuple[str, ...]]:
    """Read run folders, each once.

    Returns:
        The runs that can be read, and a sentence for each that cannot.

    Raises:
        FileFormatError: If none can be read.
    """
    runs, refused = read_all([Path(folder) for folder in folders])
    if not runs:
        raise FileFormatError("; ".join(refused) or "give at least one run folder, or a folder of run folders")
    return tuple(runs), tuple(refused)
