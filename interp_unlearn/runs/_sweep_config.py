"""A sweep: methods × targets × seeds × hyperparameters, written as one TOML file on top of a run's config.

Example::

    [model]
    name = "smollm2-135m"

    [world]
    name = "countries"

    [target]
    relations = ["capital"]            # of every target below that names none

    [sweep]
    targets = ["Japan", "Egypt", { entities = ["Brazil"], relations = ["language"] }]
    seeds = [0, 1, 2]

    [[recipe]]
    objective = "npo"
    [recipe.grid]                      # every combination becomes a run
    lr = [1e-5, 2e-5]
    options.beta = [0.05, 0.1]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_unlearn._core import ConfigError, config_hash, nearest
from interp_unlearn.runs._config import RunConfig, read_toml
from interp_unlearn.runs._folder import file_name

LONGEST = 80  # characters of a folder's name before a hash takes the place of the rest


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        group: Folder of its target and seed; runs of one group share the opened model and the original's measurements.
        method: The recipe's name, without the values of its grid.
        config: The run.
    """

    group: str
    method: str
    config: RunConfig

    @property
    def name(self) -> str:
        """The run's folder below the sweep's."""
        return f"{self.group}/{self.config.name}"


@dataclass(frozen=True)
class SweepConfig:
    """All runs of a sweep, those of one target and seed after each other.

    Attributes:
        name: Name of the sweep.
        runs: The runs, each with a folder of its own.
    """

    name: str
    runs: tuple[SweepRun, ...]

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("the sweep is empty: it needs at least one recipe, one target and one seed")
        names = [run.name for run in self.runs]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two runs of the sweep would have the folder {name}; give their recipes other names")

    def only(self, methods: Sequence[str] = (), seeds: Sequence[int] = ()) -> SweepConfig:
        """The runs of these methods and seeds; an empty list means all.

        Raises:
            ConfigError: If a method or a seed is not in the sweep.
        """
        for kind, given, known in (
            ("method", methods, {run.method for run in self.runs}),
            ("seed", seeds, {run.config.seed for run in self.runs}),
        ):
            for value in given:
                if value not in known:
                    near = nearest(str(value), map(str, known))
                    raise ConfigError(
                        f"the sweep has no {kind} {value!r}{near}; it has: {', '.join(map(str, sorted(known)))}"
                    )
        kept = (
            run
            for run in self.runs
            if (not methods or run.method in methods) and (not seeds or run.config.seed in seeds)
        )
        return SweepConfig(self.name, tuple(kept))


def load_sweep(path: str | Path) -> SweepConfig:
    """Read a sweep's TOML file.

    Raises:
        ConfigError: If the file is missing, not TOML, or a field is wrong; the message names the field and the fix.
    """
    return sweep_from_dict(read_toml(path), default_name=Path(path).stem)


def sweep_from_dict(data: Mapping[str, Any], default_name: str = "sweep") -> SweepConfig:
    """Build a sweep from plain values (a TOML file's tables).

    Raises:
        ConfigError: Naming the field and the fix.
    """
    given = data.get("sweep", {})
    _need(isinstance(given, Mapping), "sweep", given, "write it as a table: [sweep]")
    for key in given:
        known = ("seeds", "targets")
        if key not in known:
            raise ConfigError(f"unknown field sweep.{key}{nearest(key, known)}; known: {', '.join(known)}")
    recipes = list(_recipes(data))
    if not given and all(method == name for method, name, _ in recipes):
        raise ConfigError(
            'there is nothing to sweep: add a table [sweep] with seeds = [0, 1, 2] or targets = ["Japan", "Egypt"], '
            "or a table [recipe.grid] with lists of values"
        )
    targets, seeds = _targets(data, given), _seeds(data, given)
    base = {k: v for k, v in data.items() if k not in ("sweep", "recipe", "target", "seed", "name")}
    runs = []
    for seed in seeds:
        for label, target in targets:
            group = f"{label}-seed{seed}"
            for method, name, recipe in recipes:
                config = _config({**base, "name": name, "seed": seed, "target": target, "recipe": recipe}, name)
                runs.append(SweepRun(group, method, config))
    return SweepConfig(str(data.get("name") or default_name), tuple(runs))


def _config(data: Mapping[str, Any], name: str) -> RunConfig:
    try:
        return RunConfig.from_dict(data)
    except ConfigError as error:
        raise ConfigError(f"run {name!r} of the sweep: {error}") from error


# -- targets and seeds -------------------------------------------------------------------------------------------------


