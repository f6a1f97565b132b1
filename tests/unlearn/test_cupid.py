"""CUPID's algebra, and its stages on a tiny classifier."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from interp_unlearn._core import ConfigError
from interp_unlearn.benchmarks import ShapesConfig, coloured_shapes, image_task
from interp_unlearn.unlearn import Recipe, Unlearner
from interp_unlearn.unlearn._per_item import curvature_diagonal, item_logits, item_loss, sharpness
from interp_unlearn.unlearn.transforms.cupid import inner, n_causal, routed, split_along, top_half
from interp_unlearn.zoo import open_image_model
from interp_unlearn.zoo._small_resnet import SmallResNet

RECIPE = {"objective": "ga", "optimizer": "sgd", "lr": 1e-3, "steps": 2, "batch_size": 8, "sampler": "random"}


@pytest.fixture(scope="module")
def task():
    data = coloured_shapes(ShapesConfig(aligned=0.8, per_class=10, test_per_class=4, never=4, size=16))
    return image_task(data, "circle")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return open_image_model(SmallResNet(5, width=2).eval())


def made(model, task, **options):
    return Unlearner(model, task, Recipe.from_dict({**RECIPE, "transforms": [{"name": "cupid", **options}]}))


def random_gradients(seed, shapes=((3, 4), (5,))):
    rng = torch.Generator().manual_seed(seed)
    return {f"w{i}": torch.randn(shape, generator=rng, dtype=torch.float64) for i, shape in enumerate(shapes)}


# -- stage 1 -----------------------------------------------------------------------------------------------------------


def test_sharpness_of_a_quadratic_is_its_second_order_expansion():
    rng = torch.Generator().manual_seed(1)
    root = torch.randn(6, 6, generator=rng, dtype=torch.float64)
    hessian, theta = root @ root.T, torch.randn(6, generator=rng, dtype=torch.float64)
    loss = lambda w, item, label: 0.5 * item * (w["theta"] @ hessian @ w["theta"])  # noqa: E731
    scales = torch.tensor([1, 2])
    found = sharpness(loss, {"theta": theta}, scales, torch.zeros(2, dtype=torch.long), 0.3)
    for i, scale in enumerate(scales):
        g = scale * hessian @ theta
        unit = g / g.norm()
        expected = 0.3 * g.norm() + 0.5 * 0.09 * scale * (unit @ hessian @ unit)
        assert float(found.rise[i]) == pytest.approx(float(expected), abs=1e-6)
        assert float(found.norm[i]) == pytest.approx(float(g.norm()))
    still = sharpness(loss, {"theta": theta}, scales, torch.zeros(2, dtype=torch.long), 0.0)
    assert float(still.rise.abs().max()) < 1e-12


def test_partition_has_the_sharpest_items_and_leaves_the_model_alone(model, task):
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    cupid = made(model, task, k=0.25).transforms[0]
    assert all(torch.equal(t, before[name]) for name, t in model.module.state_dict().items())
    n = len(task.forget_train)
    assert len(cupid.causal) == n_causal(0.25, n) == math.ceil(0.25 * n)
    rest = sorted(set(range(n)) - set(cupid.causal))
    assert float(cupid.found.rise[cupid.causal].min()) >= float(cupid.found.rise[rest].max())
    assert float(cupid.omega.mean()) == pytest.approx(1.0)


def test_size_of_the_causal_set():
    assert [n_causal(0.05, n) for n in (1, 20, 21, 100, 300)] == [1, 1, 2, 5, 15]


def test_per_item_losses_are_those_of_the_loop(model, task):
    weights = {name: p.detach() for name, p in model.module.named_parameters()}
    ids, labels = task.forget_train.ids[:3], task.forget_train.labels[:3]
    found = sharpness(item_loss(task, model), weights, ids, labels, 0.1)
    direct = nn.functional.cross_entropy(task.logits(model, ids), labels, reduction="none")
    assert torch.allclose(found.loss.float(), direct.detach(), atol=1e-5)


# -- stage 2 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [8, 9])
def test_pathway_is_exactly_half_even_with_ties(total):
    saliency = {"a": torch.zeros(3), "b": torch.zeros(total - 3)}
    mask = top_half(saliency, "global")
    assert sum(int(m.sum()) for m in mask.values()) == math.ceil(total / 2)


def test_pathway_keeps_the_largest_and_ignores_the_scale():
    saliency = {"a": torch.tensor([5.0, 0.0, 3.0]), "b": torch.tensor([[4.0, 1.0, 0.0]])}
    mask = top_half(saliency, "global")
    assert mask["a"].tolist() == [True, False, True]
    assert mask["b"].tolist() == [[True, False, False]]
    doubled = top_half({name: 4 * s for name, s in saliency.items()}, "global")
    assert all(torch.equal(mask[name], doubled[name]) for name in mask)
    assert [int(m.sum()) for m in top_half(saliency, "per_tensor").values()] == [2, 2]


def test_curvature_of_logistic_regression_is_known():
    torch.manual_seed(0)
    x, weight = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0])
    logits = lambda w, item: w["w"] @ x[item[None]][0]  # noqa: E731
    loss = lambda w: nn.functional.cross_entropy(x @ w.T, labels)  # noqa: E731
    full = torch.autograd.functional.hessian(loss, weight).reshape(12, 12)
    ids = torch.arange(5)
    exact = curvature_diagonal(logits, {"w": weight}, ids, labels, "gauss_newton")["w"]
    assert torch.allclose(exact.flatten(), full.diagonal(), atol=1e-10)
    near = curvature_diagonal(logits, {"w": weight}, ids, labels, "hutchinson", probes=4000)["w"]
    assert torch.allclose(near.flatten(), full.diagonal(), atol=0.05)
    assert float(curvature_diagonal(logits, {"w": weight}, ids, labels, "fisher")["w"].min()) >= 0


def test_a_weight_of_zero_has_no_saliency(model, task):
    weights = {name: p.detach() for name, p in model.module.named_parameters()}
    h = curvature_diagonal(
        item_logits(task, model), weights, task.forget_train.ids[:2], task.forget_train.labels[:2], "fisher"
    )
    saliency = {name: 0.5 * w.square() * h[name] for name, w in weights.items()}
    assert all(float(s[weights[name] == 0].sum()) == 0 for name, s in saliency.items())


# -- stage 3 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projection", ["global", "per_tensor"])
def test_projection_splits_and_is_orthogonal(projection):
    g, along = random_gradients(0), random_gradients(1)
    part, rest = split_along(g, along, projection)
    assert all(torch.allclose(part[n] + rest[n], g[n]) for n in g)
    cosine = inner(rest, along) / math.sqrt(inner(rest, rest) * inner(along, along))
    assert abs(cosine) < 1e-5


def test_projection_of_parallel_and_orthogonal_gradients():
    along = {"w": torch.tensor([1.0, 0.0])}
    part, rest = split_along({"w": torch.tensor([3.0, 0.0])}, along)
    assert rest["w"].tolist() == [0.0, 0.0]
    part, rest = split_along({"w": torch.tensor([0.0, 2.0])}, along)
    assert part["w"].tolist() == [0.0, 0.0]
    part, rest = split_along({"w": torch.tensor([0.0, 2.0])}, {"w": torch.zeros(2)})
    assert rest["w"].tolist() == [0.0, 2.0]


def test_routing_at_the_ends():
    causal, bias = random_gradients(0), random_gradients(1)
    ones = {n: torch.ones_like(c, dtype=torch.bool) for n, c in causal.items()}
    zeros = {n: ~m for n, m in ones.items()}
    assert all(torch.equal(u, causal[n]) for n, u in routed(causal, bias, ones, 1.0).items())
    assert all(torch.equal(u, bias[n]) for n, u in routed(causal, bias, zeros, 1.0).items())
    assert all(float(u.abs().max()) == 0 for u in routed(causal, bias, ones, 0.0).values())
    half = {n: torch.arange(c.numel()).reshape(c.shape) % 2 == 0 for n, c in causal.items()}
    assert all(torch.equal(u[half[n]], 0 * u[half[n]]) for n, u in routed(causal, bias, half, 0.0).items())


def test_causal_set_and_batch_alike_move_only_the_pathway(model, task):
    """With g_f parallel to g_c nothing is left for the bias pathway."""
    n = len(task.forget_train)
    unlearner = made(model, task, k=1 - 0.5 / n, omega="none")
    cupid = unlearner.transforms[0]
    cupid.causal = list(range(n))
    object.__setattr__(unlearner.recipe, "batch_size", n)
    unlearner.sampler.batch_size = n
    unlearner.step()
    originals = unlearner.originals
    for name, p in model.module.named_parameters():
        outside = ~cupid.mask[name]
        assert torch.allclose(p[outside], originals[name][outside], atol=1e-7)
    unlearner.restore()


def test_a_small_step_along_the_causal_gradient_does_not_lower_the_forget_loss(model, task):
    unlearner = made(model, task, pathway="none", omega="none")
    record = unlearner.step()
    assert record["cupid_cos_update_ascent"] == pytest.approx(1.0, abs=1e-4)  # g_proj + g_bias = g_f
    unlearner.restore()


def test_same_seed_same_result_and_retained_images_do_not_matter(model, task):
    def weights(with_task):
        unlearner = made(model, with_task, k=0.3)
        while not unlearner.done:
            unlearner.step()
        changed = unlearner.changed()
        unlearner.restore()
        return changed

    other = image_task(
        coloured_shapes(ShapesConfig(aligned=0.8, per_class=10, test_per_class=4, never=4, size=16)), "circle"
    )
    keep = torch.ones(len(other.retain_train), dtype=torch.bool)
    keep[::2] = False
    object.__setattr__(other, "retain_train", other.retain_train.take(keep.nonzero()[:, 0]))
    one, two = weights(task), weights(other)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_tables_say_what_was_found(model, task):
    tables = {t.name: t for t in made(model, task, k=0.3).tables()}
    partition = tables["cupid.partition"]
    assert partition.at(quantity="causal").sum() == n_causal(0.3, len(task.forget_train))
    assert {"spearman_loss", "spearman_gradient_norm", "auc_conflicting"} <= set(partition.config)
    sizes = np.array(list(tables["cupid.pathway"].config["weights"].values()))
    assert (tables["cupid.pathway"].values * sizes).sum() == math.ceil(sizes.sum() / 2)


@pytest.mark.parametrize("options", [{"omega": "per_item"}, {"project": False}, {"refresh": "frozen"}])
def test_every_reading_of_the_open_points_runs(model, task, options):
    unlearner = made(model, task, k=0.3, **options)
    assert math.isfinite(unlearner.step()["loss"])
    unlearner.restore()


def test_what_does_not_fit_is_refused(model, task):
    with pytest.raises(ConfigError, match="use objective = 'ga'"):
        Unlearner(model, task, Recipe.from_dict({**RECIPE, "objective": "delete", "transforms": [{"name": "cupid"}]}))
    with pytest.raises(ConfigError, match="use optimizer = 'sgd'"):
        Unlearner(model, task, Recipe.from_dict({**RECIPE, "optimizer": "adamw", "transforms": [{"name": "cupid"}]}))
    with pytest.raises(ConfigError, match="a share above 0 and below 1"):
        made(model, task, k=1.0)
    with pytest.raises(ConfigError, match="use a positive share"):
        made(model, task, radius=0.0)
