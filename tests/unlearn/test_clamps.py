"""SAE clamp, DSG and CRISP: which latents are chosen, what is done to them, and that nothing else is touched."""

import dataclasses

import pytest
import torch

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.hooked import HookedModel, capture, load_intervention, save_intervention
from interp_unlearn.latents import SAE, LatentClamp, random_dictionary
from interp_unlearn.unlearn import Recipe, Stop, Trainable, Unlearner, default_recipe, unlearn
from interp_unlearn.unlearn.objectives._latent_use import (
    LatentUse,
    firing_shares,
    forget_reads,
    latent_use,
    retain_reads,
)
from interp_unlearn.unlearn.objectives._reads import padded
from interp_unlearn.unlearn.objectives.crisp import choose_salient, suppression
from interp_unlearn.unlearn.objectives.dsg import choose_guarded, gate_level
from interp_unlearn.unlearn.objectives.sae_clamp import choose_clamped
from interp_unlearn.worlds._types import QASet, Task

from .conftest import SITE, make_model, make_task

LOW = Trainable(layers=(0, 1), modules=("mlp_out", "attn_out"))


@pytest.fixture
def real_sae() -> SAE:
    return random_dictionary(24, 60, 6, 0, SITE)


def clamp_recipe(name: str, **options) -> Recipe:
    return Recipe(name, options={"threshold": 1.0, **options} if name == "sae_clamp" else options)


# -- choices by hand --------------------------------------------------------------------------------------------------


def test_the_clamp_takes_the_most_frequent_of_those_rare_on_retain_text():
    q_forget = torch.tensor([0.5, 0.9, 0.0, 0.3, 0.5])
    q_retain = torch.tensor([0.0, 0.01, 0.0, 0.009, 0.0])
    assert choose_clamped(q_forget, q_retain, 0.01, 3).tolist() == [0, 4, 3]  # 1 is too frequent, 2 never fires
    assert choose_clamped(q_forget, q_retain, 0.02, 1).tolist() == [1]
    assert choose_clamped(q_forget, q_retain + 1, 0.5, 3).tolist() == []


def test_dsg_takes_the_most_important_of_those_of_high_ratio():
    forget = torch.tensor([4.0, 9.0, 0.0, 1.0, 2.0])
    retain = torch.tensor([1.0, 9.0, 0.0, 0.0, 0.1])
    # ratios: 4, 1, 0, 1e21, 20 → median 4
    assert choose_guarded(forget, retain, 50.0, 2).tolist() == [4, 3]
    assert choose_guarded(forget, retain, 25.0, 2).tolist() == [0, 4]
    assert choose_guarded(forget, retain, 100.0, 2).tolist() == []


def test_the_gate_level_is_the_higher_neighbour():
    shares = torch.linspace(0, 1, 21)
    assert gate_level(shares, 95.0) == pytest.approx(0.95)
    assert gate_level(shares, 94.0) == pytest.approx(0.95)
    assert gate_level(shares, 100.0) == 1.0


def use(tokens: int, fires: list[float], total: list[float]) -> LatentUse:
    return LatentUse(tokens, torch.tensor(fires), torch.tensor(total), torch.zeros(len(fires)))


def test_crisp_takes_the_largest_count_difference_of_those_of_high_ratio():
    target = use(10, [8.0, 5.0, 9.0, 1.0], [40.0, 20.0, 30.0, 3.0])
    benign = use(10, [1.0, 0.0, 8.0, 0.0], [5.0, 0.0, 20.0, 0.0])
    assert choose_salient(target, benign, 3, 3.0, True).tolist() == [0, 1, 3]  # 30 / 21 is below 3
    assert choose_salient(target, benign, 1, 0.0, True).tolist() == [0]
    wide = use(100, [10.0, 0.0, 80.0, 0.0], [50.0, 0.0, 200.0, 0.0])
    assert choose_salient(target, wide, 3, 3.0, True).tolist() == [0, 1, 3]  # the same per token
    assert choose_salient(target, wide, 3, 3.0, False).tolist() == [1, 3]  # 40 / 51 is below 3


def test_suppression_by_hand_keeps_its_gradient_when_a_latent_went_off():
    a = torch.tensor([[2.0, -1.0], [-3.0, 0.5]], requires_grad=True)
    was_on = torch.tensor([[True, True], [False, False]])
    loss = suppression(a, a.relu(), was_on, torch.tensor([5.0, 4.0]))
    assert loss.item() == pytest.approx((7.0 + 3.0 + 0.0 + 0.5) / 4)
    loss.backward()
    assert a.grad is not None
    assert a.grad.tolist() == [[0.25, 0.25], [0.0, 0.25]]


