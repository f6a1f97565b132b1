"""Types of what a run saved, checked once when it is read: what has another type is left out, and said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LIST, TABLE, TEXT = "a list", "an object", "a text"
KINDS: Mapping[str, tuple[type, ...]] = {LIST: (list,), TABLE: (dict,), TEXT: (str,)}

FIELDS: Mapping[str, Mapping[str, str]] = {
    "config.json": {
        "model": TABLE,
        "world": TABLE,
        "target": TABLE,
        "target.entities": LIST,
        "target.relations": LIST,
        "versions": TABLE,
    },
    "status.json": {"state": TEXT, "finished": LIST},
    "task.json": {
        "modality": TEXT,
        "target_entities": LIST,
        "mention_heldout": LIST,
        "sources": LIST,
        "text_eval": LIST,
    },
    "parts.json": {"parts": TABLE},
}
"""Types of the fields that views rely on, by file; a field may be absent or null."""


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def checked(data: Mapping[str, Any], file: str, problems: list[str]) -> Mapping[str, Any]:
    """Saved data without fields of a wrong type, each of which adds a problem, and without fields that are null there.

    Args:
        data: What the file holds.
        file: Its name, a key of `FIELDS`.
        problems: Where a sentence for each wrong field goes.
    """
    kept = dict(data)
    for name, kind in FIELDS.get(file, {}).items():
        outer, _, inner = name.partition(".")
        holder = kept if not inner else kept.get(outer, {})
        value = holder.get(inner or outer)
        if isinstance(value, KINDS[kind]):
            continue
        if value is not None:
            problems.append(f"{file}: {name} is not {kind}")
        less = {k: v for k, v in holder.items() if k != (inner or outer)}
        kept = less if not inner else {**kept, **({outer: less} if outer in kept else {})}
    if file == "task.json":
        kept = {k: _question_set(k, v, problems) for k, v in kept.items()}
    return kept


def _question_set(name: str, value: Any, problems: list[str]) -> Any:
    if isinstance(value, dict) and not isinstance(value.get("prompts", []), list):
        problems.append(f"task.json: {name}.prompts is not a list")
        return {k: v for k, v in value.items() if k != "prompts"}
    return value
