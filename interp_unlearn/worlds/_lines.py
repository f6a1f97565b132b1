"""Text files with one template, refusal or prompt a line: read strictly, because a blank line becomes training data."""

from __future__ import annotations

from pathlib import Path

from interp_unlearn._core import DataError, FileFormatError

MISSING = frozenset({"nan", "none", "null", "n/a", "<na>"})
"""What spreadsheets and data frames write for a value that is missing."""


def read_lines(path: str | Path) -> tuple[str, ...]:
    """The lines of a UTF-8 text file, in order, without surrounding space; the last line may end in a newline.

    A blank line, or one that only says that a value is missing, is refused: trained on, it teaches the model to
    answer with nothing, or with the word "nan".

    Raises:
        FileFormatError: If the file does not exist or is not text.
        DataError: If it is empty, or a line is blank or stands for a missing value; the line is named.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} does not exist") from error
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not a UTF-8 text file ({error})") from error
    lines = [line.strip() for line in text.split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path} is empty; write one template a line")
    for number, line in enumerate(lines, 1):
        if not line:
            raise DataError(f"{path} line {number} is blank; delete it, or write the template that is missing")
        if line.casefold() in MISSING:
            raise DataError(f"{path} line {number} is {line!r}, a missing value rather than a template; delete it")
    return tuple(lines)
