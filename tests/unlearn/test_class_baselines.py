"""Baselines of class unlearning: their losses, and what they move."""

import pytest
import torch

from interp_unlearn._core import ConfigError
from interp_unlearn.benchmarks import ShapesConfig, coloured_shapes, image_task
from interp_unlearn.hooked import fresh_copy
from interp_unlearn.unlearn import Draw, Recipe, Unlearner
from interp_unlearn.unlearn.objectives.bad_teaching import kl_to
from interp_unlearn.unlearn.objectives.delete import delete_loss
from interp_unlearn.zoo import open_image_model
from interp_unlearn.zoo._small_resnet import SmallResNet


@pytest.fixture(scope="module")
def task():
    data = coloured_shapes(ShapesConfig(aligned=0.8, per_class=8, test_per_class=4, never=4, size=16))
    return image_task(data, "square")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return open_image_model(SmallResNet(5, width=2).eval())


def made(model, task, **recipe):
    common = {"sampler": "random", "batch_size": 8, "retain_batch_size": 8, "lr": 1e-2, "steps": 4}
    return Unlearner(model, task, Recipe.from_dict({**common, **recipe}))


@pytest.mark.parametrize("objective", ["ga", "delete", "random_labels", "bad_teaching", "scrub", "npo", "undial"])
def test_each_runs_and_batch_norm_statistics_stay(model, task, objective):
    buffers = {name: b.clone() for name, b in model.module.named_buffers()}
    unlearner = made(model, task, objective=objective)
    while not unlearner.done:
        unlearner.step()
    assert all(torch.equal(b, buffers[name]) for name, b in model.module.named_buffers())
    unlearner.restore()


def test_delete_goal_has_no_mass_on_the_class_and_keeps_the_order_of_the_rest():
    teacher = torch.tensor([[5.0, 2.0, 1.0]])
    ids = torch.tensor([0])
    goal = torch.tensor([[-1e9, 2.0, 1.0]])
    assert float(delete_loss(goal, teacher, ids)) < float(delete_loss(teacher, teacher, ids))
    entropy = torch.distributions.Categorical(logits=torch.tensor([2.0, 1.0])).entropy()
    assert float(delete_loss(goal, teacher, ids)) == pytest.approx(float(entropy), abs=1e-6)


def test_random_labels_are_never_the_class(model, task):
    wrong = made(model, task, objective="random_labels").objective.wrong
    assert (wrong != task.label).all()
    assert len(wrong.unique()) > 1


def test_saliency_mask_moves_the_chosen_share_only(model, task):
    unlearner = made(model, task, objective="random_labels", transforms=[{"name": "saliency_mask", "share": 0.1}])
    masks = unlearner.transforms[0].masks
    total = sum(m.numel() for m in masks.values())
    assert sum(int(m.sum()) for m in masks.values()) == -(-total // 10)
    while not unlearner.done:
        unlearner.step()
    for name, value in unlearner.changed().items():
        assert torch.equal(value[~masks[name]], unlearner.originals[name][~masks[name]])
    assert any(not torch.equal(v, unlearner.originals[n]) for n, v in unlearner.changed().items())
    unlearner.restore()


def test_bad_teacher_is_another_network_and_the_same_for_a_seed(model):
    one, two, other = (fresh_copy(model.module, seed) for seed in (0, 0, 1))
    first = lambda m: next(m.parameters())  # noqa: E731
    assert torch.equal(first(one), first(two))
    assert not torch.equal(first(one), first(other))
    assert not torch.equal(first(one), first(model.module))


def test_divergence_is_zero_from_itself_and_positive_else():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    assert float(kl_to(a, a)) == pytest.approx(0, abs=1e-7)
    assert float(kl_to(a, b)) > 0


def test_scrub_takes_turns_and_then_only_mends(model, task):
    objective = made(model, task, objective="scrub", options={"max_steps": 2}).objective
    draw = lambda step: Draw((0, 1), (0, 1), step)  # noqa: E731
    sides = [next(iter(objective.parts(draw(step)))).side for step in range(5)]
    assert sides == ["forget", "retain", "retain", "retain", "retain"]


def test_plain_sgd_moves_along_the_gradient(model, task):
    unlearner = made(model, task, objective="ga", optimizer="sgd", lr=1e-3, clip=0.0)
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    record = unlearner.step()
    moved = torch.cat([(p.detach() - before[n]).flatten() for n, p in model.module.named_parameters()])
    assert float(moved.norm()) == pytest.approx(1e-3 * record["grad_norm"], rel=1e-3)
    tensors, facts = unlearner.state()
    unlearner.restore()
    again = made(model, task, objective="ga", optimizer="sgd", lr=1e-3, clip=0.0)
    again.load_state(tensors, facts)
    assert again.step_index == 1
    again.restore()


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ConfigError, match="optimizer"):
        Recipe.from_dict({"objective": "ga", "optimizer": "lion"})
