import dataclasses

import pytest
import torch

from interp_unlearn._core import ConfigError, DataError, SiteError
from interp_unlearn.hooked import capture, span_last_token
from interp_unlearn.unlearn import Draw, Recipe, Trainable, Unlearner, unlearn
from interp_unlearn.unlearn.objectives import _reads as reads
from interp_unlearn.worlds._types import Template

SITE = "blocks.1.hook_resid_post"
LOW = Trainable(layers=(0, 1), modules=("mlp_out", "attn_out"))


def unlearner(model, task, sae=None, trainable=LOW, steps=40, **options):
    recipe = Recipe("sae_guided", options=options, trainable=trainable, steps=steps, lr=1e-2, batch_size=4)
    return Unlearner(model, task, recipe, sae)


def latents(model, task, sae, entities):
    """(entity, template, m) at the last token of the name, by `capture`."""
    mentions = [m for e in entities for m in task.mentions([e], "train")]
    batch = model.batch([m.text for m in mentions])
    columns = span_last_token(batch, [m.name_span for m in mentions])
    return sae.encode(capture(model, batch, [SITE], positions=columns)[SITE][:, 0]).reshape(
        len(entities), -1, sae.d_sae
    )


def test_templates_are_shared_and_cover_the_questions(model, task, sae):
    made = unlearner(model, task, sae)
    templates = [t.id for t in reads.shared_templates(task)]
    assert templates == ["m0", "m1", "q0", "q1"]
    assert [r.template for r in made.objective.target_reads] == templates
    kinds = [i.kind for i in made.pools.retain]
    assert kinds.count("known") == kinds.count("unknown") == 4 * 4
    texts = {model.tokenizer.decode(r.ids) for r in made.objective.act.reads}
    unknown = task.unknown_ref[0].name
    assert f"the colour of {unknown} is" in texts


