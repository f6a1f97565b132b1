import dataclasses
import json

import pytest
import torch

from interp_unlearn._core import (
    ConfigError,
    DataError,
    FileFormatError,
    TrainingDivergedError,
    read_tensors,
    write_tensors,
)
from interp_unlearn.unlearn import Recipe, Stop, Trainable, Transform, Unlearner, unlearn

LOW = Trainable(layers=(0, 1), modules=("mlp_out", "attn_out"))
TOP = Trainable(layers=(1, 1), modules=("mlp_out",))
COMMON = {"steps": 6, "lr": 1e-2, "batch_size": 2, "retain_batch_size": 3, "weight_decay": 0.01, "warmup": 2}

RECIPES = {
    "ga": Recipe("ga", **COMMON),
    "grad_diff": Recipe("grad_diff", options={"text_windows": 2}, trainable=LOW, **COMMON),
    "npo": Recipe("npo", trainable=Trainable(layers=(0, 2), modules=("mlp",), lora_rank=2), **COMMON),
    "npo sequential": Recipe("npo", sampler="sequential", schedule="linear", trainable=LOW, **COMMON),
    "rmu": Recipe("rmu", options={"layer": 1}, trainable=TOP, **COMMON),
    "sae_guided": Recipe("sae_guided", options={"beta": 1.0, "text_windows": 2}, trainable=TOP, **COMMON),
    "sae_guided sampled": Recipe(
        "sae_guided",
        options={"target": "sampled", "gradient": "straight_through", "positions": "name_and_after"},
        transforms=({"name": "mask", "columns": [0, 3, 4]}, {"name": "clip_by_module", "norm": 0.1}),
        trainable=TOP,
        stop=Stop("toward", below=0.0),
        **COMMON,
    ),
    "sae_guided mmd": Recipe("sae_guided", options={"target": "mmd", "basis": "residual"}, trainable=LOW, **COMMON),
    "flat": Recipe("flat", trainable=LOW, **COMMON),
    "dpo": Recipe("dpo", options={"retain_loss": "kl"}, trainable=LOW, **COMMON),
    "pdu": Recipe("pdu", options={"dual_warmup": 1, "dual_every": 2}, trainable=LOW, **COMMON),
    "task vector": Recipe("task_vector", trainable=LOW, **COMMON),
    "task vector lora": Recipe("task_vector", trainable=Trainable(modules=("mlp_out",), lora_rank=2), **COMMON),
    "sae_guided push": Recipe("sae_guided", options={"loss": "push"}, trainable=LOW, **COMMON),
}


@pytest.mark.parametrize("name", RECIPES)
def test_killed_and_resumed_is_bitwise_uninterrupted(name, make, tmp_path):
    recipe, task, sae = RECIPES[name], make.task(2), make.sae()
    whole = unlearn(make.model(), task, recipe, sae)

    first = Unlearner(make.model(), task, recipe, sae)
    records = [first.step() for _ in range(3)]
    tensors, facts = first.state()
    write_tensors(tmp_path / "state.safetensors", tensors)
    facts = json.loads(json.dumps(facts))
    first.step()  # work after the checkpoint is lost with the process
    del first

    second = Unlearner(make.model(), task, recipe, sae)
    second.load_state(read_tensors(tmp_path / "state.safetensors"), facts)
    assert second.step_index == 3
    while not second.done:
        records.append(second.step())
    assert second.step_index == whole.step_index == len(records)
    expected = whole.changed()
    assert set(second.changed()) == set(expected)
    for key, value in second.changed().items():
        assert torch.equal(value, expected[key]), key
    assert any(not torch.equal(v, whole.originals[k]) for k, v in expected.items())


def test_same_seed_same_weights_other_seed_other_weights(make):
    recipe = RECIPES["sae_guided sampled"]
    one, two = (unlearn(make.model(), make.task(2), recipe, make.sae()).changed() for _ in range(2))
    other = unlearn(make.model(), make.task(2), dataclasses.replace(recipe, seed=1), make.sae()).changed()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


def test_state_at_step_zero_and_at_the_end(make):
    recipe = RECIPES["npo sequential"]
    fresh = Unlearner(make.model(), make.task(), recipe)
    again = Unlearner(make.model(), make.task(), recipe)
    again.load_state(*fresh.state())
    assert again.step_index == 0
    done = unlearn(make.model(), make.task(), recipe)
    again.load_state(*done.state())
    assert again.done
    with pytest.raises(ConfigError, match="done after 6 steps"):
        again.step()


