"""Every transform × objective × sampler × trainable parameters composes from TOML, or is refused with a reason."""

import dataclasses
import tomllib
import warnings

import pytest
import torch

from interp_unlearn._core import ConfigError, DataError, NothingToForgetError, Registry, numpy_rng
from interp_unlearn.unlearn import OBJECTIVES, SAMPLERS, TRANSFORMS, Recipe, Unlearner
from interp_unlearn.worlds import Neighbour, Prompt, require_known

TRAINABLE = {
    "layer range": 'layers = [0, 1]\nmodules = ["mlp_out"]',
    "full": "",
    "lora": 'layers = [0, 1]\nmodules = ["mlp_out", "attn_out"]\nlora_rank = 2',
}
OPTIONS = {  # options that a part cannot do without
    "mask": 'parameters = ["*"]',
}
OBJECTIVE_OPTIONS = {"crisp": "options = {ratio = 0}"}  # no latent of a random dictionary stands out
TRAINED = sorted(name for name in OBJECTIVES if OBJECTIVES[name].trains and "language" in OBJECTIVES[name].modalities)
ON_TEXT = sorted(name for name in TRANSFORMS if "language" in TRANSFORMS[name].modalities)
BUILT_IN_TRANSFORMS = ["clip_by_module", "gu", "mask"]


def connected(task):
    """The task with one direct neighbour, a general entity, and labels for them."""
    known = [(e.id, e.name) for e in task.known_ref]
    direct = Prompt(f"what has {known[0][1]} now", "gold", known[0][0], "colour", "q9", (9, 9 + len(known[0][1])))
    general = Prompt("what is the home of Ilo", "grey", "town", "colour", "q9", (20, 23))
    prompts = (*task.retain_train.prompts, direct, general)
    near = (Neighbour(known[0][0], task.target_entities[0].id, "direct"), Neighbour("town", "", "general"))
    return dataclasses.replace(task, retain_train=dataclasses.replace(task.retain_train, prompts=prompts), near=near)


def toml(objective, sampler, transforms, trainable, extra=""):
    tables = "".join(f'\n[[transforms]]\nname = "{name}"\n{OPTIONS.get(name, "")}\n' for name in transforms)
    head = (
        f'objective = "{objective}"\nsampler = "{sampler}"\nsteps = 2\nlr = 1e-3\nbatch_size = 2\nretain_batch_size = 2'
    )
    extra = extra or OBJECTIVE_OPTIONS.get(objective, "")
    return f"{head}\n{extra}\n[trainable]\n{TRAINABLE[trainable]}\n{tables}"


def combinations():
    """Every pair of parts of different kinds comes at least once; the rest of each combination is drawn."""
    axes = {
        "objective": TRAINED,
        "sampler": sorted(SAMPLERS),
        "transform": [*((n,) for n in ON_TEXT), ("mask", "clip_by_module", "gu"), ("gu", "gu"), ()],
        "trainable": sorted(TRAINABLE),
    }
    rng = numpy_rng(0, "composition")
    names = list(axes)
    wanted = [
        (a, x, b, y)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        for x in range(len(axes[a]))
        for y in range(len(axes[b]))
    ]
    done: set[tuple[str, int, str, int]] = set()
    found = []
    for a, x, b, y in wanted:
        if (a, x, b, y) in done:
            continue
        best: dict[str, int] = {}
        for _ in range(20):
            choice = {n: int(rng.integers(len(axes[n]))) for n in names} | {a: x, b: y}
            if not best or _news(choice, names, done) > _news(best, names, done):
                best = choice
        done |= {(p, best[p], q, best[q]) for i, p in enumerate(names) for q in names[i + 1 :]}
        found.append(tuple(axes[n][best[n]] for n in names))
    return [c for c in found if possible(*c)]


def possible(objective, sampler, transforms, trainable):
    """Pairs that are refused, for reasons tested elsewhere."""
    if "klue" in transforms and trainable == "lora":
        return False  # neurons are rows and columns of weights, which LoRA does not train
    if "klue" in transforms and objective == "rmu":
        return False  # the neurons of an answer may all lie above the layer that RMU moves: then nothing moves
    if sampler == "unforgotten" and objective in ("crisp", "sae_guided"):
        return False  # these forget mentions and text, not questions
    return sampler not in ("balanced", "modular") or objective != "crisp"  # text has no entity with neighbours


def _news(choice, names, done):
    return sum((p, choice[p], q, choice[q]) not in done for i, p in enumerate(names) for q in names[i + 1 :])