# -- counting ---------------------------------------------------------------------------------------------------------


def test_use_counts_inner_tokens_and_shares_agree(model, task, real_sae):
    reads = forget_reads(model, task)
    assert len(reads) == len(task.forget_train.prompts) + len(task.mention_train)
    found = latent_use(model, real_sae, reads)
    rows = []
    for read in reads:
        h = capture(model, [list(read.ids)], [SITE], mask_policy="all")[SITE][0, 1:]
        rows.append(real_sae.encode(h))
    z = torch.cat(rows)
    assert found.tokens == len(z)
    torch.testing.assert_close(found.rate, (z > 0).float().mean(0))
    torch.testing.assert_close(found.mean_square, z.square().mean(0), atol=1e-4, rtol=1e-4)
    some = [3, 17, 30]
    torch.testing.assert_close(
        firing_shares(model, real_sae, reads, some),
        torch.stack([(r[:, some] > 0).any(1).float().mean() for r in rows]),
    )


# -- clamps at run time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sae_clamp", "dsg"])
def test_no_weight_changes_and_the_run_is_done_at_once(name, model, task, real_sae):
    before = {n: p.clone() for n, p in model.module.named_parameters()}
    unlearner = unlearn(model, task, clamp_recipe(name), real_sae)
    assert unlearner.done
    assert unlearner.step_index == 0
    assert unlearner.changed() == unlearner.originals == {}
    assert all(torch.equal(p, before[n]) for n, p in model.module.named_parameters())
    assert all(p.requires_grad for p in model.module.parameters())
    with pytest.raises(ConfigError, match="done after 0 steps"):
        unlearner.step()
    prompts = [p.full for p in task.forget_train.prompts]
    with torch.no_grad():
        clean = model(prompts)
        with unlearner.edited():
            assert not torch.allclose(model(prompts), clean)
        assert torch.equal(model(prompts), clean)
    unlearner.restore()


def test_a_trained_method_has_no_intervention(model, task):
    unlearner = Unlearner(model, task, Recipe("ga", trainable=LOW))
    assert unlearner.intervention is None
    with unlearner.edited():
        assert sum(len(m._forward_hooks) for m in model.module.modules()) == 0


def gate_opens(model: HookedModel, clamp: LatentClamp, texts: list[list[int]]) -> list[bool]:
    """Whether the clamp changes anything in each text."""
    opened = []
    for ids in texts:
        before = capture(model, [ids], [SITE], mask_policy="all")[SITE]
        with clamp.applied(model):
            after = capture(model, [ids], [SITE], mask_policy="all")[SITE]
        opened.append(not torch.equal(before, after))
    return opened


@pytest.mark.parametrize(("percentile", "at_most"), [(100.0, 0.0), (80.0, 0.2)])
def test_the_gate_stays_shut_on_retain_text(percentile, at_most, model, task, real_sae):
    recipe = clamp_recipe("dsg", gate_percentile=percentile, percentile=50.0, n=5)
    clamp = Unlearner(model, task, recipe, real_sae).intervention
    assert isinstance(clamp, LatentClamp)
    retain = retain_reads(model, task, 200, 64)
    opened = gate_opens(model, clamp, [list(r.ids) for r in retain])
    assert sum(opened) <= at_most * len(retain)
    assert clamp.gate == pytest.approx(
        gate_level(firing_shares(model, real_sae, retain, clamp.latents.tolist()), percentile)
    )


def test_benign_text_in_front_shuts_the_gate(model, task, real_sae):
    """The weakness that comes with a share: a known property of the method."""
    clamp = Unlearner(
        model, task, clamp_recipe("dsg", percentile=50.0, n=3, gate_percentile=50.0), real_sae
    ).intervention
    assert isinstance(clamp, LatentClamp)
    reads = forget_reads(model, task)
    shares = firing_shares(model, real_sae, reads, clamp.latents.tolist())
    ids = list(reads[int(shares.argmax())].ids)
    wide = dataclasses.replace(clamp, gate=float(shares.max()) - 1e-3)
    anywhere = dataclasses.replace(clamp, gate=0.0)
    quiet = next(w for w in range(2, 40) if not gate_opens(model, anywhere, [[5, w]])[0])
    assert gate_opens(model, wide, [ids]) == [True]
    assert gate_opens(model, wide, [[quiet] * 30 + ids]) == [False]


