"""Opening what a run on a language model needs: model, world, task and SAEs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp_unlearn._core import __version__, cache_dir, config_hash, numpy_rng, read_json, write_json
from interp_unlearn.hooked import HookedModel
from interp_unlearn.latents import load_sae
from interp_unlearn.runs._config import ModelSpec, RunConfig
from interp_unlearn.runs._fingerprint import fingerprint
from interp_unlearn.runs._local_sae import local_sae
from interp_unlearn.runs._workbench import Progress, Workbench, silent
from interp_unlearn.unlearn._fields import build
from interp_unlearn.worlds import (
    Knowledge,
    Prompt,
    Task,
    TinyWorldConfig,
    World,
    known,
    load_world,
    make_task,
    own_questions,
    questions_task,
    rank_answers,
    with_neighbours,
)
from interp_unlearn.zoo import open_model, tinyworld_model


def open_language(config: RunConfig, progress: Progress = silent, task: Task | None = None) -> Workbench:
    """Open what ``config`` names, and check that the model knows the target.

    Args:
        config: Of the run.
        progress: Told what is going on.
        task: Questions of an earlier run on the same target, instead of asking again what the model knows.

    Raises:
        NothingToForgetError: If it does not.
        ConfigError, DataError, ModelError: If something named does not exist or does not fit.
    """
    progress("opening the model", 0, 0)
    model = open_original(config, progress)
    progress("loading the world", 0, 0)
    world = load_world(
        config.world.name, data_dir=config.world.data_dir, tokenizer=model.tokenizer, **config.world.options
    )
    if task is None:
        progress("asking what the model knows", 0, 0)
        task = _own_task(config, model, world) if config.world.name == "questions" else _task(config, model, world)
    bench = Workbench(model, task, world)
    for role, name in (("main", config.latents.sae), ("second", config.latents.second)):
        if name == "train":
            progress(f"training a small SAE ({role})", 0, 0)
            bench.saes[role] = local_sae(model, world, role, config.seed)
        elif name:
            bench.saes[role] = load_sae(name)
            bench.saes[role].check_fits(model)
    return bench


def _task(config: RunConfig, model: HookedModel, world: World) -> Task:
    """The task of a world that has templates."""
    entities = [world.entity(name).id for name in config.target.entities]
    knowledge = _knowledge(config.model, model, world, config)
    task = make_task(
        world,
        entities,
        relations=config.target.relations,
        seed=config.seed,
        tokenizer=model.tokenizer,
        n_known=config.world.n_known,
        n_unknown=config.world.n_unknown,
        known_facts=knowledge.known_facts if config.evidence.require_known else None,
        known_ids=knowledge.known_entities(),
    )
    if config.world.neighbours:
        task = with_neighbours(world, task, seed=config.seed, known_facts=knowledge.known_facts)
    return task


def _own_task(config: RunConfig, model: HookedModel, world: World) -> Task:
    """The task of the user's own questions; those that the model answers in no wording are left out."""

    def known_prompts(prompts: Sequence[Prompt]) -> list[int]:
        return [i for i, exact in enumerate(rank_answers(model, prompts).exact) if exact]

    return questions_task(
        own_questions(config.world.options),
        world,
        config.target.entities,
        relations=config.target.relations,
        seed=config.seed,
        tokenizer=model.tokenizer,
        n_known=config.world.n_known,
        n_unknown=config.world.n_unknown,
        known=known_prompts if config.evidence.require_known else None,
    )


def tinyworld_config(config: RunConfig) -> TinyWorldConfig:
    """TinyWorld's settings in ``world.options``.

    Raises:
        ConfigError: If a field is unknown or of the wrong type.
    """
    return build(TinyWorldConfig, config.world.options, "world.options")


def open_original(config: RunConfig, progress: Progress = silent) -> HookedModel:
    """The original model that a config names."""
    if config.model.name == "tinyworld" and config.world.name == "tinyworld":
        return tinyworld_model(tinyworld_config(config), progress=progress)
    return open_model(config.model.name, adapter=config.model.adapter, delta=config.model.delta)


def _knowledge(spec: ModelSpec, model: HookedModel, world: World, config: RunConfig) -> Knowledge:
    """What the model knows of the target's relations, cached by model source and world."""
    types = {world.entity(name).type for name in config.target.entities}
    wanted = () if config.world.neighbours else config.target.relations
    if config.world.neighbours:  # neighbours are of any type
        types = set(world.types)
    relations = wanted or tuple(sorted({r for t in types for r in world.relations(t)}))
    targets = [world.entity(name).id for name in config.target.entities]
    candidates = _candidates(world, types, targets, 3 * config.world.n_known)
    key: dict[str, Any] = {
        "model": model.source or {"name": spec.name},
        "world": world.name,
        "facts": config_hash([f"{f.subject}|{f.relation}|{f.answer}" for f in world.facts]),
        "templates": config_hash([t.text for t in world.templates]),
        "relations": list(relations),
        "entities": candidates,
        "delta": spec.delta,
        "adapter": spec.adapter,
        "files": fingerprint(spec.name),
        "version": __version__,
    }
    file = cache_dir() / "knowledge" / f"{config_hash(key)}.json"
    if file.exists() and not spec.delta and not spec.adapter:
        return Knowledge.from_json(read_json(file))
    knowledge = known(model, world, relations=relations, entities=candidates)
    write_json(file, knowledge.to_json())
    return knowledge


def _candidates(world: World, types: set[str], targets: list[str], n: int) -> list[str]:
    """The targets and ``n`` other entities of their types, the same ones for every seed so that answers are cached."""
    others = sorted(e.id for e in world.entities if e.type in types and e.id not in targets)
    order = numpy_rng(0, "candidates for known entities").permutation(len(others))
    return sorted([*targets, *(others[i] for i in order[:n])])
