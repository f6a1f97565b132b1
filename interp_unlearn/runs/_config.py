"""Run configuration: one frozen dataclass per noun, read from TOML, with errors that name the field and the fix."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from interp_unlearn._core import ConfigError, __version__, config_hash, nearest
from interp_unlearn.probes import LEVELS
from interp_unlearn.runs._fingerprint import fingerprint
from interp_unlearn.unlearn import Recipe
from interp_unlearn.unlearn._fields import convert

S = TypeVar("S")
FORBIDDEN = '/\\:*?"<>|\0\n'
"""Characters that a folder's name must not hold, on any system."""


@dataclass(frozen=True)
class ModelSpec:
    """Which model: a zoo name, a path, or a hub id, optionally with an adapter folder or a state-dict delta.

    Attributes:
        name: The original model.
        adapter: Adapter folder that belongs to the original.
        delta: Delta that belongs to the original.
        edited: A checkpoint that another tool unlearned, see `open_edited`; such a run trains nothing.
        gold: A checkpoint that was trained without the target; where the world can make one, it is not needed.
    """

    name: str = "smollm2-135m"
    adapter: str | None = None
    delta: str | None = None
    edited: str | None = None
    gold: str | None = None

    def __post_init__(self) -> None:
        for key in ("adapter", "delta", "edited", "gold"):
            _not_blank(self, "model", key)
        _need(
            isinstance(self.name, str) and bool(self.name),
            "model.name",
            self.name,
            "give a zoo name, a path or a hub id",
        )
        _need(not (self.adapter and self.delta), "model.adapter", self.adapter, "give an adapter or a delta, not both")

    def fingerprints(self) -> dict[str, str]:
        """What tells whether a local checkpoint changed, by field (see `fingerprint`); others are left out."""
        found = {key: fingerprint(getattr(self, key)) for key in ("name", "adapter", "delta", "edited", "gold")}
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True)
class WorldSpec:
    """Which ground truth.

    Attributes:
        name: A world name, see ``interp-unlearn worlds``.
        data_dir: Folder with data files for worlds that need them.
        n_known: Known entities used as references and neighbours, half of them held out for evaluation.
        n_unknown: Unknown entities, split likewise.
        neighbours: Put direct and general neighbours of the target among the retained entities and label all three
            kinds, as MELU's samplers want (`worlds.with_neighbours`).
        options: Passed to `load_world`, e.g. ``seed``; for TinyWorld the fields of `TinyWorldConfig`, which
            decide its model too.
    """

    name: str = "countries"
    data_dir: str | None = None
    n_known: int = 40
    n_unknown: int = 40
    neighbours: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("n_known", "n_unknown"):
            value = getattr(self, key)
            _need(isinstance(value, int) and value >= 4, f"world.{key}", value, "give an integer of at least 4")
        _need(bool(self.name), "world.name", self.name, "give the name of a world")
        _not_blank(self, "world", "data_dir")
        _need(isinstance(self.neighbours, bool), "world.neighbours", self.neighbours, "give true or false")
        _need(isinstance(self.options, Mapping), "world.options", self.options, "write it as a table: [world.options]")
        object.__setattr__(self, "options", dict(self.options))


@dataclass(frozen=True)
class TargetSpec:
    """What to forget: entities by name or id, and the relations (none means the whole entity)."""

    entities: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _need(bool(self.entities), "target.entities", [], "name at least one entity to forget")


@dataclass(frozen=True)
class LatentsSpec:
    """Sparse autoencoders.

    Attributes:
        sae: A shipped name, a folder in SAELens format, ``"train"`` (a small one, trained and cached,
            for TinyWorld), or None.
        second: Another SAE that judges but is never trained against, or None.
    """

    sae: str | None = None
    second: str | None = None

    def __post_init__(self) -> None:
        for key in ("sae", "second"):
            _not_blank(self, "latents", key)


