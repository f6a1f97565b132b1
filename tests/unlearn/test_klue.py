"""KLUE as a recipe: what stays bit-identical, what is drawn, when it stops."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from functools import cache
from pathlib import Path

import pytest
import torch

from interp_unlearn._core import ConfigError, DataError, NothingToForgetError, read_tensors, write_tensors
from interp_unlearn.hooked import score_answers
from interp_unlearn.unlearn import Recipe, Unlearner, unlearn
from interp_unlearn.unlearn._protocols import Context, Item, Pools
from interp_unlearn.unlearn.samplers.unforgotten import Unforgotten, UnforgottenOptions, answered, enough_forgotten

from .conftest import ANSWERS, make_model, make_task, without_options

DOWN = {"modules": ["mlp_out"]}
KLUE = {"name": "klue", "ratio": 0.1, "alpha": 1.0}
N_TARGETS = 4


def with_options(task):
    """The same task with wrong answers to choose from."""

    def fill(questions):
        wrong = lambda p: tuple(a for a in ANSWERS if a != p.answer)  # noqa: E731
        return dataclasses.replace(
            questions, prompts=tuple(dataclasses.replace(p, options=wrong(p)) for p in questions.prompts)
        )

    return dataclasses.replace(task, forget_train=fill(task.forget_train), retain_train=fill(task.retain_train))


TASK = with_options(make_task(N_TARGETS))


@cache
def learned_weights():
    """The tiny model after it has learned its task."""
    model = make_model()
    prompts = [*TASK.forget_train.prompts, *TASK.retain_train.prompts]
    texts = model.batch([p.full for p in prompts])
    optimizer = torch.optim.Adam(model.module.parameters(), lr=1e-2)
    for _ in range(60):
        logits = model(texts)[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits[texts.attended[:, 1:]], texts.tokens[:, 1:][texts.attended[:, 1:]]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {k: v.detach().clone() for k, v in model.module.state_dict().items()}


def knowing():
    """A fresh copy of the model that knows its task."""
    model = make_model()
    model.module.load_state_dict(learned_weights())
    return model


def recipe(*transforms, **fields):
    defaults = {"objective": "ga", "trainable": DOWN, "steps": 6, "lr": 1e-2, "batch_size": 3}
    return Recipe.from_dict({**defaults, "transforms": list(transforms), **fields})


def test_the_model_knows_its_task():
    prompts = TASK.forget_train.prompts
    assert len(prompts) == 2 * N_TARGETS
    assert score_answers(knowing(), [p.text for p in prompts], [p.answer for p in prompts]).exact.all()
    assert all(answered(knowing(), prompts, UnforgottenOptions()))


@pytest.mark.parametrize("weights", ["down", "up", "full"])
def test_only_chosen_entries_move_under_momentum_and_decay(weights):
    model = knowing()
    original = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    trained = recipe(
        {**KLUE, "weights": weights}, objective="grad_diff", trainable={"modules": ["mlp"]}, weight_decay=0.1, steps=8
    )
    run = unlearn(model, TASK, trained)
    (klue,) = run.transforms
    assert len(klue.neurons) == round(0.1 * 3 * 40)
    opened = 0
    for name, parameter in model.module.named_parameters():
        mask = klue.masks.get(name, torch.zeros_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter[~mask], original[name][~mask]), name
        assert (parameter[mask] != original[name][mask]).float().mean() > 0.9 if mask.any() else True
        opened += int(mask.sum())
    assert opened == len(klue.neurons) * 24 * {"down": 1, "up": 2, "full": 3}[weights]


def test_all_neurons_are_plain_gradient_ascent_bit_for_bit():
    one = unlearn(knowing(), TASK, recipe({**KLUE, "ratio": 1.0})).changed()
    other = unlearn(knowing(), TASK, recipe()).changed()
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_the_control_trains_as_many_other_neurons_in_the_same_layers():
    klue = unlearn(knowing(), TASK, recipe(KLUE)).transforms[0]
    control = unlearn(knowing(), TASK, recipe({**KLUE, "control": "random"})).transforms[0]
    assert control.chosen == klue.chosen == klue.neurons
    assert {k: len(v) for k, v in control.neurons.by_layer.items()} == {
        k: len(v) for k, v in klue.neurons.by_layer.items()
    }
    assert not any(set(control.neurons.by_layer[k]) & set(klue.neurons.by_layer[k]) for k in klue.neurons.by_layer)
    assert sum(int(m.sum()) for m in control.masks.values()) == sum(int(m.sum()) for m in klue.masks.values())


def test_the_chosen_neurons_and_their_scores_are_saved():
    run = Unlearner(knowing(), TASK, recipe(KLUE))
    chosen, score, superficial = run.tables()
    assert chosen.values.sum() == len(run.transforms[0].neurons)
    assert (score.name, superficial.name) == ("neurons.klue", "neurons.superficial")
    assert score.values[chosen.values == 1].min() >= score.values[chosen.values == 0].max()


def test_only_blocks_whose_weights_are_trained_are_candidates():
    run = Unlearner(knowing(), TASK, recipe({**KLUE, "ratio": 0.5}, trainable={**DOWN, "layers": [1, 2]}))
    assert set(run.transforms[0].neurons.by_layer) <= {1, 2}
    assert len(run.transforms[0].neurons) == 40


def test_choosing_anew_frees_the_old_neurons_and_resets_the_moments():
    model = knowing()
    unlearner = Unlearner(model, TASK, recipe({**KLUE, "relocalise": 3}, steps=8))
    klue = unlearner.transforms[0]
    first = {n: m.clone() for n, m in klue.masks.items()}
    for _ in range(3):
        unlearner.step()
    resting = {n: p.detach().clone() for n, p in unlearner._set.trained.items()}
    unlearner.step()
    assert all(int(s["step"]) == 1 for s in unlearner._optimizer.state.values())
    assert any(not torch.equal(first[n], klue.masks[n]) for n in first)
    unlearner.step()
    for name, parameter in unlearner._set.trained.items():
        assert torch.equal(parameter[~klue.masks[name]], resting[name][~klue.masks[name]])


RUNS = {
    "once": recipe(KLUE, sampler="unforgotten", steps=9, weight_decay=0.01),
    "relocalise": recipe({**KLUE, "relocalise": 2}, sampler="unforgotten", sampler_options={"every": 1}, steps=9),
}


@pytest.mark.parametrize("name", RUNS)
def test_killed_and_resumed_is_bitwise_uninterrupted(name, tmp_path):
    whole = unlearn(knowing(), TASK, RUNS[name])
    first = Unlearner(knowing(), TASK, RUNS[name])
    for _ in range(3):
        first.step()
    tensors, facts = first.state()
    write_tensors(tmp_path / "state.safetensors", tensors)
    second = Unlearner(knowing(), TASK, RUNS[name])
    second.load_state(read_tensors(tmp_path / "state.safetensors"), json.loads(json.dumps(facts)))
    while not second.done:
        second.step()
    assert second.step_index == whole.step_index > 3
    assert second.transforms[0].neurons.by_layer == whole.transforms[0].neurons.by_layer
    expected = whole.changed()
    assert all(torch.equal(value, expected[key]) for key, value in second.changed().items())


def test_the_run_stops_at_a_third():
    run = Unlearner(knowing(), TASK, recipe(sampler="unforgotten", steps=200, lr=3e-3))
    records = []
    while not run.done:
        records.append(run.step())
    assert run.stopped_early
    assert run.step_index < 200
    left = answered(run.model, TASK.forget_train.prompts, UnforgottenOptions())
    assert 3 * sum(left) <= len(left)
    assert records[-1]["answered"] == sum(left) / len(left)
    assert all(3 * len(left) * r["answered"] > len(left) for r in records[:-1])
    with pytest.raises(ConfigError, match="the run is done"):
        run.step()


def test_a_forgotten_sample_is_not_drawn_again_until_it_is_known():
    run = Unlearner(knowing(), TASK, recipe(sampler="unforgotten", steps=200, lr=3e-3))
    seen_smaller = False
    while not run.done:
        known = answered(run.model, TASK.forget_train.prompts, UnforgottenOptions())
        if run.sampler.start == run.step_index:
            assert run.sampler.alive.tolist() == known
        draw = run.sampler.draw(run.step_index)
        assert draw.forget
        assert all(run.sampler.alive[i] for i in draw.forget)
        seen_smaller = seen_smaller or not run.sampler.alive.all()
        run.step()
    assert seen_smaller


def test_an_epoch_draws_every_unforgotten_item_once():
    sampler = Unforgotten(UnforgottenOptions())
    pools = Pools(tuple(Item("e", "r", question=p) for p in TASK.forget_train.prompts))
    sampler.prepare(pools, batch_size=3, retain_batch_size=2, seed=0)
    sampler.watch(Context(knowing(), TASK, recipe(), {}, {}, pools, 0))
    sampler.alive[2] = False
    draws = [sampler.draw(step).forget for step in range(3)]
    assert [len(d) for d in draws] == [3, 3, 1]
    assert sorted(i for d in draws for i in d) == [0, 1, 3, 4, 5, 6, 7]
    assert sampler.draw(1) == sampler.draw(1)


def test_eleven_of_thirty_three_stops_and_twelve_does_not():
    assert enough_forgotten(11, 33, (1, 3))
    assert not enough_forgotten(12, 33, (1, 3))
    assert enough_forgotten(0, 5, (0, 1))
    assert not enough_forgotten(1, 5, (0, 1))


def test_ways_of_asking():
    prompts, model = TASK.forget_train.prompts, knowing()
    scores = score_answers(model, [p.text for p in prompts], [p.answer for p in prompts])
    assert answered(model, prompts, UnforgottenOptions(known="exact")) == scores.exact.tolist()
    threshold = float(scores.probability.median())
    told = answered(model, prompts, UnforgottenOptions(known="probability", threshold=threshold))
    assert told == (scores.probability > threshold).tolist()
    swapped = [dataclasses.replace(p, answer=p.options[0], options=(p.answer,)) for p in prompts]
    assert not any(answered(model, swapped, UnforgottenOptions()))
    also = [
        dataclasses.replace(q, also=(p.answer,), options=p.options[1:]) for p, q in zip(prompts, swapped, strict=True)
    ]
    assert all(answered(model, also, UnforgottenOptions()))


def test_what_cannot_work_is_refused(make):
    with pytest.raises(NothingToForgetError, match="choose a target that it knows"):
        Unlearner(make_model(), TASK, recipe(sampler="unforgotten", sampler_options={"known": "exact"}))
    with pytest.raises(ConfigError, match="has no wrong answers"):
        Unlearner(knowing(), without_options(make_task()), recipe(sampler="unforgotten"))
    with pytest.raises(ConfigError, match="are not questions"):
        guided = recipe(
            objective="sae_guided", sampler="unforgotten", trainable={"layers": [1, 1], "modules": ["mlp_out"]}
        )
        Unlearner(knowing(), TASK, guided, make.sae())
    with pytest.raises(ConfigError, match="LoRA trains factors"):
        Unlearner(knowing(), TASK, recipe(KLUE, trainable={**DOWN, "lora_rank": 2}))
    with pytest.raises(ConfigError, match="trains none of them"):
        Unlearner(knowing(), TASK, recipe(KLUE, trainable={"modules": ["attn"]}))
    with pytest.raises(DataError, match="no mismatched question"):
        empty = dataclasses.replace(TASK, retain_train=dataclasses.replace(TASK.retain_train, prompts=()))
        Unlearner(knowing(), empty, recipe(KLUE))
    for wrong in (
        {"ratio": 0.0},
        {"ratio": 1.5},
        {"ratio": math.nan},
        {"relocalise": -1},
        {"alpha": -1.0},
        {"steps": 0},
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            recipe({"name": "klue", **wrong})
    for wrong in ({"stop_at": [3, 3]}, {"options": 0}, {"threshold": 1.0}, {"every": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            recipe(sampler="unforgotten", sampler_options=wrong)


def test_zero_and_nan_gradients_are_refused():
    model = knowing()
    with torch.no_grad():
        for block in model.module.model.layers:
            block.mlp.up_proj.weight.zero_()
    with pytest.warns(UserWarning, match="exactly zero"), pytest.raises(DataError, match="exactly zero"):
        Unlearner(model, TASK, recipe(KLUE))
    with torch.no_grad():
        model.module.model.layers[0].mlp.up_proj.weight.fill_(math.nan)
    with pytest.raises(DataError, match="NaN"):
        Unlearner(model, TASK, recipe(KLUE))


@pytest.mark.parametrize("objective", ["ga", "grad_diff", "npo"])
def test_klue_composes_with_every_answer_objective_and_survives_toml(objective):
    made = recipe(KLUE, {"name": "clip_by_module"}, objective=objective, sampler="unforgotten", steps=2)
    assert Recipe.from_dict(made.to_dict()) == made
    run = unlearn(knowing(), TASK, made)
    assert any(not torch.equal(v, run.originals[k]) for k, v in run.changed().items())


def test_the_example_of_the_docs_runs_the_control_beside_the_method():
    page = (Path(__file__).resolve().parents[2] / "docs" / "methods" / "klue.md").read_text(encoding="utf-8")
    data = tomllib.loads(page.split("```toml\n")[1].split("```")[0])
    recipes = [Recipe.from_dict({k: v for k, v in table.items() if k != "name"}) for table in data["recipe"]]
    controls = [dict(made.transforms)["klue"].control for made in recipes if made.transforms]
    assert controls == ["none", "random"]
    steps = [unlearn(knowing(), TASK, dataclasses.replace(made, steps=2)).step_index for made in recipes]
    assert steps == [2, 2, 2]