def test_a_foreign_or_cut_state_is_refused(make):
    unlearner = Unlearner(make.model(), make.task(), RECIPES["ga"])
    unlearner.step()
    tensors, facts = unlearner.state()
    with pytest.raises(FileFormatError, match="another recipe"):
        Unlearner(make.model(), make.task(), RECIPES["npo"]).load_state(tensors, facts)
    with pytest.raises(FileFormatError, match="another task"):
        Unlearner(make.model(), make.task(2), RECIPES["ga"]).load_state(tensors, facts)
    cut = {k: v for k, v in tensors.items() if not k.endswith("down_proj.weight")}
    with pytest.raises(FileFormatError, match="missing or has another shape"):
        Unlearner(make.model(), make.task(), RECIPES["ga"]).load_state(cut, facts)
    cut = {k: v for k, v in tensors.items() if "exp_avg_sq" not in k}
    with pytest.raises(FileFormatError, match="exp_avg_sq"):
        Unlearner(make.model(), make.task(), RECIPES["ga"]).load_state(cut, facts)


def test_restore_and_changed(make):
    model = make.model()
    original = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    seen = []
    unlearner = unlearn(
        model, make.task(), RECIPES["npo sequential"], on_step=lambda u, r: seen.append((u.step_index, r))
    )
    assert [s for s, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert set(seen[0][1]) == {"loss", "forget_npo", "log_ratio", "retain_nll", "grad_norm", "lr"}
    assert all(type(v) is float for v in seen[0][1].values())
    assert set(unlearner.changed()) == set(unlearner.originals)
    outside = [n for n in original if n not in unlearner.changed()]
    assert all(torch.equal(model.module.get_parameter(n), original[n]) for n in outside)
    unlearner.restore()
    assert all(torch.equal(p, original[n]) for n, p in model.module.named_parameters())


def diverge(unlearner):
    """Make the next loss NaN by a weight that the loss reads and nothing trains."""
    norm = unlearner.model.module.get_parameter("model.norm.weight")
    assert all(norm is not trained for trained in unlearner._set.trained.values())
    with torch.no_grad():
        norm.fill_(float("nan"))


def test_divergence_after_the_first_step_keeps_the_original_weights(make):
    unlearner = Unlearner(make.model(), make.task(), dataclasses.replace(RECIPES["ga"], lr=1e-2, trainable=LOW))
    unlearner.step()
    diverge(unlearner)
    with pytest.raises(TrainingDivergedError, match=r"is -?nan at step 1 .*the original weights were kept.*recipe.lr"):
        unlearner.step()
    assert unlearner.step_index == 1
    assert all(torch.equal(value, unlearner.originals[name]) for name, value in unlearner.changed().items())


WAYS_BACK = {
    "adamw": {},
    "decay": {"weight_decay": 0.1},
    "sgd": {"optimizer": "sgd"},
    "transform": {"transforms": (("klue", {"ratio": 0.5}),)},
    "lora": {"trainable": Trainable(layers=(0, 1), modules=("mlp",), lora_rank=2)},
}


@pytest.mark.parametrize("way", WAYS_BACK)
def test_divergence_keeps_the_last_weights_with_a_finite_loss(make, way):
    recipe = dataclasses.replace(RECIPES["ga"], **{"lr": 1e-2, "warmup": 0, "trainable": LOW, **WAYS_BACK[way]})
    unlearner = Unlearner(make.model(), make.task(), recipe)
    unlearner.step()
    unlearner.step()
    good = unlearner.changed()
    unlearner.step()
    moved = {name: float((value - good[name]).abs().max()) for name, value in unlearner.changed().items()}
    assert max(moved.values()) > 1e-3
    tensors, facts = unlearner.state()
    resumed = Unlearner(make.model(), make.task(), recipe)
    resumed.load_state(tensors, facts)
    for each in (unlearner, resumed):
        diverge(each)
        with pytest.raises(TrainingDivergedError, match=r"at step 3 .*the weights after step 1 were kept"):
            each.step()
        for name, value in each.changed().items():
            torch.testing.assert_close(value, good[name], atol=1e-6, rtol=0)
    exact = bool(unlearner._last.before)
    assert exact == (way in ("sgd", "transform", "lora"))
    if exact:
        assert all(torch.equal(value, good[name]) for name, value in unlearner.changed().items())


def test_divergence_of_weights_that_overflowed_keeps_the_original_ones(make):
    unlearner = Unlearner(make.model(), make.task(), dataclasses.replace(RECIPES["ga"], trainable=LOW))
    for _ in range(3):
        unlearner.step()
    with torch.no_grad():
        unlearner.model.module.get_parameter("model.layers.0.mlp.down_proj.weight")[0, 0] = float("inf")
    with pytest.raises(TrainingDivergedError, match=r"is -?nan at step 3 .*the original weights were kept"):
        unlearner.step()
    assert all(torch.equal(value, unlearner.originals[name]) for name, value in unlearner.changed().items())
    assert torch.isfinite(unlearner.model(["the colour of Ama is"])).all()


def test_an_empty_forget_set_is_refused(make, model):
    task = dataclasses.replace(make.task(), forget_train=dataclasses.replace(make.task().forget_train, prompts=()))
    scaled = Recipe("rmu", options={"scale": "norm"}, trainable=TOP)
    for recipe in (Recipe("ga"), Recipe("grad_diff"), Recipe("npo"), Recipe("rmu"), scaled):
        with pytest.raises(DataError, match="forget set is empty"):
            Unlearner(model, task, recipe)
    nobody = dataclasses.replace(task, target_entities=())
    with pytest.raises(DataError, match="forget set is empty"):
        Unlearner(model, nobody, Recipe("sae_guided"), make.sae())


def test_missing_retain_data_is_refused_unless_unused(make, model):
    task = dataclasses.replace(make.task(), retain_train=dataclasses.replace(make.task().retain_train, prompts=()))
    with pytest.raises(DataError, match="needs retain data"):
        Unlearner(model, task, Recipe("npo"))
    assert Unlearner(model, task, Recipe("npo", options={"alpha": 0.0})).step()["loss"] > 0
    Unlearner(model, task, Recipe("ga"))


def test_nothing_moved_is_said_aloud(make, model):
    recipe = Recipe("rmu", options={"layer": 0, "alpha": 0.0}, trainable=Trainable(layers=(2, 2)), steps=3)
    unlearner = Unlearner(model, make.task(), recipe)
    with pytest.warns(UserWarning, match="nothing moved"):
        assert unlearner.step()["grad_norm"] == 0
    unlearner.step()  # said once


def test_stop_rule(make, model):
    recipe = Recipe("sae_guided", trainable=LOW, steps=50, lr=1e-2, stop=Stop("toward", min_steps=4, smoothing=0.5))
    unlearner = Unlearner(model, make.task(), recipe, make.sae())
    level = unlearner.objective.stop_levels()["toward"]
    assert unlearner.stop_level == level > 0
    towards = []
    while not unlearner.done:
        towards.append(unlearner.step()["toward"])
    assert unlearner.stopped_early
    smooth = weight = 0.0
    for value in towards:
        smooth, weight = 0.5 * smooth + 0.5 * value, 0.5 * weight + 0.5
    assert 4 <= len(towards) < 50
    assert smooth / weight < level


def test_a_stop_rule_that_cannot_work_is_refused(make, model):
    with pytest.raises(ConfigError, match=r"recipe\.stop\.below is missing"):
        Unlearner(model, make.task(), Recipe("ga", stop=Stop("forget_nll")))
    stop = Stop("forget_nl", below=0.0, min_steps=2)
    unlearner = Unlearner(model, make.task(), Recipe("ga", stop=stop, trainable=LOW))
    unlearner.step()
    with pytest.raises(ConfigError, match=r"nearest: forget_nll.*in 2 steps .* logged only forget_nll, loss"):
        unlearner.step()


def test_a_term_that_some_steps_log_may_stop_the_run(make, model):
    """SCRUB's steps take turns, so each term is there every other time; smoothing counts the steps that log it."""
    stop = Stop("retain_nll", below=100.0, min_steps=4, smoothing=0.5)
    recipe = Recipe("scrub", options={"max_steps": 8}, steps=9, trainable=LOW, lr=1e-4, stop=stop)
    unlearner = Unlearner(model, make.task(), recipe)
    while not unlearner.done:
        unlearner.step()
    assert unlearner.stopped_early
    assert unlearner.step_index == 4
    tensors, facts = unlearner.state()
    assert facts["seen"] == 2
    again = Unlearner(make.model(), make.task(), recipe)
    again.load_state(tensors, facts)
    assert again.state()[1] == facts


def test_a_gradient_that_is_not_finite_keeps_the_weights_it_was_taken_at(make):
    unlearner = Unlearner(make.model(), make.task(), dataclasses.replace(RECIPES["ga"], trainable=LOW))
    for _ in range(3):
        unlearner.step()
    kept = unlearner.changed()

    class Broken(Transform):
        def __call__(self, grads, ctx):
            return {name: torch.full_like(g, float("nan")) for name, g in grads.items()}

    unlearner.transforms.append(Broken(None))
    with pytest.raises(TrainingDivergedError, match=r"gradient is nan at step 3 .*the weights after step 2"):
        unlearner.step()
    assert all(torch.equal(value, kept[name]) for name, value in unlearner.changed().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_in_half_precision_is_said_aloud(make, model, dtype):
    model.module.to(dtype)
    with pytest.warns(UserWarning, match=f"are in {str(dtype)[6:]}, in which most updates .* round to nothing"):
        Unlearner(model, make.task(), Recipe("ga", trainable=LOW))


def test_two_saes_at_one_site_are_refused(make, model):
    with pytest.raises(ConfigError, match="one SAE for each site"):
        Unlearner(model, make.task(), Recipe("sae_guided", trainable=LOW), [make.sae(), make.sae()])


def test_eval_schedule(make, model):
    due = []
    recipe = dataclasses.replace(RECIPES["grad_diff"], eval_every=2, trainable=LOW)
    unlearn(model, make.task(), recipe, on_step=lambda u, _: due.append(u.eval_due))
    assert due == [False, True, False, True, False, True]