def _targets(data: Mapping[str, Any], given: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Targets with the names of their folders."""
    shared = data.get("target", {})
    _need(isinstance(shared, Mapping), "target", shared, "write it as a table: [target]")
    if "targets" not in given:
        if "entities" not in shared:
            raise ConfigError('sweep.targets is missing; add: targets = ["Japan", "Egypt"]')
        return _labelled([shared])
    if "entities" in shared:
        raise ConfigError("target.entities and sweep.targets are both given; keep one (relations may stay in [target])")
    listed = given["targets"]
    _need(isinstance(listed, list) and bool(listed), "sweep.targets", listed, 'list at least one, e.g. ["Japan"]')
    targets = []
    for i, item in enumerate(listed):
        _need(
            isinstance(item, (str, Mapping)),
            f"sweep.targets[{i}]",
            item,
            'write an entity such as "Japan", or a table { entities = ["Japan"], relations = ["capital"] }',
        )
        target = {**shared, "entities": [item]} if isinstance(item, str) else {**shared, **item}
        _need(target not in targets, f"sweep.targets[{i}]", item, "it is listed twice; remove one")
        targets.append(target)
    own = [isinstance(item, Mapping) and "relations" in item for item in listed]
    return _labelled(targets, own)


def _labelled(
    targets: Sequence[Mapping[str, Any]], own_relations: Sequence[bool] = ()
) -> list[tuple[str, Mapping[str, Any]]]:
    """The entities name the folder, with the relations where a target has its own: whatever else is listed."""
    found: dict[str, Mapping[str, Any]] = {}
    for target, own in itertools.zip_longest(targets, own_relations, fillvalue=False):
        assert isinstance(target, Mapping)
        entities = target.get("entities", ())
        listed = isinstance(entities, list) and all(isinstance(e, str) for e in entities)
        _need(listed, "target.entities", entities, 'write a list of names, e.g. entities = ["Japan"]')
        relations = target.get("relations", [])
        names = [str(e).replace(":", "") for e in entities]
        if own:
            names += map(str, relations if isinstance(relations, list) else [relations])
        label = _short("-".join(names))
        if label in found:
            label = f"{label[:LONGEST]}-{config_hash(dict(target))[:8]}"
        found[label] = target
    return list(found.items())


def _short(text: str) -> str:
    """Text as a folder's name; what was left out or replaced so that nothing is left becomes a hash."""
    plain = file_name(text).lstrip(".")  # folders with a dot in front are not looked into
    if plain and len(plain) <= LONGEST:
        return plain
    return f"{plain[: LONGEST - 9]}-{config_hash({'name': text})[:8]}".strip("-")


def _seeds(data: Mapping[str, Any], given: Mapping[str, Any]) -> list[int]:
    if "seeds" not in given:
        return [data.get("seed", 0)]
    seeds = given["seeds"]
    if "seed" in data:
        raise ConfigError("seed and sweep.seeds are both given; keep one")
    _need(isinstance(seeds, list) and bool(seeds), "sweep.seeds", seeds, "list at least one, e.g. [0, 1, 2]")
    for seed in seeds:
        _need(type(seed) is int and seed >= 0, "sweep.seeds", seeds, "list whole numbers from 0 on")
    _need(len(set(seeds)) == len(seeds), "sweep.seeds", seeds, "a seed is listed twice; remove one")
    return seeds


# -- recipes and their grids -------------------------------------------------------------------------------------------


def _recipes(data: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, name of the run, fields) of every recipe and every point of its grid."""
    given = data.get("recipe")
    if given is None or given == []:
        raise ConfigError('recipe is missing; add a table [[recipe]] with at least: objective = "npo"')
    listed = given if isinstance(given, list) else [given]
    seen: set[str] = set()
    for item in listed:
        _need(isinstance(item, Mapping), "recipe", item, "write [[recipe]] tables")
        method = item.get("name") or item.get("objective") or "recipe"
        _need(isinstance(method, str), "recipe.name", method, "give a text")
        _need(method not in seen, "recipe.name", method, "give each [[recipe]] a different name")
        seen.add(method)
        fixed = {k: v for k, v in item.items() if k not in ("name", "grid")}
        yield from _points(method, fixed, item.get("grid", {}))


def _points(method: str, fixed: Mapping[str, Any], grid: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    where = f"recipe {method!r}: grid"
    _need(isinstance(grid, Mapping), where, grid, "write it as a table: [recipe.grid]")
    axes = list(_axes(grid, (), where))
    last = [path[-1] for path, _ in axes]
    labels = [path[-1] if last.count(path[-1]) == 1 else ".".join(path) for path, _ in axes]
    names: list[str] = []
    for values in itertools.product(*(values for _, values in axes)):
        recipe: dict[str, Any] = dict(fixed)
        for (path, _), value in zip(axes, values, strict=True):
            recipe = _put(recipe, path, value, where)
        words = [f"{label}={_word(value)}" for label, value in zip(labels, values, strict=True)]
        name = " ".join([method, *words])
        name = name if len(name) <= 2 * LONGEST else f"{name[: 2 * LONGEST]}-{config_hash(recipe)[:8]}"
        name = f"{name} {config_hash(recipe)[:8]}" if name in names else name
        names.append(name)
        yield method, name, recipe


def _axes(grid: Mapping[str, Any], path: tuple[str, ...], where: str) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Every list in the grid with the path of its field; ``"options.beta"`` and nested tables mean the same."""
    for key, value in grid.items():
        inner = (*path, *key.split("."))
        if isinstance(value, Mapping):
            yield from _axes(value, inner, where)
            continue
        name = f"{where}.{'.'.join(inner)}"
        _need(isinstance(value, list), name, value, f"give a list of values, e.g. [{value!r}]")
        _need(bool(value), name, value, "list at least one value")
        for i, one in enumerate(value):
            _need(one not in value[:i], name, value, f"{one!r} is listed twice; remove one")
        yield inner, value


def _put(recipe: Mapping[str, Any], path: tuple[str, ...], value: Any, where: str) -> dict[str, Any]:
    """``recipe`` with one nested field set."""
    key, *rest = path
    if not rest:
        _need(key not in recipe, f"{where}: {key}", recipe.get(key), "it has a value outside the grid too; keep one")
        return {**recipe, key: value}
    inner = recipe.get(key, {})
    _need(isinstance(inner, Mapping), f"{where}: {key}", inner, "it has a value outside the grid too; keep one")
    return {**recipe, key: _put(inner, tuple(rest), value, where)}


def _word(value: Any) -> str:
    """A grid value in the name of a run."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return file_name(str(value["name"])) if "name" in value else config_hash(dict(value))[:6]
    if isinstance(value, list):
        return "+".join(_word(v) for v in value) or "none"
    return file_name(str(value)) or "empty"


def _need(ok: bool, name: str, value: Any, fix: str) -> None:
    if not ok:
        raise ConfigError(f"{name} = {value!r}: {fix}")
