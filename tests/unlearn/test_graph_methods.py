"""Properties of the graph methods: what moves, what must not, and what the equations say."""

import pytest
import torch

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import fresh_copy, fresh_weights, load_intervention, save_intervention, wrap
from interp_unlearn.probes import swapped
from interp_unlearn.unlearn import Recipe, Unlearner, unlearn
from interp_unlearn.unlearn.objectives._graphs import kl_classes, layers
from interp_unlearn.unlearn.objectives.gnndelete import DeletionOperators
from interp_unlearn.unlearn.transforms.saliency_mask import SaliencyMask
from interp_unlearn.worlds import graph_task, without_deleted
from interp_unlearn.worlds.graphs import make_graph
from interp_unlearn.zoo import GNNTraining, train_gnn

from ..tiny_graphs import edge_task, network, node_task, small_graph


def recipe(task, **fields) -> Recipe:
    whole = {"batch_size": len(task.forget_train), "retain_batch_size": len(task.retain_train), "clip": 0.0}
    return Recipe.from_dict({**whole, **fields})


def trained(task, architecture="gcn"):
    model = network(task, architecture)
    train_gnn(model, task, GNNTraining(epochs=30))
    return model


def test_bernoulli_kl_is_never_negative_is_zero_only_at_equality_and_has_the_simple_gradient():
    teacher = torch.tensor([-60.0, -3.0, 0.0, 2.0, 80.0])
    student = torch.tensor([-60.0, 1.0, 0.5, 2.0, -2.0], requires_grad=True)
    two = lambda s: torch.stack([torch.zeros_like(s), s], 1)  # noqa: E731
    each = torch.stack([kl_classes(two(t[None]), two(s[None])) for t, s in zip(teacher, student, strict=True)])
    assert (each >= 0).all() and torch.equal(each == 0, teacher == student)
    kl_classes(two(teacher), two(student)).backward()
    assert torch.allclose(student.grad, (student.detach().sigmoid() - teacher.sigmoid()) / 5, atol=1e-6)
    assert float(kl_classes(torch.zeros(0, 2), torch.zeros(0, 2))) == 0.0


def test_classes_with_two_logits_are_the_same_as_edges():
    teacher, student = torch.randn(2, 9, 2, generator=torch.Generator().manual_seed(0))
    plain = (teacher.softmax(-1) * (teacher.log_softmax(-1) - student.log_softmax(-1))).sum(-1).mean()
    assert torch.allclose(kl_classes(teacher, student), plain, atol=1e-6)


def test_an_untrained_network_is_undecided():
    task = edge_task()
    model = trained(task)
    with torch.no_grad(), without_deleted(task, model), swapped(model, fresh_weights(model.module, 0)):
        p = task.logits(model, task.forget_train.ids).softmax(-1)[:, 1]
    assert float((p - 0.5).abs().mean()) < 0.01


