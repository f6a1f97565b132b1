"""The calibration runs: which targets, which methods at which strength, and which edits made on purpose."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp_unlearn.runs import RunConfig, SweepRun, sweep_from_dict

HERE = Path(__file__).parent
WORLDS = (0, 1)
SIZES = {1: ((0, 1), (1, 2)), 5: ((2, 7), (7, 12)), 20: ((12, 32), (32, 52))}
"""First person and the one after the last of each target, by size; targets of one world share no person."""
BY_SIZE: Mapping[int, Mapping[str, int]] = {
    1: {"steps": 30, "batch_size": 8, "retain_batch_size": 24},
    5: {"steps": 50, "batch_size": 16, "retain_batch_size": 32},
    20: {"steps": 80, "batch_size": 48, "retain_batch_size": 48},
}
FIXED = ("sae_clamp", "dsg", "rmu", "sae_guided", "crisp")
"""Objectives that keep the steps and batches of their defaults."""
PER_TARGET = {"late": 2, "adapter": 1, "late adapter": 2, "half": 1, "run time": 1}
"""How many recipes of each kind a target gets, in turns."""
MADE_AS = {
    "late": "hidden",
    "adapter": "hidden",
    "late adapter": "hidden",
    "run time": "hidden",
    "muted": "hidden",
    "few templates": "hidden",
    "half": "kept",
    "gold": "forgotten",
    "noise": "broken",
}
"""What a trick is meant to make. A label never looks at it; the table of labels by trick says how often it worked."""
EDITS: tuple[dict[str, Any], ...] = (
    {"trick": "muted", "kind": "mute", "where": "heads and neurons", "layers": [2, 3], "retain": [0.1, 0.3]},
    {"trick": "muted", "kind": "mute", "where": "late heads", "layers": [2, 3], "retain": [0.1, 0.01]},
    {"trick": "few templates", "kind": "few", "objective": ["grad_diff", "npo", "idk"], "templates": [1, 2]},
    {"trick": "gold", "kind": "gold", "noise": [0.0]},
    {"trick": "gold", "kind": "gold", "noise": [0.02, 0.05]},
    {"trick": "noise", "kind": "noise", "scale": [0.4, 0.5, 0.6, 0.8]},
)
"""Edits that no recipe makes; a list means that targets take its values in turns."""


@dataclass(frozen=True)
class Planned:
    """One calibration run.

    Attributes:
        group: Folder of its target.
        name: Its own folder.
        method: What is left out together when the verdict is tested: the objective, or the kind of edit.
        trick: How it hides, or ``plain``.
        made_as: What it was meant to be, empty for plain methods.
        target: Target, the same for all runs on it.
        size: Entities in the forget set.
        world: Seed of the world.
        config: The run; an edit's lacks ``model.edited`` until its file exists.
        edit: How to make the edit, None for recipes.
    """

    group: str
    name: str
    method: str
    trick: str
    made_as: str
    target: str
    size: int
    world: int
    config: Mapping[str, Any]
    edit: Mapping[str, Any] | None = None

    @property
    def path(self) -> str:
        """Folder below the output folder."""
        return f"{self.group}/{self.name}"

    @property
    def facts(self) -> dict[str, Any]:
        """What `collect.py` needs to know of it."""
        keys = ("method", "trick", "made_as", "target", "size", "world")
        return {k: getattr(self, k) for k in keys}

    def run(self, edited: Path | None = None) -> SweepRun:
        """The run as the sweep machinery wants it."""
        data = dict(self.config)
        if edited is not None:
            data["model"] = {**data["model"], "edited": str(edited)}
        return SweepRun(self.group, self.method, RunConfig.from_dict(data))


def read_recipes(path: Path = HERE / "recipes.toml") -> dict[str, Any]:
    """The tables of the recipe file."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def plan(recipes: Mapping[str, Any] | None = None, *, worlds: Sequence[int] = WORLDS) -> list[Planned]:
    """Every calibration run, target by target, cheap and small targets first."""
    recipes = recipes or read_recipes()
    out: list[Planned] = []
    number = 0
    for size, spans in SIZES.items():
        for world in worlds:
            for first, last in spans:
                out += _of_target(recipes, world, size, range(first, last), number)
                number += 1
    return out


def _of_target(recipes: Mapping[str, Any], world: int, size: int, people: range, number: int) -> list[Planned]:
    target = f"world{world}-{size}x-person{people[0]}"
    base = {k: v for k, v in recipes.items() if k != "recipe"}
    base["world"] = {**base["world"], "options": {**base["world"].get("options", {}), "seed": world}}
    base |= {"seed": number, "target": {"entities": [f"person-{i}" for i in people]}}
    shared = Planned(target, "", "", "plain", "", target, size, world, {})
    return [*_recipes_of(shared, base, recipes["recipe"], number), *_edits_of(shared, base, number)]


def _recipes_of(
    shared: Planned, base: Mapping[str, Any], listed: Sequence[Mapping[str, Any]], number: int
) -> Iterator[Planned]:
    by_trick: dict[str, list[Mapping[str, Any]]] = {}
    for recipe in listed:
        by_trick.setdefault(_trick(recipe), []).append(recipe)
    for trick, recipes in by_trick.items():
        count = PER_TARGET.get(trick, len(recipes))
        start = number * count
        for k in range(count):
            recipe = recipes[(start + k) % len(recipes)]
            points = _points(base, recipe, shared.size)
            config = points[(number + listed.index(recipe)) % len(points)]
            yield replace(
                shared,
                name=str(config["name"]),
                method=str(recipe["objective"]),
                trick=trick,
                made_as=MADE_AS.get(trick, ""),
                config=config,
            )


def _trick(recipe: Mapping[str, Any]) -> str:
    _, _, trick = str(recipe.get("name", "")).partition("@")
    return trick or "plain"


def _points(base: Mapping[str, Any], recipe: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
    """Every strength of one recipe for a target of this size, as run configs."""
    filled = dict(recipe)
    if recipe["objective"] not in FIXED:
        given = {*recipe, *recipe.get("grid", {})}
        filled |= {k: v for k, v in BY_SIZE[size].items() if k not in given}
    data = {**base, "recipe": [filled], "sweep": {"seeds": [base["seed"]]}}
    data.pop("seed")
    return [run.config.to_dict() for run in sweep_from_dict(data).runs]


def _edits_of(shared: Planned, base: Mapping[str, Any], number: int) -> Iterator[Planned]:
    for edit in EDITS:
        chosen = {
            k: v[(number // 2 if k == "templates" else number) % len(v)] if isinstance(v, list) and k != "layers" else v
            for k, v in edit.items()
        }
        words = [str(v) for k, v in chosen.items() if k not in ("trick", "kind", "layers")]
        name = " ".join([chosen["kind"], *words])
        method = chosen["objective"] if chosen["kind"] == "few" else chosen["trick"]
        trick = chosen["trick"]
        yield replace(
            shared,
            name=name,
            method=method,
            trick=trick,
            made_as=MADE_AS[trick],
            config={**base, "name": name},
            edit={k: v for k, v in chosen.items() if k != "trick"},
        )
