"""GU inside the loop: around other objectives, other transforms, LoRA; killed and resumed."""

import dataclasses
import json

import pytest
import torch

from interp_unlearn._core import ConfigError, DataError, read_tensors, write_tensors
from interp_unlearn.unlearn import Recipe, Trainable, Unlearner, unlearn
from interp_unlearn.unlearn.objectives._answers import answer_tokens, cross_entropy
from interp_unlearn.unlearn.transforms._covectors import Covectors

LOW = {"layers": [0, 1], "modules": ["mlp_out"]}
DOWN = "model.layers.{}.mlp.down_proj.weight"


def recipe(objective="ga", trainable=LOW, before=(), steps=5, lr=1e-2, clip=0.0, options=None, **gu):
    table = {
        "objective": objective,
        "trainable": trainable,
        "transforms": [*before, {"name": "gu", **gu}],
        "steps": steps,
        "lr": lr,
        "clip": clip,
        "batch_size": 2,
        "retain_batch_size": 3,
        "options": options or {},
    }
    return Recipe.from_dict(table)


def without(made):
    return dataclasses.replace(made, transforms=tuple(p for p in made.transforms if p[0] != "gu"))


def of(unlearner):
    return next(t for t in unlearner.transforms if type(t).__name__ == "GU")


def moved(unlearner, before):
    return {n: p.detach() - before[n] for n, p in unlearner._set.trained.items()}


def copies(unlearner):
    return {n: p.detach().clone() for n, p in unlearner._set.trained.items()}


@pytest.mark.parametrize("mode", ["null", "cone"])
@pytest.mark.parametrize("metric", ["adam", "identity"])
def test_around_plain_sgd(make, mode, metric):
    """SGD has no denominators: the metric is the identity, and no covector's loss rises to first order."""
    made = dataclasses.replace(recipe("grad_diff", mode=mode, metric=metric, lr=1e-3), optimizer="sgd")
    unlearner = Unlearner(make.model(), make.task(), made)
    before = copies(unlearner)
    logged = unlearner.step()
    assert set(logged) >= {"gu_entanglement", "gu_conflict", "gu_covectors"}
    assert max(slopes(unlearner, moved(unlearner, before))) <= 1e-3 * logged["grad_norm"]


def retain_loss(model, items):
    return float(cross_entropy(model, items).detach())


def slopes(unlearner, step):
    """``g^T D / |D|`` for every covector, newest first."""
    covectors = of(unlearner).covectors
    size = sum(float(d.double().square().sum()) for d in step.values()) ** 0.5
    found = []
    for i in range(len(covectors)):
        row = covectors.covector(i)
        found.append(sum(float(row[n].double() @ d.flatten().double()) for n, d in step.items()) / max(size, 1e-30))
    return found


def test_retain_loss_is_untouched_to_first_order(make):
    """Halving the step divides the change of the retain loss by 4; of an unprojected step by 2."""
    model = make.model()
    model.module.double()
    unlearner = Unlearner(model, make.task(), recipe(metric="identity"))
    gu, trained = of(unlearner), unlearner._set.trained
    with unlearner._set.installed():
        items = gu._drawn(0)
        grads, sides, _ = unlearner._gradients(unlearner.sampler.draw(0))
        found = torch.autograd.grad(cross_entropy(model, items), list(trained.values()))
        gu.covectors.push(dict(zip(trained, found, strict=True)))
    ones = {n: torch.ones_like(p) for n, p in trained.items()}
    safe = gu.project(sides["forget"], sides["retain"], ones)
    start, original = retain_loss(model, items), copies(unlearner)

    def change(direction, eta):
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(original[name] - eta * direction[name])
            return retain_loss(model, items) - start

    for direction, order in ((safe, 2), (grads, 1)):
        big, small = change(direction, 8e-3), change(direction, 4e-3)  # far above the loss's float32 resolution
        assert big / small == pytest.approx(2**order, rel=0.05)
    assert abs(change(safe, 1e-3)) < abs(change(grads, 1e-3)) / 50