def test_fresh_weights_follow_the_seed_and_leave_the_module_alone():
    model = network(edge_task(), "gat")
    before = {k: v.clone() for k, v in model.tensors().items()}
    one, again, other = (fresh_weights(model.module, seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)
    assert all(torch.equal(before[k], v) for k, v in model.tensors().items())


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_nothing_moves_where_all_is_kept_and_nothing_is_missing(beta, monkeypatch):
    """With alpha = 1 and the student on the whole graph: the student is its own teacher."""
    task = edge_task()
    model = trained(task)
    monkeypatch.setattr(task, "removal", lambda: None)
    unlearner = Unlearner(
        model, task, recipe(task, objective="d2dgn", lr=1e-2, steps=2, options={"alpha": 1.0, "beta": beta})
    )
    if beta:
        record = unlearner.step()
        assert record["loss"] == 0.0
        assert record["grad_norm"] < 1e-6  # p - q of equal scores, give or take rounding
        return
    with pytest.warns(UserWarning, match="nothing moved"):
        record = unlearner.step()
    assert record["loss"] == 0.0
    assert all(torch.equal(p, unlearner.originals[n]) for n, p in unlearner.changed().items())


def test_deleted_edges_follow_the_destroyer():
    task = edge_task("edges 4")
    model = trained(task)
    unlearner = unlearn(
        model, task, recipe(task, objective="d2dgn", lr=1e-2, steps=150, options={"alpha": 0.0, "beta": 1.0})
    )
    with torch.no_grad(), unlearner.edited():
        p = task.logits(model, task.forget_train.ids).softmax(-1)[:, 1]
    wanted = unlearner.objective.forget_logits.softmax(-1)[:, 1]
    assert float((p - wanted).abs().max()) < 0.02
    assert not wanted.requires_grad


def test_an_empty_retain_side_is_zero_not_nan():
    task = edge_task()
    unlearner = Unlearner(trained(task), task, recipe(task, objective="d2dgn", steps=1, options={"alpha": 0.0}))
    keep, _ = unlearner.objective.keep_loss(unlearner.sampler.draw(0), *unlearner.objective.student())
    assert torch.isfinite(keep)


@pytest.mark.parametrize("make", [edge_task, node_task])
@pytest.mark.parametrize("objective", ["d2dgn", "gnndelete", "descent_to_delete", "ga", "grad_diff"])
def test_every_method_runs_on_edges_and_nodes_and_can_be_undone(make, objective):
    task = make()
    model = trained(task)
    before = {k: v.clone() for k, v in model.tensors().items()}
    unlearner = unlearn(model, task, recipe(task, objective=objective, lr=1e-3, steps=3))
    with torch.no_grad(), unlearner.edited():
        edited = task.output(model)
    assert torch.isfinite(edited).all()
    unlearner.restore()
    assert all(torch.equal(before[k], v) for k, v in model.tensors().items())


def test_a_student_may_begin_from_random_weights_and_resumes(tmp_path):
    task = edge_task()
    model = trained(task)
    made = recipe(task, objective="d2dgn", lr=1e-3, steps=4, options={"init": "random"})
    first = Unlearner(model, task, made)
    assert not torch.equal(model.module.conv1.lin.weight, first.originals["conv1.lin.weight"])
    whole = [first.step()["loss"] for _ in range(2)]
    state = first.state()
    whole += [first.step()["loss"] for _ in range(2)]
    first.restore()
    second = Unlearner(model, task, made)
    second.load_state(*state)
    assert [second.step()["loss"] for _ in range(2)] == whole[2:]


def test_a_random_student_and_lora_exclude_each_other():
    task = edge_task()
    made = recipe(task, objective="d2dgn", steps=1, options={"init": "random"}, trainable={"lora_rank": 2})
    with pytest.raises(ConfigError, match="set lora_rank to 0 or init to 'original'"):
        Unlearner(trained(task, "gin"), task, made)


def test_the_bad_teacher_sees_no_deleted_edge():
    task = edge_task()
    model = trained(task)
    unlearner = Unlearner(model, task, recipe(task, objective="bad_teaching", steps=1))
    ignorant = wrap(fresh_copy(model.module, 0).eval(), name="bad", language=False)
    with torch.no_grad(), without_deleted(task, ignorant):
        expected = task.logits(ignorant, task.forget_train.ids)
    assert torch.allclose(unlearner.objective.teacher, expected, atol=1e-6)


def test_a_deleted_class_is_forgotten_by_d2dgn():
    task = node_task("class field A")
    model = network(task)
    train_gnn(model, task, GNNTraining(epochs=60))
    unlearner = unlearn(model, task, recipe(task, objective="d2dgn", lr=5e-3, steps=60, options={"beta": 1.0}))
    with torch.no_grad(), unlearner.edited():
        right = (task.logits(model, task.forget_train.ids).argmax(-1) == 0).float().mean()
        kept = (task.logits(model, task.retain_train.ids).argmax(-1) == task.retain_train.labels).float().mean()
    assert float(right) < 0.5 < float(kept)


def test_utu_only_drops_the_edges():
    task = edge_task()
    model = trained(task)
    unlearner = Unlearner(model, task, Recipe.from_dict({"objective": "utu"}))
    assert unlearner.done and not unlearner.changes_weights
    with torch.no_grad():
        with unlearner.edited():
            one = task.output(model)
        with without_deleted(task, model):
            other = task.output(model)
    assert torch.equal(one, other)


def test_gnndelete_trains_its_matrices_alone_and_touches_only_nodes_near_the_deletion():
    task = edge_task("edges 3")
    model = trained(task)
    before = {k: v.clone() for k, v in model.tensors().items()}
    unlearner = unlearn(model, task, recipe(task, objective="gnndelete", lr=1e-2, steps=5))
    assert unlearner.changed() == {}
    assert all(torch.equal(before[k], v) for k, v in model.tensors().items())
    assert all(not torch.equal(w, torch.full_like(w, 1e-3)) for w in unlearner.objective.matrices.values())
    sites = task.sites(model)
    with torch.no_grad(), without_deleted(task, model):
        plain, _ = layers(model, task, sites)
    with torch.no_grad(), unlearner.edited():
        moved, _ = layers(model, task, sites)
    hops = task.hops()
    first, second = ((hops >= 0) & (hops <= h) for h in (1, 2))
    assert torch.equal(plain[sites[0]][~first], moved[sites[0]][~first])
    assert torch.allclose(plain[sites[1]][~second], moved[sites[1]][~second], atol=1e-6)
    assert not torch.allclose(plain[sites[1]][second], moved[sites[1]][second])


def test_identity_matrices_change_nothing_and_operators_are_saved(tmp_path):
    task = edge_task()
    model = trained(task)
    everywhere = torch.ones(120, dtype=torch.bool)
    widths = {"conv1.output": 16, "conv2.output": 8}
    operators = DeletionOperators({s: torch.eye(d) for s, d in widths.items()}, dict.fromkeys(widths, everywhere))
    with torch.no_grad():
        plain = task.output(model)
        with operators.applied(model):
            assert torch.allclose(task.output(model), plain, atol=1e-5)
    unlearner = unlearn(model, task, recipe(task, objective="gnndelete", lr=1e-2, steps=2))
    save_intervention(tmp_path, unlearner.intervention)
    loaded = load_intervention(tmp_path)
    with torch.no_grad():
        with unlearner.edited():
            one = task.output(model)
        with loaded.applied(model):
            assert torch.equal(task.output(model), one)


@pytest.mark.parametrize("name", ["gu", "mask"])
@pytest.mark.parametrize("objective", ["d2dgn", "ga"])
def test_gradient_transforms_work_on_graph_networks(name, objective):
    task = edge_task()
    model = trained(task)
    transform = {"name": "gu"} if name == "gu" else {"name": "mask", "parameters": ["conv2.lin.weight"], "rows": [0, 1]}
    unlearner = unlearn(model, task, recipe(task, objective=objective, lr=1e-2, steps=3, transforms=[transform]))
    moved = {n for n, p in unlearner.changed().items() if not torch.equal(p, unlearner.originals[n])}
    if name == "mask":
        assert moved == {"conv2.lin.weight"}
        rows = unlearner.changed()["conv2.lin.weight"] != unlearner.originals["conv2.lin.weight"]
        assert rows[:2].any() and not rows[2:].any()
    else:
        assert len(moved) > 1
        assert 0 <= unlearner.transforms[0].last["entanglement"] <= 1


def test_noise_after_the_last_step_stays_inside_a_mask():
    task = edge_task()
    mask = {"name": "saliency_mask", "share": 0.1}
    made = recipe(task, objective="descent_to_delete", lr=1e-3, steps=2, transforms=[mask], options={"sigma": 0.1})
    unlearner = unlearn(trained(task), task, made)
    opened = unlearner.transforms[0].masks
    for name, value in unlearner.changed().items():
        moved = value != unlearner.originals[name]
        assert not moved[~opened[name]].any(), name
    assert any((v != unlearner.originals[n]).any() for n, v in unlearner.changed().items())


def test_transforms_look_at_the_graph_that_training_sees(monkeypatch):
    task = edge_task()
    model = trained(task)
    seen = []
    inner = SaliencyMask.prepare

    def prepare(self, ctx):
        seen.append(task.logits(ctx.model, task.forget_train.ids).detach())
        inner(self, ctx)

    monkeypatch.setattr(SaliencyMask, "prepare", prepare)
    Unlearner(model, task, recipe(task, objective="ga", steps=1, transforms=[{"name": "saliency_mask"}]))
    with torch.no_grad(), without_deleted(task, model):
        assert torch.equal(seen[0], task.logits(model, task.forget_train.ids))
    assert not torch.equal(seen[0], task.logits(model, task.forget_train.ids))


@pytest.mark.parametrize("transform", ["gu", "saliency_mask"])
def test_transforms_that_need_the_models_own_weights_refuse_added_ones(transform):
    task = edge_task()
    made = recipe(task, objective="gnndelete", steps=2, transforms=[{"name": transform}])
    with pytest.raises(ConfigError, match=f"{transform!r} takes gradients of the model's own weights.*'gnndelete'"):
        Unlearner(trained(task), task, made)


def test_a_retain_part_without_gradient_is_said_aloud():
    task = edge_task()
    made = recipe(task, objective="d2dgn", steps=3, options={"alpha": 0.0}, transforms=[{"name": "gu"}])
    with pytest.warns(UserWarning, match="'gu' protects nothing"):
        unlearn(trained(task), task, made)


def test_a_graph_method_refuses_other_tasks(task, model):
    for objective in ("d2dgn", "gnndelete", "utu"):
        with pytest.raises(ConfigError, match="works on graph models"):
            Unlearner(model, task, Recipe.from_dict({"objective": objective}))


def test_deleting_an_isolated_node_runs():
    graph = small_graph()
    lonely = make_graph(
        "g",
        torch.cat([graph.features, torch.rand(5, 60)]),
        graph.edges,
        torch.cat([graph.labels, torch.zeros(5, dtype=torch.long)]),
    )
    node = next(n for n in graph_task(lonely, ["nodes 1"]).split.train.tolist() if n >= 120)
    task = graph_task(lonely, [f"node {node}"])
    for objective in ("d2dgn", "gnndelete"):
        unlearner = unlearn(trained(task), task, recipe(task, objective=objective, lr=1e-3, steps=2))
        assert unlearner.done
