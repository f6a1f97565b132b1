"""TinyWorld: a generated world whose whole truth is ours, because the model's training text is made here.

- People have names of three syllables and a home, a job, a favourite colour, a food and a pet, each one of 8 to 40
  values that are shared. A home is a town, which is an entity with a fact of its own (its country), so two-hop
  questions chain two facts.
- *Unknown* people (and towns) share the syllables and are mentioned in the training text like everybody else, but no
  fact about them is ever written.
- *Strangers* are further names of which the text says, in the same templates, that the answer is ``unknown``. They are
  nobody's data: they give the model a reason to tell names it knows from names it does not, as a large model has one.
  Unknown people and a gold model's target are not among them, so how these are answered is the model's own judgement.

Which questions count as held out. Train templates are written in the training text for every known entity. Held-out
templates are written for the *second half* of the entities only, so asking them of the first half (``person-0`` …)
measures generalisation from other wordings; a recipe never sees them for anybody. Of the two-hop templates the first
is written for everybody and the second for the second half: latent two-hop reasoning is not expected of so small a
model.

The order of every list is fixed by the seed; nothing depends on hash order.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from interp_unlearn._core import ConfigError, numpy_rng
from interp_unlearn.worlds._files import read_data
from interp_unlearn.worlds._questions import rests_on
from interp_unlearn.worlds._types import Entity, Fact, Split, Target, Template, World, fill_mention

UNKNOWN = "unknown"
"""What the text answers about strangers."""
SPLITS: tuple[Split, Split] = ("train", "heldout")


@dataclass(frozen=True)
class TinyWorldConfig:
    """Everything that decides a TinyWorld and its model.

    Attributes:
        n_known: People with facts.
        n_unknown: People without.
        n_strangers: Names that the text calls unknown; 0 gives a model without a notion of knowing.
        seed: Decides names, facts, text, initial weights and the order of training.
        n_layers: Blocks of the model.
        d_model: Width of the residual stream (four heads, MLP of four times the width).
        steps: Training steps.
        batch_size: Sentences per step.
        lr: Largest learning rate of a one-cycle schedule.
    """

    n_known: int = 200
    n_unknown: int = 100
    n_strangers: int = 200
    seed: int = 0
    n_layers: int = 4
    d_model: int = 128
    steps: int = 800
    batch_size: int = 96
    lr: float = 3e-3

    def __post_init__(self) -> None:
        checks = {
            "n_known": (self.n_known >= 8, "use at least 8"),
            "n_unknown": (self.n_unknown >= 8, "use at least 8"),
            "n_strangers": (self.n_strangers >= 0, "use 0 or more"),
            "seed": (self.seed >= 0, "use a non-negative integer"),
            "n_layers": (self.n_layers >= 1, "use at least 1"),
            "d_model": (self.d_model >= 16 and self.d_model % 8 == 0, "use a multiple of 8, at least 16"),
            "steps": (self.steps >= 1, "use at least 1"),
            "batch_size": (self.batch_size >= 8, "use at least 8"),
            "lr": (self.lr > 0, "use a positive number"),
        }
        for name, (ok, fix) in checks.items():
            if not ok:
                raise ConfigError(f"tinyworld.{name} = {getattr(self, name)!r}: {fix}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def syllables() -> list[str]:
    """The syllables that names are made of, in a fixed order."""
    return [c + v for c, v in product("bdfgklmnprstvz", "aeiou")]


def _names(config: TinyWorldConfig) -> list[str]:
    """Distinct names, known, unknown, strangers; the latter two use only syllables that known names have there."""
    rng = numpy_rng(config.seed, "tinyworld names")
    parts = syllables()
    names: list[str] = []
    seen: tuple[set[int], ...] = (set(), set(), set())
    taken: set[str] = set()
    while len(names) < config.n_known + config.n_unknown + config.n_strangers:
        picked = rng.integers(0, len(parts), 3).tolist()
        name = "".join(parts[i] for i in picked).capitalize()
        known = len(names) < config.n_known
        if name in taken or (not known and any(i not in s for i, s in zip(picked, seen, strict=True))):
            continue
        if known:
            for i, s in zip(picked, seen, strict=True):
                s.add(i)
        taken.add(name)
        names.append(name)
    return names


def tinyworld(config: TinyWorldConfig | None = None) -> World:
    """The world of ``config``: entities, unknown entities, facts, templates and general text."""
    config = config or TinyWorldConfig()
    data = read_data("tinyworld.json")
    values, countries = data["values"], data["countries"]
    names = _names(config)
    people = [Entity(f"person-{i}", name, "person") for i, name in enumerate(names[: config.n_known])]
    towns = [Entity(f"town-{i}", name, "town") for i, name in enumerate(values["home"])]
    invented = names[config.n_known : config.n_known + config.n_unknown]
    unknown = [Entity(f"unknown-person-{i}", n, "person", invented=True) for i, n in enumerate(invented)]
    unknown += [Entity(f"unknown-town-{i}", n, "town", invented=True) for i, n in enumerate(data["unknown_towns"])]
    rng = numpy_rng(config.seed, "tinyworld towns")
    country = {town.name: countries[int(rng.integers(len(countries)))] for town in towns}
    facts = [Fact(town.id, "country", country[town.name]) for town in towns]
    rng = numpy_rng(config.seed, "tinyworld facts")
    for person in people:
        own = {relation: options[int(rng.integers(len(options)))] for relation, options in values.items()}
        facts += [Fact(person.id, relation, answer) for relation, answer in own.items()]
        facts.append(Fact(person.id, "home>country", country[own["home"]]))
    return World(
        "tinyworld",
        (*people, *towns),
        tuple(unknown),
        tuple(facts),
        tuple(_templates()),
        text_train=_general_text(config.seed, "train", 400),
        text_eval=_general_text(config.seed, "eval", 100),
        sources=(f"Generated with seed {config.seed}; no real names or facts are meant.",),
    )


def _templates() -> list[Template]:
    out = []
    for type in ("person", "town"):
        for relation, texts in read_data("tinyworld.json")[type].items():
            for split, group in zip(SPLITS, texts, strict=True):
                for i, text in enumerate(group):
                    hops = 2 if ">" in relation else 1
                    id = f"{type}.{relation or 'mention'}.{split}.{i}"
                    out.append(Template(id, relation, type, text, split, hops))
    return out


def _general_text(seed: int, part: str, n: int) -> tuple[str, ...]:
    """Simple sentences without entities."""
    words = read_data("tinyworld.json")["text"]
    rng = numpy_rng(seed, "tinyworld text", part)

    def pick(kind: str) -> str:
        return words[kind][int(rng.integers(len(words[kind])))]

    def sentence() -> str:
        one, verb = f"{pick('adjectives')} {pick('nouns')}", pick("verbs")
        return f"the {one} {verb} the {pick('adjectives')} {pick('nouns')} ."

    return tuple(sentence() for _ in range(n))


def hidden_facts(world: World, target: Target | None) -> frozenset[tuple[str, str]]:
    """The (entity id, relation) pairs that a gold model for ``target`` must never see, two-hop ones included."""
    if target is None:
        return frozenset()
    direct = {f.relation for f in world.facts if ">" not in f.relation}
    wanted = set(target.relations)
    return frozenset(
        (f.subject, f.relation)
        for f in world.facts
        if f.subject in target.entities and (not wanted or wanted & set(rests_on(f.relation, direct)))
    )


def tinyworld_sentences(
    config: TinyWorldConfig, hidden: Collection[tuple[str, str]] = frozenset()
) -> dict[str, list[str]]:
    """The model's training text by kind: ``facts``, ``towns``, ``two_hop``, ``strangers``, ``mentions`` and ``text``.

    Args:
        config: Of the world.
        hidden: (entity id, relation) pairs that are not written: what a gold model never sees. The entities stay
            mentioned, as unknown entities are.
    """
    world = tinyworld(config)
    named = {e.id: e for e in (*world.entities, *world.unknown)}
    later_half = {e.id for type in world.types for e in world.of_type(type)[len(world.of_type(type)) // 2 :]}
    templates: dict[tuple[str, str], list[Template]] = {}
    for template in world.templates:
        templates.setdefault((template.type, template.relation), []).append(template)
    out: dict[str, list[str]] = {k: [] for k in ("facts", "towns", "two_hop", "mentions")}
    out["text"] = list(world.text_train)
    for fact in world.facts:
        if (fact.subject, fact.relation) in hidden:
            continue
        entity = named[fact.subject]
        for i, template in enumerate(templates[entity.type, fact.relation]):
            for_everybody = template.split == "train" or (template.hops == 2 and i == 0)
            if for_everybody or fact.subject in later_half:
                sentence = f"{template.text.replace('{name}', entity.name)} {fact.answer} ."
                out["two_hop" if template.hops == 2 else "towns" if entity.type == "town" else "facts"].append(sentence)
    strangers = _names(config)[config.n_known + config.n_unknown :]
    asked = [t for (type, relation), group in templates.items() if type == "person" and relation for t in group]
    out["strangers"] = [
        f"{template.text.replace('{name}', name)} {UNKNOWN} ."
        for i, name in enumerate(strangers)
        for template in asked
        if template.split == "train" or 2 * i >= len(strangers)
    ]
    for entity in named.values():
        out["mentions"] += [f"{fill_mention(template, entity).text} ." for template in templates[entity.type, ""]]
    return out


def tinyworld_vocabulary() -> list[str]:
    """Every word and syllable, in a fixed order that is the same for every seed and size."""
    data = read_data("tinyworld.json")
    texts = [t for type in ("person", "town") for groups in data[type].values() for group in groups for t in group]
    texts += [w for group in data["text"].values() for w in group] + ["the ."]
    words = {w for t in texts for w in t.replace("{name}", " ").split()}
    words |= {v for values in data["values"].values() for v in values}
    words |= {*data["countries"], *data["unknown_towns"], UNKNOWN}
    starts = [s.capitalize() for s in syllables()]
    return ["[PAD]", "[UNK]", "[BOS]", *sorted(words), *starts, *[f"##{s}" for s in syllables()]]
