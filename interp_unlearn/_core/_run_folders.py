"""Where runs are: one way for every command to find run folders below a path. Needs no torch."""

import os
from pathlib import Path

from interp_unlearn._core._errors import InterpUnlearnError
from interp_unlearn._core._io import read_json


def run_folders(path: str | Path) -> list[Path]:
    """Run folders at or below ``path``, at any depth, by name; links to folders are followed.

    Folders whose name starts with a dot, and other things than runs (such as models), are passed over. A folder whose
    ``config.json`` cannot be read is among them, so that it can be said.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for folder, inner, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to what was walked through already, perhaps to a folder around this one
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if "config.json" in files and _may_be_a_run(Path(folder)):
            found.append(Path(folder))
            inner.clear()
    return found


def _may_be_a_run(folder: Path) -> bool:
    """Whether this is a run, or so broken that it must be said."""
    try:
        config = read_json(folder / "config.json")
    except (InterpUnlearnError, OSError):
        return True
    return isinstance(config, dict) and config.get("kind") == "run"
