"""Your own questions: a JSON or JSONL file with one question a row, read strictly.

Fields of a row (``docs/audit.md`` has the schema):

- ``role``: ``"forget"``, ``"retain"``, or ``"unknown"`` (an entity that no model can know; needs no question);
- ``question`` and ``answer``: texts; a question that ends in ``?`` is asked as ``Question: … Answer:``, any other text
  is continued by its answer;
- ``entity``: whom the question is about, as written in it; where it is left out it is found by its name;
- ``paraphrases``: the same question in other words, used for evaluation only;
- ``also``: other right answers; ``options``: wrong ones; ``relation``: what is asked, for questions of one kind.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from interp_unlearn._core import DataError, FileFormatError, nearest
from interp_unlearn.worlds._real import slug

Role = Literal["forget", "retain", "unknown"]
ROLES: tuple[Role, ...] = get_args(Role)
FIELDS = ("role", "question", "answer", "entity", "paraphrases", "also", "options", "relation")
LISTS = ("paraphrases", "also", "options")
_NAME = re.compile(r"(?<=\S )[A-Z][\w'’.-]*(?: (?:of|the|de|van|von|da|al|bin) [A-Z][\w'’.-]*| [A-Z][\w'’.-]*)*")


@dataclass(frozen=True)
class OwnQuestion:
    """One row of the file.

    Attributes:
        role: What its entity is.
        question: The question, empty for an unknown entity.
        answer: The right answer, likewise.
        entity: Name, as it stands in the question.
        paraphrases: The same question in other words.
        also: Other right answers.
        options: Wrong answers.
        relation: What is asked; the same for questions of one kind.
    """

    role: Role
    question: str = ""
    answer: str = ""
    entity: str = ""
    paraphrases: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    relation: str = ""


def read_questions(path: str | Path, names: Sequence[str] = ()) -> tuple[OwnQuestion, ...]:
    """Read and check a file of questions.

    Args:
        path: ``.jsonl`` (one object a line), or JSON (a list of objects).
        names: Entities to look for in questions that name none.

    Raises:
        FileFormatError: If the file is missing or not JSON.
        DataError: If a row cannot be used; the row and the fix are named.
    """
    path = Path(path).expanduser()
    rows = [_row(where, data) for where, data in _rows(path)]
    if not any(row.role == "forget" for row in rows):
        raise DataError(f'{path} has no question to forget; give at least one row with "role": "forget"')
    known = list(dict.fromkeys([*names, *(row.entity for row in rows if row.entity)]))
    found = [row if row.entity else _named(f"{path} row {i}", row, known) for i, row in enumerate(rows, 1)]
    out: list[OwnQuestion] = []
    facts: dict[tuple[str, str], int] = {}
    for number, row in enumerate(found, 1):
        where = f"{path} row {number}"
        row = replace(row, relation=row.relation or _relation(row))
        if row.role != "unknown":
            _check_mentions(where, row)
            first = facts.setdefault((row.entity.casefold(), row.relation), number)
            if first != number:
                raise DataError(
                    f"{where} asks the same of {row.entity} as row {first}; put other wordings into paraphrases, other "
                    "answers into also"
                )
        out.append(row)
    _check_roles(path, out)
    return tuple(out)


def checksum(path: str | Path) -> str:
    """SHA-256 of a file, as hex.

    Raises:
        FileFormatError: If it is missing.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileFormatError(f"{path} does not exist; give a .json or .jsonl file of questions")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _rows(path: Path) -> list[tuple[str, Any]]:
    if not path.is_file():
        raise FileFormatError(f"{path} does not exist; give a .json or .jsonl file of questions")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
            return [(f"{path} line {i}", json.loads(line)) for i, line in lines]
        data = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(data, list):
        raise DataError(f"{path} must hold a JSON list of rows, each an object with question, answer and role")
    return [(f"{path} row {i}", row) for i, row in enumerate(data, 1)]


def _row(where: str, data: Any) -> OwnQuestion:
    if not isinstance(data, Mapping):
        raise DataError(f"{where} is not an object with question, answer and role")
    for key in data:
        if key not in FIELDS:
            raise DataError(f"{where}: unknown field {key!r}{nearest(str(key), FIELDS)}; known: {', '.join(FIELDS)}")
    role = data.get("role")
    if role not in ROLES:
        raise DataError(f"{where}: role is {role!r}; use one of {', '.join(ROLES)}")
    values: dict[str, Any] = {"role": role}
    for key in FIELDS[1:]:
        value = data.get(key)
        if key in LISTS:
            listed = [] if value is None else value
            if not isinstance(listed, list) or not all(isinstance(v, str) and v.strip() for v in listed):
                raise DataError(f"{where}: {key} is {value!r}; write a list of texts")
            values[key] = tuple(v.strip() for v in listed)
            continue
        if value is not None and not isinstance(value, str):
            raise DataError(f"{where}: {key} is {value!r}; write a text")
        values[key] = (value or "").strip()
    needed = ("entity",) if role == "unknown" else ("question", "answer")
    for key in needed:
        if not values[key]:
            raise DataError(f"{where}: {key} is missing or empty")
    return OwnQuestion(**values)


def _named(where: str, row: OwnQuestion, known: Sequence[str]) -> OwnQuestion:
    """The row with the entity that its question names: a known one, else the last run of capitalised words."""
    inside = [name for name in known if _finds(name, row.question)]
    if inside:
        return replace(row, entity=max(inside, key=len))
    guessed = _NAME.findall(row.question)
    if not guessed:
        raise DataError(
            f"{where} names no entity; add the field entity with the name in {row.question!r} that it is about "
            "(activations are read there)"
        )
    return replace(row, entity=guessed[-1].rstrip(".").removesuffix("'s").removesuffix("’s"))


def _finds(name: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _check_mentions(where: str, row: OwnQuestion) -> None:
    for text in (row.question, *row.paraphrases):
        if row.entity not in text:
            raise DataError(
                f"{where}: {text!r} does not contain its entity {row.entity!r}, at whose name activations are read; "
                "write the name into it, or correct entity"
            )
    right = {a.casefold() for a in (row.answer, *row.also)}
    wrong = next((o for o in row.options if o.casefold() in right), None)
    if wrong is not None:
        raise DataError(f"{where}: {wrong!r} is both a right answer and a wrong option; remove it from one")


def _relation(row: OwnQuestion) -> str:
    """Questions of the same words but for the entity ask the same relation."""
    return slug(row.question.replace(row.entity, "of")) or "question"


def _check_roles(path: Path, rows: Sequence[OwnQuestion]) -> None:
    roles: dict[str, Role] = {}
    for number, row in enumerate(rows, 1):
        role = roles.setdefault(row.entity.casefold(), row.role)
        if role != row.role and "unknown" in (role, row.role):
            raise DataError(f"{path} row {number}: {row.entity!r} is unknown in one row and {role} in another")