def test_values_and_units(model, task, real_sae):
    plain = Unlearner(model, task, clamp_recipe("sae_clamp", value=7.0, n=4), real_sae).intervention
    scaled = Unlearner(model, task, clamp_recipe("sae_clamp", value=7.0, n=4, unit="activation"), real_sae).intervention
    assert isinstance(plain, LatentClamp)
    assert isinstance(scaled, LatentClamp)
    assert plain.values.tolist() == [-7.0] * 4
    assert torch.equal(plain.latents, scaled.latents)
    mean = latent_use(model, real_sae, forget_reads(model, task)).mean_active
    torch.testing.assert_close(scaled.values, -7 * mean[scaled.latents])
    assert (plain.where, plain.gate) == ("each", None)


@pytest.mark.parametrize("name", ["sae_clamp", "dsg"])
def test_state_resumes_and_the_saved_clamp_is_the_same(name, make, task, real_sae, tmp_path):
    first = Unlearner(make.model(), task, clamp_recipe(name), real_sae)
    second = Unlearner(make.model(), task, clamp_recipe(name), real_sae)
    second.load_state(*first.state())
    assert second.done
    assert isinstance(first.intervention, LatentClamp)
    save_intervention(tmp_path, first.intervention)
    loaded, again = load_intervention(tmp_path), second.intervention
    assert isinstance(loaded, LatentClamp)
    assert isinstance(again, LatentClamp)
    for other in (loaded, again):
        assert torch.equal(other.latents, first.intervention.latents)
        assert torch.equal(other.values, first.intervention.values)
        assert other.gate == first.intervention.gate


@pytest.mark.parametrize("name", ["sae_clamp", "dsg", "crisp"])
def test_what_they_need_is_asked_for(name, make, task, real_sae):
    recipe = clamp_recipe(name)
    with pytest.raises(ConfigError, match=f"'{name}' needs an SAE"):
        Unlearner(make.model(), task, recipe)
    with pytest.raises(ConfigError, match="reads vectors of width 8"):
        Unlearner(make.model(), task, recipe, random_dictionary(8, 20, 4, 0, SITE))
    empty: Task = dataclasses.replace(task, forget_train=QASet("base", ()))
    with pytest.raises(DataError, match="forget set is empty"):
        Unlearner(make.model(), empty, recipe, real_sae)
    bare = dataclasses.replace(task, retain_train=QASet("retain", ()), text_train=(), known_ref=())
    with pytest.raises(DataError, match="needs retain data"):
        Unlearner(make.model(), bare, recipe, real_sae)


def test_what_cannot_act_is_refused(make, task, real_sae):
    with pytest.raises(ConfigError, match=r"changes no weight, so recipe\.transforms"):
        Unlearner(make.model(), task, Recipe("dsg", transforms=({"name": "clip_by_module"},)), real_sae)
    with pytest.raises(ConfigError, match=r"changes no weight, so recipe\.stop"):
        Unlearner(make.model(), task, Recipe("sae_clamp", stop=Stop("loss", 0.0)), real_sae)
    with pytest.raises(ConfigError, match="takes one SAE"):
        two = [real_sae, random_dictionary(24, 60, 6, 1, "blocks.0.hook_resid_post")]
        Unlearner(make.model(), task, Recipe("dsg"), two)
    with pytest.raises(ConfigError, match=r"raise options\.threshold"):
        Unlearner(make.model(), task, clamp_recipe("sae_clamp", threshold=1e-6), real_sae)
    with pytest.raises(ConfigError, match=r"lower options\.percentile"):
        Unlearner(make.model(), task, clamp_recipe("dsg", percentile=100.0), real_sae)
    for name, options, said in (
        ("sae_clamp", {"n": 0}, "options.n is 0"),
        ("sae_clamp", {"threshold": 0.0}, "options.threshold is 0"),
        ("dsg", {"gate_percentile": 101.0}, "options.gate_percentile is 101"),
        ("crisp", {"beta": 1.0}, "options.beta is 1"),
        ("crisp", {"ratio": -1.0}, "options.ratio is -1"),
    ):
        with pytest.raises(ConfigError, match=said):
            Recipe(name, options=options)


# -- CRISP ------------------------------------------------------------------------------------------------------------


def crisp(steps: int = 6, trainable: Trainable = LOW, **options) -> Recipe:
    options = {"ratio": 0.0, "k": 5, **options}
    return Recipe(
        "crisp", options=options, trainable=trainable, steps=steps, lr=5e-3, sampler_options={"by_kind": True}
    )


