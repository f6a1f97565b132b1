"""JSON files, written atomically, read with errors that name the fix (tensors: `_tensors`). Needs no torch."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interp_unlearn._core._errors import FileFormatError


def cache_dir() -> Path:
    """Folder of converted models and gold models: ``$INTERP_UNLEARN_CACHE``, else ``~/.cache/interp-unlearn``."""
    root = os.environ.get("INTERP_UNLEARN_CACHE")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "interp-unlearn"


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
        temporary.chmod(0o644)
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
            f"{path} is not valid JSON ({error}); it may be truncated: delete it and run again"
        ) from error


def append_jsonl(path: str | Path, record: Mapping[str, Any]) -> None:
    """Append one record as a line and flush it to disk."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


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
            raise FileFormatError(f"{path} line {number + 1} is not valid JSON ({error})") from error
    return records