@pytest.mark.parametrize("objective", ["ga", "grad_diff", "npo", "rmu"])
@pytest.mark.parametrize("lora", [0, 2])
def test_every_applied_step_of_the_cone_is_safe(make, objective, lora):
    made = recipe(objective, {**LOW, "lora_rank": lora}, mode="cone", rank=4, steps=6, lr=1e-3)
    unlearner = Unlearner(make.model(), make.task(2), dataclasses.replace(made, weight_decay=0.1))
    conflicts = 0
    while not unlearner.done:
        before = copies(unlearner)
        unlearner.step()
        assert max(slopes(unlearner, moved(unlearner, before)), default=0) <= 2e-6
        conflicts += of(unlearner).last.get("entanglement", 0) > 0
    assert len(of(unlearner).covectors) == 4
    assert conflicts > 0 or objective != "ga"


def in_pieces(unlearner, monkeypatch):
    """The same step, its loss back-propagated one item at a time and accumulated, each weighed by its answer tokens."""
    objective = unlearner.objective
    whole = objective.parts

    def tokens(items):
        return len(answer_tokens(objective.model, items).logprobs())

    def parts(draw):
        items = {"forget": objective.asked(draw), "retain": [objective.retain.items[i] for i in draw.retain]}
        assert len(draw.forget) == len(draw.retain) == 4
        for i in range(4):
            piece = dataclasses.replace(draw, forget=draw.forget[i : i + 1], retain=draw.retain[i : i + 1])
            for part in whole(piece):
                share = tokens(items[part.side][i : i + 1]) / tokens(items[part.side])
                yield dataclasses.replace(part, loss=part.loss * share)

    monkeypatch.setattr(objective, "parts", parts)


@pytest.mark.parametrize("mode", ["null", "cone"])
def test_accumulating_a_batch_in_pieces_gives_the_same_steps(make, mode, monkeypatch):
    made = dataclasses.replace(recipe("grad_diff", mode=mode, rank=4, lr=1e-3), batch_size=4, retain_batch_size=4)
    found = []
    for accumulate in (False, True):
        unlearner = Unlearner(make.model(), make.task(2), made)
        if accumulate:
            in_pieces(unlearner, monkeypatch)
        gu, projected = of(unlearner), []
        inner = gu.project
        monkeypatch.setattr(gu, "project", lambda *a, f=inner, seen=projected: seen.append(f(*a)) or seen[-1])
        before = copies(unlearner)
        for _ in range(4):
            unlearner.step()
        found.append(([gu.covectors.covector(0), *projected], moved(unlearner, before)))
    (whole, steps), (pieces, same) = found
    assert len(whole) == (5 if mode == "null" else 1)
    for one, other in zip(whole, pieces, strict=True):
        size = max(float(g.abs().max()) for g in one.values())
        assert all(float((other[n].flatten() - one[n].flatten()).abs().max()) <= 1e-4 * size for n in one)
    largest = max(float(d.abs().max()) for d in steps.values())
    assert all(float((same[n] - d).abs().max()) <= 0.01 * largest for n, d in steps.items())


@pytest.mark.parametrize("mode", ["null", "cone"])
def test_with_nothing_to_project_it_is_what_it_wraps_bit_by_bit(make, mode):
    """A retain part that weighs nothing gives no covector, so every step is that of the objective alone."""
    made = recipe("grad_diff", options={"alpha": 1e-12}, mode=mode, source="objective", steps=4, lr=1e-3)
    with pytest.warns(UserWarning, match="'gu' protects nothing"):
        unlearner = unlearn(make.model(), make.task(), made)
    assert not len(of(unlearner).covectors)
    base = unlearn(make.model(), make.task(), without(made)).changed()
    assert all(torch.equal(tensor, base[n]) for n, tensor in unlearner.changed().items())
    assert any(bool((unlearner.originals[n] != base[n]).any()) for n in base)


def test_a_step_that_harms_nobody_is_left_as_it_is(make):
    made = recipe("grad_diff", options={"gamma": 0.0}, mode="cone", steps=1, lr=1e-3)
    with_gu, base = (unlearn(make.model(), make.task(), r).changed() for r in (made, without(made)))
    assert all(torch.equal(with_gu[n], base[n]) for n in base)


