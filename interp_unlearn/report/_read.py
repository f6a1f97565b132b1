"""Read a run folder into memory, forgiving: what is missing or broken becomes a sentence, never a traceback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from interp_unlearn._core import Evidence, FileFormatError, InterpUnlearnError, Labelled, read_json, read_jsonl
from interp_unlearn.report._checked import checked, mapping

T = TypeVar("T")


@dataclass(frozen=True)
class RunView:
    """What a run saved, as far as it can be read.

    Attributes:
        path: The run folder.
        name: The run's name in its config, else the folder's name.
        config: ``config.json``.
        status: ``status.json``, or empty.
        task: ``task.json``, or empty.
        recipe: ``recipe.json`` (the recipe with every default filled in), or empty.
        events: Lines of ``events.jsonl``.
        tables: ``tables/*.json`` by file name without suffix.
        evidence: ``evidence/*.json`` by the evidence's own name.
        verdict: ``verdict.json``, or empty.
        parts: What ``parts.json`` says of each registered part of the evidence, by name; empty where there is none.
        problems: One sentence for each file that is missing or cannot be read.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    status: Mapping[str, Any]
    task: Mapping[str, Any]
    recipe: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    tables: Mapping[str, Labelled]
    evidence: Mapping[str, Evidence]
    problems: tuple[str, ...]
    verdict: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the run says that it is complete."""
        return self.status.get("state") == "done"


def read_run(folder: str | Path, *, only: Sequence[str] | None = None) -> RunView:
    """Read one run folder.

    Args:
        folder: As written by ``interp-unlearn run``; it may still be written.
        only: Read tables whose names begin with one of these, and no evidence: for lists of runs. Default all.

    Raises:
        FileFormatError: If it is not a run folder at all (no readable ``config.json`` of a run).
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileFormatError(f"{path} is not a folder; give a folder made by: interp-unlearn run CONFIG")
    if not (path / "config.json").exists():
        raise FileFormatError(f"{path} is not a run folder: it has no config.json")
    try:
        config = read_json(path / "config.json")
    except OSError as error:
        raise FileFormatError(f"{path / 'config.json'} cannot be read ({error.strerror or error})") from error
    if not isinstance(config, dict) or config.get("kind") != "run":
        raise FileFormatError(f"{path} is not a run folder: its config.json was not written by interp-unlearn run")
    problems: list[str] = []
    config = checked(config, "config.json", problems)
    evidence = None if only is None else ()
    return RunView(
        path=path,
        name=str(config.get("name") or path.resolve().name),
        config=config,
        status=_object(path / "status.json", problems),
        task=_object(path / "task.json", problems),
        recipe=_if_there(path / "recipe.json", problems),
        events=_events(path, problems, trained=not mapping(config.get("model")).get("edited")),
        tables=_all(path / "tables", _labelled, problems, only),
        evidence={e.name: e for e in _all(path / "evidence", Evidence.load, problems, evidence).values()},
        verdict=_if_there(path / "verdict.json", problems),
        parts=_parts(_if_there(path / "parts.json", problems)),
        problems=tuple(problems),
    )


def read_all(folders: Sequence[Path]) -> tuple[list[RunView], list[str]]:
    """Each folder once, and a sentence for each that cannot be read."""
    runs, refused, seen = [], [], set()
    for folder in folders:
        if Path(folder).resolve() in seen:
            continue
        seen.add(Path(folder).resolve())
        try:
            runs.append(read_run(folder))
        except InterpUnlearnError as error:
            refused.append(str(error))
    return runs, refused


def _if_there(path: Path, problems: list[str]) -> Mapping[str, Any]:
    return _object(path, problems) if path.exists() else {}


def _parts(data: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return {str(k): v for k, v in mapping(data.get("parts")).items() if isinstance(v, Mapping)}


def _object(path: Path, problems: list[str]) -> Mapping[str, Any]:
    try:
        data = read_json(path)
    except (InterpUnlearnError, OSError) as error:
        problems.append(_relative(error, path))
        return {}
    if not isinstance(data, dict):
        problems.append(f"{path.name} holds no object")
        return {}
    return checked(data, path.name, problems)


def _events(folder: Path, problems: list[str], *, trained: bool) -> tuple[Mapping[str, Any], ...]:
    path = folder / "events.jsonl"
    if not path.exists():
        # A model edited elsewhere took no step here, and a method that only edits the running model takes none.
        if trained and not (folder / "intervention.json").exists():
            problems.append(f"{path.name} does not exist")
        return ()
    try:
        return tuple(e for e in read_jsonl(path) if isinstance(e, dict))
    except (InterpUnlearnError, UnicodeDecodeError, OSError) as error:
        problems.append(_relative(error, path))
        return ()


def _labelled(path: Path) -> Labelled:
    data = read_json(path)
    if not isinstance(data, dict) or data.get("kind") != "labelled":
        raise FileFormatError(f"{path} is not a saved table")
    return Labelled.from_json(data)


def _all(
    folder: Path, load: Callable[[Path], T], problems: list[str], only: Sequence[str] | None = None
) -> dict[str, T]:
    found: dict[str, T] = {}
    if not folder.is_dir():
        problems.append(f"{folder.name}/ does not exist")
        return found
    for path in sorted(folder.glob("*.json")):
        if only is not None and not path.name.startswith(tuple(only)):
            continue
        try:
            found[path.stem] = load(path)
        except (InterpUnlearnError, OSError) as error:
            problems.append(_relative(error, path))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"{folder.name}/{path.name} is not a saved result of this version ({error})")
    return found


def _relative(error: Exception, path: Path) -> str:
    """The error's sentence with the file's name in place of its full path."""
    if isinstance(error, OSError):
        return f"{path.name} cannot be read ({error.strerror or error})"
    return str(error).replace(str(path), path.name)
