"""Find run folders below the paths that a user gives: single runs, folders of runs, whole sweeps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from interp_unlearn._core import ConfigError, FileFormatError, InterpUnlearnError, read_json
from interp_unlearn.report._read import RunView, read_run


def find_runs(paths: Sequence[str | Path]) -> tuple[Path, ...]:
    """Run folders at or below ``paths``, each once, in the order given and by name within each.

    Folders whose name starts with a dot, and other things than runs, are passed over.

    Raises:
        ConfigError: If no path is given.
        FileFormatError: If a path holds no run folder.
    """
    if not paths:
        raise ConfigError("give at least one run folder, or a folder of run folders")
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        here = _below(path)
        if not here:
            raise FileFormatError(f"{path} holds no run folder; give a folder made by: interp-unlearn run CONFIG")
        for folder in here:
            found.setdefault(folder.resolve(), folder)
    return tuple(found.values())


def _below(path: Path) -> list[Path]:
    found = []
    for folder, inner, files in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if "config.json" in files and _may_be_a_run(Path(folder)):
            found.append(Path(folder))
            inner.clear()
    return found


def _may_be_a_run(folder: Path) -> bool:
    """Whether this is a run, or so broken that it must be said."""
    try:
        config = read_json(folder / "config.json")
    except InterpUnlearnError:
        return True
    return isinstance(config, dict) and config.get("kind") == "run"


def read_runs(folders: Sequence[str | Path]) -> tuple[tuple[RunView, ...], tuple[str, ...]]:
    """Read run folders.

    Returns:
        The runs that can be read, and a sentence for each that cannot.

    Raises:
        FileFormatError: If none can be read.
    """
    runs, refused = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except InterpUnlearnError as error:
            refused.append(str(error))
    if not runs:
        raise FileFormatError("; ".join(refused))
    return tuple(runs), tuple(refused)