def test_null_steps_are_orthogonal_when_the_optimiser_is_plain(make):
    """Without momentum and with Adam's denominators of the step before, the first steps are as good as exact."""
    made = dataclasses.replace(recipe(rank=8, steps=1, lr=1e-3), betas=(0.0, 0.0))
    unlearner = Unlearner(make.model(), make.task(), made)
    seen = {}
    gu = of(unlearner)
    inner = gu.project
    gu.project = lambda f, r, p: seen.setdefault("out", inner(f, r, seen.setdefault("p", p)))
    unlearner.step()
    step = {n: seen["out"][n] * seen["p"][n] for n in seen["out"]}
    assert max(map(abs, slopes(unlearner, step))) <= 1e-6
    assert 0 < gu.last["entanglement"] < 1


def test_the_metric_is_that_of_adamw(make):
    unlearner = Unlearner(make.model(), make.task(), recipe(floor=0.0))
    seen = []
    gu = of(unlearner)
    inner = gu._inverse_metric
    gu._inverse_metric = lambda ctx: seen.append(inner(ctx)) or seen[-1]
    unlearner.step()
    assert all(bool((w == 1).all()) for w in seen[0].values())
    second = {n: unlearner._optimizer.state[p]["exp_avg_sq"].clone() for n, p in unlearner._set.trained.items()}
    unlearner.step()
    for name, w in seen[1].items():
        torch.testing.assert_close(w, 1 / ((second[name] / (1 - 0.999)).sqrt() + 1e-8))


@pytest.mark.parametrize(
    "made",
    [
        recipe(rank=2),
        recipe("grad_diff", mode="cone", rank=3, budget=1e-3),
        recipe("npo", {**LOW, "lora_rank": 2}, rank=2, refresh_every=2, sign_aware=True),
        recipe("rmu", before=[{"name": "mask", "columns": [0, 3, 4, 9]}], source="nll", mode="cone", rank=2),
    ],
    ids=["null", "cone", "lora sign-aware", "mask cone"],
)
def test_killed_and_resumed_is_bitwise_uninterrupted(made, make, tmp_path):
    task = make.task(2)
    whole = unlearn(make.model(), task, made)
    first = Unlearner(make.model(), task, made)
    for _ in range(3):
        first.step()
    tensors, facts = first.state()
    write_tensors(tmp_path / "state.safetensors", tensors)
    facts = json.loads(json.dumps(facts))
    second = Unlearner(make.model(), task, made)
    second.load_state(read_tensors(tmp_path / "state.safetensors"), facts)
    while not second.done:
        second.step()
    expected = whole.changed()
    assert all(torch.equal(v, expected[n]) for n, v in second.changed().items())
    assert any(not torch.equal(v, whole.originals[n]) for n, v in expected.items())


@pytest.mark.parametrize("mode", ["null", "cone"])
def test_a_mask_beside_it_holds_exactly_and_the_step_is_safe(make, mode):
    mask = {"name": "mask", "parameters": ["*.1.*"], "rows": [2, 5], "columns": [0, 7, 9]}
    made = recipe("grad_diff", before=[mask], mode=mode, rank=1, lr=1e-3)
    unlearner = Unlearner(make.model(), make.task(), dataclasses.replace(made, weight_decay=0.1))
    original = unlearner.originals
    while not unlearner.done:
        before = copies(unlearner)
        unlearner.step()
        if mode == "cone":
            assert max(slopes(unlearner, moved(unlearner, before))) <= 2e-6
    changed = unlearner.changed()
    assert torch.equal(changed[DOWN.format(0)], original[DOWN.format(0)])
    where = (changed[DOWN.format(1)] != original[DOWN.format(1)]).nonzero().tolist()
    assert where == [[r, c] for r in (2, 5) for c in (0, 7, 9)]


def test_it_takes_the_retain_gradient_of_the_objective_where_there_is_one(make):
    for objective, own in (("ga", True), ("grad_diff", False), ("npo", False)):
        assert of(Unlearner(make.model(), make.task(), recipe(objective))).own is own
    assert of(Unlearner(make.model(), make.task(), recipe("npo", source="nll"))).own
    assert of(Unlearner(make.model(), make.task(), recipe("npo", options={"alpha": 0.0}))).own
    unlearner = Unlearner(make.model(), make.task(), recipe("grad_diff", rank=1))
    with unlearner._set.installed():
        _, sides, _ = unlearner._gradients(unlearner.sampler.draw(0))
    unlearner.step()
    norm = sum(float(g.double().square().sum()) for g in sides["retain"].values()) ** 0.5
    for name, row in of(unlearner).covectors.covector(0).items():
        torch.testing.assert_close(row, sides["retain"][name].flatten() / norm)