def test_crisp_starts_at_its_original_and_weighs_as_published(model, task, real_sae):
    unlearner = Unlearner(model, task, crisp(), real_sae)
    record = unlearner.step()
    assert record["retain"] == pytest.approx(0.0, abs=1e-9)
    assert record["coherence"] == pytest.approx(0.0, abs=1e-9)
    assert record["loss"] == pytest.approx(0.01 * record["suppress"], rel=1e-5)
    second = unlearner.step()
    weighed = 0.01 * second["suppress"] + 0.99 * second["retain"] + 0.99 * 0.01 * second["coherence"]
    assert second["loss"] == pytest.approx(weighed, rel=1e-5)
    assert second["retain"] > 0


def test_crisp_loss_by_hand_at_the_start(model, task, real_sae):
    objective = Unlearner(model, task, crisp(shift=2.0), real_sae).objective
    latents = objective.latents[SITE]
    rows = [capture(model, [list(r.ids)], [SITE], mask_policy="all")[SITE][0, 1:] for r in objective.reads]
    a, z = (torch.cat([f(h)[:, latents] for h in rows]) for f in (real_sae.pre_activations, real_sae.encode))
    on = z > 0
    shift = 2 * ((a * on).sum(0) / on.sum(0)).abs()
    by_hand = torch.where(on, a + shift, z).mean()
    found = objective._unlearn(range(len(rows)))
    torch.testing.assert_close(found, by_hand, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("trainable", [LOW, dataclasses.replace(LOW, lora_rank=4, lora_alpha=8.0)])
def test_crisp_silences_its_latents_and_restores(trainable, model, task, real_sae):
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    unlearner = Unlearner(model, task, crisp(25, trainable, beta=0.5), real_sae)
    chosen = unlearner.objective.latents[SITE]
    reads = forget_reads(model, task)
    original = latent_use(model, real_sae, reads)
    while not unlearner.done:
        unlearner.step()
    after = latent_use(model, real_sae, reads)
    assert float(after.total[chosen].sum()) < 0.5 * float(original.total[chosen].sum())
    assert unlearner.intervention is None
    unlearner.restore()
    assert all(torch.equal(p, before[n]) for n, p in model.module.named_parameters())


def test_crisp_skips_frozen_blocks_without_changing_the_loss(make, task, real_sae):
    """With only block 1 trained, block 0 is passed through; the losses are those of the plain forward pass."""
    top = Trainable(layers=(1, 1), modules=("mlp_out",))
    unlearner = Unlearner(make.model(), task, crisp(2, top), real_sae)
    assert unlearner.objective.prefix.first == 1
    unlearner.step()
    objective, model = unlearner.objective, unlearner.model
    kept = [i for i, item in enumerate(objective.kept) if item.kind == "prompt"][:3]
    with torch.no_grad():
        loss = objective._held(kept, [objective.last])
        found = []
        for i in kept:
            batch = padded(model, [objective.kept[i].read])
            h = capture(model, batch, [objective.last], mask_policy="all")[objective.last][0, 1:]
            found.append((h - objective.kept[i].values[objective.last]).square())
    torch.testing.assert_close(loss, torch.cat(found).mean(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("lora", [0, 2])
def test_crisp_killed_and_resumed_is_bitwise_uninterrupted(lora, real_sae):
    recipe = crisp(4, dataclasses.replace(LOW, lora_rank=lora))
    whole = unlearn(make_model(), make_task(2), recipe, real_sae).changed()
    first = Unlearner(make_model(), make_task(2), recipe, real_sae)
    first.step()
    first.step()
    second = Unlearner(make_model(), make_task(2), recipe, real_sae)
    second.load_state(*first.state())
    while not second.done:
        second.step()
    assert all(torch.equal(v, whole[k]) for k, v in second.changed().items())


def test_crisp_takes_several_saes(model, task, real_sae):
    saes = [real_sae, random_dictionary(24, 60, 6, 1, "blocks.0.hook_resid_post")]
    unlearner = Unlearner(model, task, crisp(2), saes)
    assert set(unlearner.objective.latents) == {SITE, "blocks.0.hook_resid_post"}
    assert unlearner.step()["suppress"] > 0


@pytest.mark.parametrize("name", ["meow", "sae_clamp", "dsg", "crisp"])
def test_default_recipes_are_valid(name, model):
    recipe = default_recipe(name, model, layer=1)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
