"""JSON files, written atomically, read with errors that name the fix (tensors: `_tensors`). Needs no torch."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from interp_unlearn._core._errors import FileFormatError

BLOCK = 1 << 16  # bytes read at a time, from a file's end


def cache_dir() -> Path:
    """Folder of converted models and gold models: ``$INTERP_UNLEARN_CACHE``, else ``~/.cache/interp-unlearn``."""
    root = os.environ.get("INTERP_UNLEARN_CACHE")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "interp-unlearn"


def _umask() -> int:
    """The process's file mode mask; the system tells it only by setting another one."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; move it over ``path`` when the body succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON; a reader sees the old file or the whole new one."""
    with atomic(Path(path)) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=False, allow_nan=True) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        FileFormatError: If it is missing, truncated or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} does not exist") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(
            f"{path} is not valid JSON ({error}); it may be truncated: restore it, or delete the folder that it "
            "belongs to and make that again"
        ) from error


def append_jsonl(path: str | Path, record: Mapping[str, Any]) -> None:
    """Append one record as a line and flush it to disk; a last line that a kill cut short is replaced."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.truncate(_whole_lines(file))
        file.write((json.dumps(record) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(file: BinaryIO) -> int:
    """Length of the file up to the end of its last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def write_jsonl(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as lines, atomically."""
    with atomic(Path(path)) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read records written by `append_jsonl`; a last line cut by a kill is dropped."""
    path = Path(path)
    if not path.exists():
        return []
    records: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number >= len(lines) - 1:
                break
            raise FileFormatError(
                f"{path} line {number + 1} is not valid JSON ({error}); remove the line, or restore the file"
            ) from error
    return records