def test_references_are_means_of_the_original_latents(model, task, sae):
    made = unlearner(model, task, sae, alpha=0.0)
    known = latents(model, task, sae, task.known_ref)
    unknown = latents(model, task, sae, task.unknown_ref)
    targets = made.objective.targets[0]
    torch.testing.assert_close(targets.known[:2], known.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(targets.goal[:2], unknown.mean(0), atol=1e-5, rtol=1e-4)
    s = (unknown.mean(0) - known.mean(0)).square().sum(-1)
    torch.testing.assert_close(targets.unit[:2], s, atol=1e-5, rtol=1e-3)
    z = latents(model, task, sae, task.target_entities)[0]
    expected = ((z - unknown.mean(0)).square().sum(-1) / s).mean()
    part = next(made.objective.parts(Draw((0, 1))))
    assert part.terms["toward"] == pytest.approx(float(expected), rel=1e-4)


def test_pooled_means_differ_from_means_by_template(model, task, sae):
    pooled = unlearner(model, task, sae, per_template=False).objective.targets[0]
    assert torch.equal(pooled.goal[0], pooled.goal[1])
    apart = unlearner(model, task, sae).objective.targets[0]
    assert not torch.equal(apart.goal[0], apart.goal[1])
    torch.testing.assert_close(apart.goal.mean(0), pooled.goal[0], atol=1e-5, rtol=1e-4)


def test_sampled_goals_are_real_unknown_entities_in_the_same_template(make, model, sae):
    task = make.task(2)
    unknown = latents(model, task, sae, task.unknown_ref)
    goals = unlearner(model, task, sae, target="sampled").objective.targets[0].goal
    for slot, template in ((0, 0), (1, 1), (4, 0), (5, 1)):
        gaps = (unknown[:, template] - goals[slot]).abs().amax(-1)
        assert float(gaps.min()) < 1e-4
    one = unlearner(model, task, sae, target="sampled", pairing="entity").objective.targets[0].goal
    which = [int((unknown[:, t] - one[t]).abs().amax(-1).argmin()) for t in (0, 1)]
    assert which[0] == which[1]


@pytest.mark.parametrize("options", [{}, {"retain_space": "residual", "retain_positions": "all", "text_windows": 2}])
def test_at_the_start_retain_terms_and_their_gradients_are_zero(model, task, sae, options):
    made = unlearner(model, task, sae, beta=1.0, **options)
    everything = Draw((0, 1, 2, 3), tuple(range(len(made.pools.retain))))
    trained = list(made._set.trained.values())
    names = []
    for part in made.objective.parts(everything):
        names += part.terms
        if part.side == "retain":
            assert float(part.loss.detach()) == pytest.approx(0, abs=1e-6)
            gradients = torch.autograd.grad(part.loss, trained)
            assert max(float(g.abs().max()) for g in gradients) < 1e-3
    assert names == ["toward", "away", "act", "out"]


def test_nothing_above_the_layer_learns_and_the_sae_stays(make, sae):
    model, task = make.model(), make.task()
    bytes_before = {n: p.detach().clone() for n, p in sae.named_parameters()}
    original = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    made = unlearner(model, task, sae, trainable=Trainable(), steps=2)
    trained = made._set.trained
    sae.requires_grad_(True)
    part = next(made.objective.parts(Draw((0, 1))))
    gradients = dict(
        zip(trained, torch.autograd.grad(part.loss, list(trained.values()), allow_unused=True), strict=True)
    )
    above = [n for n in trained if n.startswith(("model.layers.2.", "model.norm", "lm_head"))]
    assert above
    assert all(gradients[n] is None for n in above)
    assert all(gradients[n] is not None for n in trained if n.startswith("model.layers.1.mlp"))
    sae.requires_grad_(False)
    while not made.done:
        made.step()
    assert all(torch.equal(p, bytes_before[n]) for n, p in sae.named_parameters())
    assert all(torch.equal(model.module.get_parameter(n), original[n]) for n in above)


@pytest.mark.parametrize(
    ("name", "options"),
    [("sae_guided", {}), ("sae_guided", {"basis": "residual", "layers": [1]}), ("rmu", {"layer": 1})],
)
@pytest.mark.parametrize("first", [0, 1])
def test_blocks_above_the_layer_and_below_the_training_do_not_run(make, sae, name, options, first):
    model = make.model()
    trainable = Trainable(layers=(first, 1), modules=("mlp_out",))
    made = Unlearner(model, make.task(), Recipe(name, options=options, trainable=trainable, steps=2), sae)
    ran = []
    for i, block in enumerate(model.module.model.layers):
        block.self_attn.register_forward_hook(lambda *_, i=i: ran.append(i))
    made.step()
    assert sorted(ran) == sorted(list(range(first, 2)) * 2)  # one forget pass, one retain pass


def test_skipping_frozen_blocks_changes_nothing(make, sae, monkeypatch):
    from interp_unlearn.unlearn import _prefix

    top = Trainable(layers=(1, 1), modules=("mlp_out",))
    options = {"text_windows": 2, "retain_positions": "all"}
    fast = unlearner(make.model(), make.task(), sae, top, **options)
    assert fast.objective.prefix.first == 1
    quick = [fast.step() for _ in range(5)]
    monkeypatch.setattr(_prefix, "first_trained_block", lambda *_: 0)
    slow = unlearner(make.model(), make.task(), sae, top, **options)
    assert slow.objective.prefix.first == 0
    for record in quick:
        assert slow.step() == pytest.approx(record, rel=1e-3, abs=1e-5)


def test_one_step_lowers_the_loss_on_its_batch(make, sae):
    model, task = make.model(), make.task()
    recipe = Recipe("sae_guided", trainable=LOW, lr=1e-4, steps=2, batch_size=4)
    made = Unlearner(model, task, recipe, sae)
    before = made.step()
    after = made.step()
    assert after["toward"] + 0.5 * after["away"] < before["toward"] + 0.5 * before["away"]


@pytest.mark.parametrize(
    "options",
    [
        {"gradient": "straight_through"},
        {"basis": "residual"},
        {"basis": "residual", "target": "sampled", "positions": "name_and_after"},
        {"basis": "residual", "distance": "cosine"},
        {"basis": "pca", "distance": "l1"},
        {"basis": "random", "gradient": "straight_through"},
        {"target": "mmd", "basis": "residual"},
        {"latents": "selected", "k": 3, "gradient": "straight_through"},
        {"loss": "literal", "lambda_": 0.25, "basis": "residual"},
    ],
    ids=str,
)
def test_every_switch_lowers_its_forget_loss(make, sae, options):
    made = unlearner(make.model(), make.task(), sae, steps=12, alpha=0.0, **options)
    whole = Draw((0, 1, 2, 3))
    start = float(next(made.objective.parts(whole)).loss.detach())
    while not made.done:
        made.step()
    end = float(next(made.objective.parts(whole)).loss.detach())
    assert end < start - 0.15 * abs(start)


def test_without_repulsion_and_retain_the_target_reaches_the_unknown_mean(make, sae):
    made = unlearner(make.model(), make.task(), sae, basis="residual", steps=40, lambda_=0.0, alpha=0.0)
    towards = [made.step()["toward"] for _ in range(40)]
    assert towards[-1] < 0.1 < 1 < towards[0]


def test_retain_term_holds_the_others(make, sae):
    """With L_act the known and unknown references drift less at the same number of steps."""
    drift = []
    for alpha in (0.0, 10.0):
        model, task = make.model(), make.task()
        before = latents(model, task, sae, (*task.known_ref, *task.unknown_ref))
        unlearn(model, task, unlearner(model, task, sae, alpha=alpha, steps=12).recipe, sae)
        drift.append(float((latents(model, task, sae, (*task.known_ref, *task.unknown_ref)) - before).norm()))
    assert drift[1] < 0.7 * drift[0]


def test_straight_through_switches_on_latents_that_are_off(model, task, sae):
    h = torch.randn(3, 24, requires_grad=True)
    exact = unlearner(model, task, sae).objective.spaces[0]
    through = unlearner(model, task, sae, gradient="straight_through").objective.spaces[0]
    assert torch.allclose(exact.codes(h), through.codes(h), atol=1e-6)
    off = (exact.codes(h) == 0).nonzero()[0].tolist()
    for space, expected in ((exact, torch.zeros(24)), (through, sae.W_enc[:, off[1]])):
        (gradient,) = torch.autograd.grad(space.codes(h)[off[0], off[1]], h)
        torch.testing.assert_close(gradient[off[0]], expected.detach())


def test_jumprelu_gate_is_strict_and_its_gradient_is_the_encoder_column():
    from interp_unlearn.latents import SAE
    from interp_unlearn.unlearn.objectives._spaces import Space

    sae = SAE(
        torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), kind="jumprelu", site=SITE, threshold=torch.ones(2)
    )
    h = torch.tensor([[1.0, 1.5]], requires_grad=True)
    z = Space(SITE, sae).codes(h)
    assert z.tolist() == [[0.0, 1.5]]
    assert torch.autograd.grad(z.sum(), h)[0].tolist() == [[0.0, 1.0]]