@pytest.mark.parametrize(("objective", "sampler", "transforms", "trainable"), combinations(), ids=str)
def test_every_combination_composes_from_toml(objective, sampler, transforms, trainable, make):
    recipe = Recipe.from_dict(tomllib.loads(toml(objective, sampler, transforms, trainable)))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="nothing moved|transform 'gu' left nothing")
        unlearner = Unlearner(make.model(), connected(make.task()), recipe, make.sae())
        while not unlearner.done:
            record = unlearner.step()
            assert all(v == v for v in record.values())
    originals, changed = unlearner.originals, unlearner.changed()
    assert all(torch.isfinite(v).all() for v in changed.values())
    assert any(not torch.equal(v, originals[n]) for n, v in changed.items())


@pytest.mark.parametrize("mode", ["null", "cone"])
@pytest.mark.parametrize("objective", TRAINED)
def test_gu_wraps_every_objective_in_both_modes(objective, mode, make):
    text = toml(objective, "paired", [], "layer range") + f'\n[[transforms]]\nname = "gu"\nmode = "{mode}"\nrank = 2\n'
    unlearner = Unlearner(make.model(), connected(make.task()), Recipe.from_dict(tomllib.loads(text)), make.sae())
    unlearner.step()
    unlearner.step()
    assert len(unlearner.transforms[0].covectors) >= 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (toml("ga", "paired", [], "lora") + '[[transforms]]\nname = "mask"\nrows = [1]', "LoRA trains factors"),
        (toml("ga", "paired", [], "full") + '[[transforms]]\nname = "gu"\nsource = "objective"', "has no retain part"),
        (
            toml("grad_diff", "modular", [], "full").replace("batch_size = 2", "batch_size = 3", 1),
            "same number of pairs",
        ),
        (toml("grad_diff", "cyclic", [], "full", 'sampler_options = {neighbours = ["near"]}'), "use one of direct"),
        (toml("grad_diff", "modular", [], "full", 'sampler_options = {batches = "pure"}'), "use one of mixed, entity"),
        (
            toml("grad_diff", "paired", [], "full") + '[[transforms]]\nname = "gu"\nmode = "cone"\nsign_aware = true',
            "belongs to mode",
        ),
        (
            toml("grad_diff", "paired", [], "full") + '[[transforms]]\nname = "gu"\nmode = "cones"',
            "use one of null, cone",
        ),
    ],
)
def test_impossible_combinations_are_refused_with_the_reason(text, said, make):
    with pytest.raises((ConfigError, DataError), match=said):
        Unlearner(make.model(), connected(make.task()), Recipe.from_dict(tomllib.loads(text)))


@pytest.mark.parametrize("sampler", ["balanced", "modular"])
def test_samplers_that_lack_neighbours_are_refused(sampler, make):
    task = make.task()
    unlabelled = dataclasses.replace(task, known_ref=())  # nothing says whose neighbours these are
    with pytest.raises(DataError, match="with_neighbours"):
        Unlearner(make.model(), unlabelled, Recipe.from_dict({"objective": "grad_diff", "sampler": sampler}))


def test_known_reference_entities_are_indirect_neighbours_without_labels(make):
    unlearner = Unlearner(make.model(), make.task(2), Recipe("grad_diff", options={"text_windows": 1}))
    kinds = [(i.neighbour, i.target) for i in unlearner.pools.retain]
    assert kinds[-1] == ("general", "")
    assert {k for k, _ in kinds[:-1]} == {"indirect"}
    assert {t for _, t in kinds[:-1]} == {"e0", "e1"}


@pytest.mark.parametrize("registry", [OBJECTIVES, TRANSFORMS, SAMPLERS], ids=lambda r: r.kind)
def test_a_name_is_registered_once(registry: Registry):
    taken = next(iter(registry))
    with pytest.raises(ConfigError, match=f"{taken!r} is already registered"):
        registry.register(taken)(object())


def test_all_forgotten_is_nothing_to_forget(make):
    """A random model knows no answer, as a model that was unlearned already."""
    with pytest.raises(NothingToForgetError):
        require_known(make.model(), make.task())


@pytest.mark.parametrize("transform", BUILT_IN_TRANSFORMS)
def test_zero_gradients_are_said_aloud_under_every_transform(transform, make):
    recipe = Recipe.from_dict(
        {
            "objective": "rmu",
            "options": {"layer": 0, "alpha": 0.0},
            "trainable": {"layers": [2, 2]},
            "transforms": [{"name": transform}],
            "steps": 1,
        }
    )
    with pytest.warns(UserWarning, match="nothing moved"):
        Unlearner(make.model(), make.task(), recipe).step()


@pytest.mark.parametrize(("kind", "name"), [("objective", "d2dgn"), ("transform", "cupid")])
def test_a_part_for_other_models_is_refused(kind, name, make):
    recipe = Recipe.from_dict(
        {"objective": name} if kind == "objective" else {"objective": "ga", "transforms": [{"name": name}]}
    )
    with pytest.raises(ConfigError, match=rf"{kind} '{name}' works on graph.* \(language\); use one of .*\w"):
        Unlearner(make.model(), make.task(), recipe, make.sae())
