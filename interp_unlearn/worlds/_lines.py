"""Text files with one template, refusal or prompt a line: read strictly, because a blank line becomes training data."""

from __future__ import annotations

from pathlib import Path

from interp_unlearn._core import DataError, FileFormatError

MISSING = frozenset({"nan", "none", "null", "n/a", "<na>"})
"""What spreadsheets and data frames write for a value that is missing."""


def read_lines(path: str | Path, what: str = "template") -> tuple[str, ...]:
    """The lines of a UTF-8 text file, in order, without surrounding space; the last line may end in a newline.

    A blank line, or one that only says that a value is missing, is refused: trained on, it teaches the model to
    answer with nothing, or with the word "nan".

    Args:
        path: The file.
        what: What a line is, for messages.

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
    lines = text.split("\n")
    if not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(f"{path} is empty; write one {what} a line")
    return tuple(present(line, f"{path}, line {number}", what) for number, line in enumerate(lines, 1))


def present(value: object, where: str, what: str) -> str:
    """A text without surrounding space.

    Raises:
        DataError: If it is none, is blank or stands for a missing value; ``where`` is named.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        raise DataError(f"{where}: the {what} is blank and would be trained on as it stands; write one, or delete it")
    if text.casefold() in MISSING:
        raise DataError(f"{where}: {text!r} is a missing value and would be trained on as a {what}; delete it")
    return text