def test_refresh_decides_how_often_a_covector_is_taken(make):
    unlearner = Unlearner(make.model(), make.task(), recipe(refresh_every=2))
    counts = []
    while not unlearner.done:
        unlearner.step()
        counts.append(len(of(unlearner).covectors))
    assert counts == [1, 1, 2, 2, 3]


def test_a_budget_bounds_the_retain_loss_of_every_step(make):
    model = make.model()
    unlearner = Unlearner(model, make.task(), recipe(mode="cone", budget=1e-4, lr=5e-2, steps=6))
    scales = []
    while not unlearner.done:
        items = of(unlearner)._drawn(unlearner.step_index)
        before = retain_loss(model, items)
        unlearner.step()
        assert retain_loss(model, items) <= before + 1.1e-4
        scales.append(of(unlearner).last["scale"])
    assert min(scales) < 1


def test_it_keeps_the_retain_answers_better_than_what_it_wraps(make):
    """At equal steps of gradient ascent; a fair comparison at equal forgetting is a benchmark, not a test."""
    loss = {}
    for name, made in (("gu", recipe(steps=8, lr=2e-3)), ("base", without(recipe(steps=8, lr=2e-3)))):
        model, task = make.model(), make.task()
        items = of(Unlearner(make.model(), task, recipe())).items
        before = retain_loss(model, items)
        unlearn(model, task, made)
        loss[name] = retain_loss(model, items) - before
    assert loss["gu"] < loss["base"]


def test_it_needs_retain_data(make, model):
    task = make.task()
    empty = dataclasses.replace(task, retain_train=dataclasses.replace(task.retain_train, prompts=()))
    for mode in ("null", "cone"):
        with pytest.raises(DataError, match="transform 'gu' keeps a forget step away from retain gradients"):
            Unlearner(model, empty, recipe(mode=mode))
    Unlearner(model, empty, recipe(text_windows=2)).step()
    with pytest.raises(ConfigError, match="objective 'ga' has no retain part"):
        Unlearner(model, task, recipe(source="objective"))
    with pytest.raises(ConfigError, match="objective 'npo' has no retain part"):
        Unlearner(model, task, recipe("npo", options={"alpha": 0.0}, source="objective"))


def test_a_retain_set_that_is_the_forget_set_is_refused(make, model):
    task = make.task()
    same = dataclasses.replace(task, retain_train=dataclasses.replace(task.forget_train, name="retain"))
    part = dataclasses.replace(
        same, retain_train=dataclasses.replace(same.retain_train, prompts=same.forget_train.prompts[:1])
    )
    for wrong in (same, part):
        for made in (recipe(), without(recipe("grad_diff"))):
            with pytest.raises(DataError, match="contains the forget set or lies inside it"):
                Unlearner(model, wrong, made)
    Unlearner(model, same, without(recipe()))  # gradient ascent reads no retain data


def test_half_precision_weights(make):
    model = make.model()
    model.module.bfloat16()
    for mode in ("null", "cone"):
        made = recipe(mode=mode, trainable=Trainable(layers=(0, 1), modules=("mlp_out",)))
        with pytest.warns(UserWarning, match="in bfloat16"):
            changed = unlearn(model, make.task(), made).changed()
        assert all(v.dtype == torch.bfloat16 and bool(torch.isfinite(v).all()) for v in changed.values())


def test_covectors_are_normalised_in_float32():
    held = Covectors({"w": torch.zeros(3, dtype=torch.bfloat16)}, 2)
    held.push({"w": torch.tensor([3e4, 0, 4e4], dtype=torch.bfloat16)})
    torch.testing.assert_close(held.covector(0)["w"], torch.tensor([0.6, 0, 0.8]), rtol=1e-2, atol=0)
