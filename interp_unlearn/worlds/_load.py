"""`load_world`: a world by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp_unlearn._core import ConfigError, DataError, nearest
from interp_unlearn.worlds._own import OwnQuestion, checksum, read_questions
from interp_unlearn.worlds._real import ENTITY_FILES, TABLES, entity_world, table_world
from interp_unlearn.worlds._types import World

WORLDS: dict[str, str] = {
    "tinyworld": "generated people and towns; its model is trained here, so that a gold model exists",
    "countries": "193 countries: capital, continent, currency, language, neighbour, demonym",
    "people": "192 well-known people: occupation, nationality, field, a work",
    "cities": "cities of the data folder: country",
    "movies": "films of the data folder: director, release year, cast",
    "players": "basketball players of the data folder: team, place and year of birth",
    "songs": "songs of the data folder: performer, album, release year",
    "questions": "your own questions, from a JSON or JSONL file (option path), see docs/audit.md",
}


def list_worlds() -> list[dict[str, Any]]:
    """The worlds as rows with ``name``, ``summary`` and ``needs_data`` (whether it reads the optional data folder)."""
    return [{"name": n, "summary": s, "needs_data": n in ENTITY_FILES} for n, s in WORLDS.items()]


def load_world(name: str, *, data_dir: str | Path | None = None, tokenizer: Any = None, **options: Any) -> World:
    """Load a world.

    Args:
        name: See `list_worlds`.
        data_dir: Optional data folder (default ``$INTERP_UNLEARN_DATA``), for the worlds that need it.
        tokenizer: The model's; invented names of real worlds are matched to real ones in its tokens (default: in
            letters).
        options: ``n_unknown``, ``seed`` and ``corpus`` of real worlds, ``limit`` of those of the data folder,
            ``path`` of your own questions (with ``sha256`` to refuse another file, ``names`` of entities to look for
            in rows that name none), and the fields of `TinyWorldConfig` for TinyWorld.

    Raises:
        ConfigError: If the name or an option is unknown; the nearest names are shown.
        DataError: If the data folder is needed and missing.
    """
    if name not in WORLDS:
        raise ConfigError(f"unknown world {name!r}{nearest(name, WORLDS)}; known: {', '.join(WORLDS)}")
    allowed = _allowed(name)
    wrong = next((o for o in options if o not in allowed), None)
    if wrong is not None:
        raise ConfigError(
            f"world {name!r} has no option {wrong!r}{nearest(wrong, allowed)}; known: {', '.join(allowed)}"
        )
    if name == "tinyworld":
        from interp_unlearn.worlds._tinyworld import TinyWorldConfig, tinyworld

        return tinyworld(TinyWorldConfig(**options))
    if name == "questions":
        from interp_unlearn.worlds._own_task import questions_world

        return questions_world(own_questions(options), tokenizer=tokenizer, **_other_than_file(options))
    if name in TABLES:
        return table_world(name, tokenizer=tokenizer, **options)
    return entity_world(name, data_dir=data_dir, tokenizer=tokenizer, **options)


def own_questions(options: Mapping[str, Any]) -> tuple[OwnQuestion, ...]:
    """The rows of the file that the options of world ``questions`` name.

    Raises:
        ConfigError: If no file is named.
        DataError: If the file is not the one of the checksum, or a row cannot be used.
        FileFormatError: If it is missing or not JSON.
    """
    path = options.get("path")
    if not isinstance(path, str) or not path:
        raise ConfigError('world.options.path is missing; name the file: [world.options] path = "questions.jsonl"')
    wanted = options.get("sha256")
    if wanted and checksum(path) != wanted:
        raise DataError(f"{path} has changed since the run began; put the old file back, or start a new run")
    return read_questions(path, tuple(str(name) for name in options.get("names", ())))


def _other_than_file(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k not in ("path", "sha256", "names")}


def _allowed(name: str) -> tuple[str, ...]:
    if name == "tinyworld":
        from interp_unlearn.worlds._tinyworld import TinyWorldConfig

        return tuple(TinyWorldConfig.__dataclass_fields__)
    if name == "questions":
        return ("path", "sha256", "names", "n_unknown", "seed", "corpus")
    return ("n_unknown", "seed", "corpus", "limit") if name in ENTITY_FILES else ("n_unknown", "seed", "corpus")