@dataclass(frozen=True)
class EvidenceSpec:
    """What to measure.

    Attributes:
        layer_stride: Capture every so many layers (the SAE's layer and the last one are always included).
        lens: Logit lens by layer.
        relearn: Run the relearning attack.
        gold: Measure the retrained model too, where the world can make one.
        require_known: Refuse a target that the model does not know.
        level: Which registered parts of the evidence are added: ``"quick"``, ``"standard"`` or ``"full"``; more can be
            added to a finished run (`add_evidence`).
        also: Names of further parts, whatever their level.
        skip: Names of parts of the level to leave out, such as views that a large sweep has no use for; they can be
            added to a finished run.
    """

    layer_stride: int = 3
    lens: bool = True
    relearn: bool = True
    gold: bool = True
    require_known: bool = True
    level: str = "standard"
    also: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "also", tuple(self.also))
        object.__setattr__(self, "skip", tuple(self.skip))
        both = sorted(set(self.also) & set(self.skip))
        _need(not both, "evidence.skip", both, "these are in evidence.also too; name them once")
        ok = isinstance(self.layer_stride, int) and self.layer_stride >= 1
        _need(ok, "evidence.layer_stride", self.layer_stride, "give an integer of at least 1")
        _need(self.level in LEVELS, "evidence.level", self.level, f"use one of {', '.join(LEVELS)}")


