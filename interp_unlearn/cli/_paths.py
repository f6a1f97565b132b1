"""What is said of paths before any work is done, and text files read as documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from interp_unlearn._core import ConfigError, DataError, InterpUnlearnError
from interp_unlearn.cli._console import say

if TYPE_CHECKING:
    from interp_unlearn.runs import RunFolder


def check_file(path: Path, what: str) -> None:
    """Refuse a folder where a file is read.

    Raises:
        ConfigError: If it is one.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the path of {what}")


def check_output(path: Path | None, option: str, name: str) -> None:
    """Refuse a folder where a file is to be written.

    Args:
        path: As given, or None.
        option: Which option it was given to.
        name: A file name that would do.

    Raises:
        ConfigError: If it is one.
    """
    if path is not None and path.is_dir():
        raise ConfigError(f"{option} {path} is a folder; give a file, for example {path / name}")


def documents(path: Path) -> list[str]:
    """A text file's documents, which blank lines part.

    Raises:
        DataError: If it does not exist, is a folder, or is not UTF-8.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; give a text file")
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a text file")
    try:
        return path.read_text(encoding="utf-8").split("\n\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error


def open_runs(path: Path) -> list[RunFolder]:
    """The runs at or below a path; where there are several, those that cannot be opened are named and left out.

    Raises:
        FileFormatError: If there is none that can be opened.
    """
    from interp_unlearn.report import find_runs
    from interp_unlearn.runs import RunFolder

    found, opened, refused = find_runs([path]), [], []
    for folder in found:
        try:
            opened.append(RunFolder.open(folder))
        except InterpUnlearnError as error:
            if len(found) == 1:
                raise
            refused.append(error)
    if not opened:
        raise refused[0]
    for error in refused:
        say(f"left out: {error}")
    return opened