def test_name_position_by_offsets(model):
    """Right for names of one and two words, at the end, and occurring twice (the last occurrence counts)."""
    task = Template("t", "", "thing", "I like {name}"), Template("u", "", "thing", "tell {name} about {name} now")
    from interp_unlearn.worlds._types import Entity

    short, long = Entity("a", "Ama", "thing"), Entity("b", "New Mos", "thing")
    made = reads.reads_of(model, [short, long], task)
    last = [model.tokenizer.convert_ids_to_tokens(r.ids[r.column]) for r in made]
    assert last == ["Ama", "Ama", "Mos", "Mos"]
    assert [r.column for r in made] == [2, 3, 3, 5]
    after = reads.with_after([made])[0]
    assert [key for key, _ in after[1].slots()] == ["u", "u@-1"]
    assert [column for _, column in after[3].slots()] == [5, 6]


def test_templates_that_begin_with_the_name_are_left_out(model, task, sae):
    begins = Template("first", "", "thing", "{name} is the home")
    mixed = dataclasses.replace(task, mention_train=(*task.mention_train, begins))
    assert "first" not in {r.template for r in unlearner(model, mixed, sae).objective.target_reads}
    only = dataclasses.replace(
        task, mention_train=(begins,), forget_train=dataclasses.replace(task.forget_train, prompts=())
    )
    with pytest.raises(DataError, match="every training template begins with the name"):
        unlearner(model, only, sae)


def test_floor_is_what_an_unknown_entity_has_against_the_others(model, task, sae):
    made = unlearner(model, task, sae, alpha=0.0)
    unknown = made.objective.targets[0].members
    expected = []
    for key, unit in zip(made.objective.targets[0].keys, made.objective.targets[0].unit, strict=True):
        z = unknown[key]
        for i in range(len(z)):
            others = torch.cat([z[:i], z[i + 1 :]]).mean(0)
            expected.append(float((z[i] - others).square().sum() / unit))
    assert made.objective.stop_levels()["toward"] == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_several_saes_are_averaged(make, model, task):
    low, high = make.sae(site="blocks.0.hook_resid_post"), make.sae(seed=1)
    made = unlearner(model, task, [low, high])
    assert made.objective.sites == ["blocks.0.hook_resid_post", SITE]
    both = next(made.objective.parts(Draw((0, 1)))).terms["toward"]
    each = [next(unlearner(model, task, s).objective.parts(Draw((0, 1)))).terms["toward"] for s in (low, high)]
    assert both == pytest.approx(sum(each) / 2, rel=1e-4)


def test_misfits_are_refused(make, model, task, sae):
    with pytest.raises(ConfigError, match="needs an SAE"):
        unlearner(model, task)
    with pytest.raises(ConfigError, match="needs an SAE"):
        unlearner(model, task, basis="random")
    with pytest.raises(ConfigError, match="width 16, but tiny has width 24"):
        unlearner(model, task, make.sae(d=16))
    with pytest.raises(SiteError, match="nearest"):
        unlearner(model, task, make.sae(site="blocks.7.hook_resid_post"))
    with pytest.raises(ConfigError, match="give an SAE for each layer"):
        unlearner(model, task, sae, layers=(0,))
    with pytest.raises(ConfigError, match="blocks 0…2"):
        unlearner(model, task, basis="residual", layers=(5,))
    with pytest.raises(DataError, match="at least 2 known and 2 unknown"):
        unlearner(model, dataclasses.replace(task, unknown_ref=task.unknown_ref[:1]), sae)
    same = dataclasses.replace(task, unknown_ref=task.known_ref)
    with pytest.raises(DataError, match="s = 0"):
        unlearner(model, same, sae)