@dataclass(frozen=True)
class RunConfig:
    """One unlearning run.

    Attributes:
        name: Name of the run and of its folder.
        recipe: Fields of a `Recipe`; those not given take the tuned defaults of the objective for the opened
            model, and the whole recipe is then saved as ``recipe.json``. Empty where the model was edited elsewhere
            (``model.edited``).
        target: What to forget.
        seed: Decides splits, training and attacks.
        model: Which model.
        world: Which ground truth.
        latents: Which SAEs.
        evidence: What to measure.
    """

    name: str
    recipe: Mapping[str, Any]
    target: TargetSpec
    seed: int = 0
    model: ModelSpec = field(default_factory=ModelSpec)
    world: WorldSpec = field(default_factory=WorldSpec)
    latents: LatentsSpec = field(default_factory=LatentsSpec)
    evidence: EvidenceSpec = field(default_factory=EvidenceSpec)

    def __post_init__(self) -> None:
        bad = not self.name or self.name.startswith(".") or any(c in FORBIDDEN for c in self.name)
        _need(not bad, "name", self.name, "use a plain folder name without slashes")
        _need(type(self.seed) is int and self.seed >= 0, "seed", self.seed, "give a non-negative integer")
        object.__setattr__(self, "recipe", dict(self.recipe))
        if self.external:
            _need(not self.recipe, "recipe", self.recipe, "remove it: model.edited was unlearned elsewhere")
            return
        if "objective" not in self.recipe:
            raise ConfigError('recipe.objective is missing; name a method, e.g. objective = "npo"')
        Recipe.from_dict(self.recipe)  # refuses what can never be a recipe before a model is opened

    @property
    def external(self) -> bool:
        """Whether the edited model was made by another tool, so that nothing is trained here."""
        return self.model.edited is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads back."""
        parts = {k: dataclasses.asdict(getattr(self, k)) for k in ("target", "model", "world", "latents", "evidence")}
        return {"name": self.name, "seed": self.seed, "recipe": dict(self.recipe), **parts}

    @property
    def shared_key(self) -> str:
        """Hash of what the original and gold are measured with: runs that share it share these measurements.

        Left out are the name, the recipe or edited checkpoint, and which parts of the evidence are added.
        """
        data = {k: v for k, v in self.to_dict().items() if k not in ("name", "recipe")}
        unset = {"edited"} | ({"gold"} if self.model.gold is None else set())
        data["model"] = {k: v for k, v in data["model"].items() if k not in unset}
        data["evidence"] = {k: v for k, v in data["evidence"].items() if k not in ("level", "also", "skip")}
        files = {k: v for k, v in self.model.fingerprints().items() if k not in unset}
        return config_hash({**data, "files": files, "version": __version__})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunConfig:
        """Build from plain values (one table of a TOML file).

        Raises:
            ConfigError: Naming the field and the fix.
        """
        _known_keys(data, {f.name for f in dataclasses.fields(cls)}, "")
        model = _section(ModelSpec, data, "model")
        if "recipe" not in data and model.edited is None:
            raise ConfigError('recipe is missing; add a table [recipe] with at least: objective = "npo"')
        if "target" not in data:
            raise ConfigError('target is missing; add a table [target] with: entities = ["Japan"]')
        recipe = {k: v for k, v in _table(data, "recipe").items() if k != "name"}
        name = data.get("name") or str(recipe.get("objective", "run"))
        _need(isinstance(name, str), "name", name, "use a plain folder name without slashes")
        return cls(
            name=name,
            seed=data.get("seed", 0),
            recipe=recipe,
            target=_section(TargetSpec, data, "target"),
            model=model,
            world=_section(WorldSpec, data, "world"),
            latents=_section(LatentsSpec, data, "latents"),
            evidence=_section(EvidenceSpec, data, "evidence"),
        )


def load_configs(path: str | Path) -> tuple[RunConfig, ...]:
    """Read a TOML file with one ``[recipe]``, or several ``[[recipe]]`` to compare on the same target.

    With several recipes each run is named after its recipe's ``name``, or its objective.

    Raises:
        ConfigError: If the file is missing, not TOML, or a field is wrong.
    """
    return configs_from_dict(read_toml(path), default_name=Path(path).stem)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: If the file is missing or not TOML.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; give the path of a TOML config") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder; give the path of a TOML config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def configs_from_dict(data: Mapping[str, Any], default_name: str = "run") -> tuple[RunConfig, ...]:
    """One `RunConfig` per recipe in ``data``."""
    if "sweep" in data:
        raise ConfigError(
            "this config has a table [sweep], which describes many runs; use: interp-unlearn sweep CONFIG"
        )
    recipes = data.get("recipe")
    if not isinstance(recipes, list):
        name = recipes.get("name") if isinstance(recipes, Mapping) else None
        return (RunConfig.from_dict({"name": name or default_name, **data}),)
    _need(bool(recipes), "recipe", recipes, "list at least one [[recipe]]")
    configs = []
    for item in recipes:
        _need(isinstance(item, Mapping), "recipe", item, "write [[recipe]] tables")
        name = item.get("name") or item.get("objective") or "recipe"
        configs.append(RunConfig.from_dict({**data, "name": name, "recipe": item}))
    names = [c.name for c in configs]
    for name in names:
        _need(names.count(name) == 1, "recipe.name", name, "give each [[recipe]] a different name")
    return tuple(configs)


def _need(ok: bool, name: str, value: Any, fix: str) -> None:
    if not ok:
        raise ConfigError(f"{name} = {value!r}: {fix}")


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key, {})
    _need(isinstance(value, Mapping), key, value, f"write it as a table: [{key}]")
    return value


def _known_keys(data: Mapping[str, Any], known: set[str], prefix: str) -> None:
    for key in data:
        if key not in known:
            raise ConfigError(f"unknown field {prefix}{key}{nearest(key, known)}; known: {', '.join(sorted(known))}")


def _section(kind: type[S], data: Mapping[str, Any], key: str) -> S:
    table = _table(data, key)
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    _known_keys(table, set(names), f"{key}.")
    for name, value in table.items():
        if key == "target":
            listed = isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
            _need(listed, f"{key}.{name}", value, f'write a list, e.g. {name} = ["{value}"]')
    hints = get_type_hints(kind)
    return kind(**{name: convert(value, hints[name], f"{key}.{name}") for name, value in table.items()})


def _not_blank(spec: object, section: str, key: str) -> None:
    value = getattr(spec, key)
    _need(value is None or bool(value), f"{section}.{key}", value, "give a name or a path, or leave it out")
