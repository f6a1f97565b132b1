"""Real-world facts: the tables of countries and people shipped here, and loaders for entity files of a data folder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from interp_unlearn._core import DataError
from interp_unlearn.worlds._files import data_folder, read_data, read_rows, read_text
from interp_unlearn.worlds._names import STYLE_OF_TYPE, invent_names
from interp_unlearn.worlds._templates import templates_for
from interp_unlearn.worlds._types import Entity, Fact, World

TABLES = {"countries": "countries.json", "people": "people.json"}
ENTITY_FILES: dict[str, tuple[str, str, Mapping[str, str]]] = {
    "cities": ("city.json", "city", {"country": "country"}),
    "movies": ("movie.json", "movie", {"directors": "director", "release_year": "release_year", "cast": "cast"}),
    "songs": ("song.json", "song", {"performers": "performer", "album": "album", "release_year": "release_year"}),
    "players": (
        "player.json",
        "player",
        {"teams": "team", "place_of_birth": "place_of_birth", "birth_year": "birth_year"},
    ),
}
"""World name to file, entity type, and relation by key of the file."""

_HOME_OF = {"English": "the United Kingdom", "Scottish": "the United Kingdom", "Argentinian": "Argentina"}
"""Nationalities that are no country's first demonym."""


def slug(name: str) -> str:
    """An id from a name: lower-case ASCII letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", name.removeprefix("the ")).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _gives_away(name: str, answer: str) -> bool:
    """Whether the answer can be read off the name, as the language of the Czech Republic."""
    return re.search(rf"\b{re.escape(answer)}\b", name) is not None


@cache
def _table(name: str) -> tuple[tuple[Entity, ...], tuple[Fact, ...], tuple[str, ...]]:
    """Entities, direct facts and sources of a shipped table."""
    data = read_data(TABLES[name])
    entities, facts = [], []
    for row in data["rows"]:
        entity = Entity(slug(row["name"]), row["name"], data["type"], aliases=tuple(row["aliases"]))
        entities.append(entity)
        for relation, values in row.items():
            if relation not in ("name", "aliases"):
                facts.append(Fact(entity.id, relation, values[0], tuple(values[1:])))
    return tuple(entities), tuple(facts), tuple(data["sources"])


@cache
def _country_values() -> dict[str, dict[str, Fact]]:
    """Country name (with and without its article) to its facts by relation."""
    entities, facts, _ = _table("countries")
    by_id: dict[str, dict[str, Fact]] = {}
    for fact in facts:
        by_id.setdefault(fact.subject, {})[fact.relation] = fact
    out: dict[str, dict[str, Fact]] = {}
    for entity in entities:
        for name in (entity.name, entity.name.removeprefix("the "), *entity.aliases):
            out[name] = by_id.get(entity.id, {})
    return out


def _derived(type: str, entities: Sequence[Entity], facts: Sequence[Fact]) -> list[Fact]:
    """Facts asked backwards or in two hops, made from the direct ones."""
    values: dict[str, dict[str, Fact]] = {}
    for fact in facts:
        values.setdefault(fact.subject, {})[fact.relation] = fact
    countries = _country_values()
    by_demonym = {f["demonym"].answer: f for f in countries.values() if "demonym" in f}
    ambiguous = {"Congolese", "Dominican"}
    # A value stands for one entity only if no other has it, also not as a further right answer.
    shared: dict[tuple[str, str], int] = {}
    for fact in facts:
        for value in {fact.answer, *fact.also}:
            shared[fact.relation, value] = shared.get((fact.relation, value), 0) + 1
    out: list[Fact] = []
    for entity in entities:
        own = values.get(entity.id, {})

        def unique(relation: str, own: Mapping[str, Fact] = own) -> bool:
            return relation in own and shared[relation, own[relation].answer] == 1

        names = tuple(a for a in (entity.name.removeprefix("the "), *entity.aliases) if a != entity.name)
        if type == "country":
            if unique("capital"):
                out.append(Fact(entity.id, "capital_of", entity.name, names))
                for relation in ("currency", "language", "continent"):
                    out.append(replace(own[relation], relation=f"capital>{relation}"))
            if unique("demonym") and "capital" in own:
                out.append(replace(own["capital"], relation="demonym>capital"))
        elif type == "person":
            if unique("work"):
                out.append(Fact(entity.id, "work_by", entity.name, names))
            nation = own["nationality"].answer if "nationality" in own else ""
            home = countries.get(_HOME_OF.get(nation, "")) or (
                by_demonym.get(nation) if nation not in ambiguous else None
            )
            if home and "capital" in home:
                out.append(replace(home["capital"], subject=entity.id, relation="nationality>capital"))
        elif type == "city" and own["country"].answer in countries:
            home = countries[own["country"].answer]
            for relation in ("continent", "currency"):
                out.append(replace(home[relation], subject=entity.id, relation=f"country>{relation}"))
    return out


def table_names() -> set[str]:
    """Every name and alias of the shipped tables."""
    return {n for name in TABLES for e in _table(name)[0] for n in (e.name, e.name.removeprefix("the "), *e.aliases)}


def table_world(name: str, *, tokenizer: Any = None, n_unknown: int = 120, seed: int = 0, corpus: Any = None) -> World:
    """The world of a shipped table, ``"countries"`` or ``"people"``.

    Args:
        name: Which table.
        tokenizer: The model's; invented names are matched to the real ones in its tokens.
        n_unknown: Invented entities.
        seed: Of the invented names.
        corpus: Text file to use instead of the shipped general text, paragraphs separated by empty lines.
    """
    entities, facts, sources = _table(name)
    return _world(name, entities, facts, sources, tokenizer=tokenizer, n_unknown=n_unknown, seed=seed, corpus=corpus)


def entity_world(
    name: str,
    *,
    data_dir: str | Path | None = None,
    tokenizer: Any = None,
    limit: int = 300,
    n_unknown: int = 120,
    seed: int = 0,
    corpus: Any = None,
) -> World:
    """The world of an entity file of the data folder: ``"cities"``, ``"movies"``, ``"songs"`` or ``"players"``.

    Args:
        name: Which file.
        data_dir: The data folder; default ``$INTERP_UNLEARN_DATA``.
        tokenizer: As in `table_world`.
        limit: The first so many entities of the file (old Wikidata items, on average the best known).
        n_unknown: Invented entities.
        seed: Of the invented names.
        corpus: As in `table_world`.

    Raises:
        DataError: If the data folder or the file is missing, or a row lacks a key.
    """
    file, type, keys = ENTITY_FILES[name]
    path = data_folder(data_dir, "entities", file)
    entities, facts = [], []
    for row in read_rows(path)[:limit]:
        if "qid" not in row or "name" not in row:
            raise DataError(f"{path}: every row needs 'qid' and 'name'")
        entities.append(Entity(row["qid"], row["name"], type))
        for key, relation in keys.items():
            found = row.get(key)
            values = [str(v) for v in (found if isinstance(found, list) else [found]) if v not in (None, "")]
            if values:
                facts.append(Fact(row["qid"], relation, values[0], tuple(values[1:])))
    sources = (
        f"{file} of the data folder: Wikidata (CC0 1.0), through the query results of javiferran/sae_entities "
        f"(Apache-2.0); the first {len(entities)} entities by Wikidata number.",
    )
    return _world(name, entities, facts, sources, tokenizer=tokenizer, n_unknown=n_unknown, seed=seed, corpus=corpus)


def _world(
    name: str,
    entities: Sequence[Entity],
    facts: Sequence[Fact],
    sources: Sequence[str],
    *,
    tokenizer: Any,
    n_unknown: int,
    seed: int,
    corpus: Any,
) -> World:
    type = entities[0].type
    names = [e.name for e in entities]
    exclude = table_names() | {f.answer for f in facts} | {a for f in facts for a in f.also} | set(names)
    invented = invent_names(
        tokenizer, names, n_unknown, seed, sorted(exclude), style=STYLE_OF_TYPE.get(type, "letters")
    )
    train, held = general_text(corpus)
    name_of = {e.id: e.name for e in entities}
    direct = [f for f in facts if not _gives_away(name_of[f.subject], f.answer)]
    return World(
        name=name,
        entities=tuple(entities),
        unknown=tuple(Entity(f"unknown-{type}-{i}", n, type, invented=True) for i, n in enumerate(invented)),
        facts=(*direct, *_derived(type, entities, facts)),
        templates=templates_for(type),
        text_train=train,
        text_eval=held,
        sources=(*sources, "Unknown names are invented." + ("" if corpus is None else f" General text: {corpus}.")),
    )


def general_text(corpus: str | Path | None = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paragraphs of general text, first half for recipes and second half for measuring.

    Args:
        corpus: Another text file, paragraphs separated by empty lines; default the shipped one, which mentions no
            country, capital or person of the tables, so that results do not depend on the machine.

    Raises:
        DataError: If the file is missing or has fewer than two paragraphs.
    """
    if corpus is None:
        text = read_text("text.txt")
    else:
        path = Path(corpus).expanduser()
        if not path.is_file():
            raise DataError(f"the text file {corpus} does not exist")
        text = path.read_text(encoding="utf-8")
    paragraphs = tuple(" ".join(p.split()) for p in re.split(r"\n\s*\n", text) if p.strip())
    if len(paragraphs) < 2:
        raise DataError(
            f"{corpus} has {len(paragraphs)} paragraphs; at least 2, separated by an empty line, are needed"
        )
    half = len(paragraphs) // 2
    return paragraphs[:half], paragraphs[half:]
