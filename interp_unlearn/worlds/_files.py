"""Files that belong to the worlds: tables shipped with the package, and the optional data folder."""

from __future__ import annotations

import json
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from interp_unlearn._core import DataError, read_json


@cache
def read_text(name: str) -> str:
    """A text file of ``worlds/data``."""
    return (files("interp_unlearn.worlds") / "data" / name).read_text(encoding="utf-8")


@cache
def read_data(name: str) -> Any:
    """A JSON file of ``worlds/data``; treat what it returns as read-only, it is kept."""
    return json.loads(read_text(name))


def data_folder(data_dir: str | Path | None, *parts: str) -> Path:
    """A file or folder of the optional data folder (``data_dir``, else ``$INTERP_UNLEARN_DATA``).

    Raises:
        DataError: If no folder is named, or the wanted part is not in it.
    """
    named = data_dir if data_dir is not None else os.environ.get("INTERP_UNLEARN_DATA")
    if named is None:
        raise DataError(
            f"this world needs {'/'.join(parts)} of the data folder; pass data_dir=…, or set INTERP_UNLEARN_DATA "
            "to the folder that holds it"
        )
    path = Path(named).expanduser().joinpath(*parts)
    if not path.exists():
        raise DataError(f"the data folder {named} has no {'/'.join(parts)}")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A JSON list of objects.

    Raises:
        FileFormatError: If the file is not JSON.
        DataError: If it holds something else.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise DataError(f"{path} must hold a JSON list of objects")
    return rows
