import pytest
import torch

from interp_unlearn._core import ConfigError
from interp_unlearn.unlearn import (
    OBJECTIVES,
    TRANSFORMS,
    Recipe,
    StepContext,
    Trainable,
    Transform,
    Unlearner,
    unlearn,
)
from interp_unlearn.unlearn._last_step import LastStep

LOW = {"layers": [0, 1], "modules": ["mlp_out"]}
DOWN = "model.layers.{}.mlp.down_proj.weight"


def test_masked_weights_stay_bit_identical_under_momentum_and_decay(make):
    model = make.model()
    recipe = Recipe.from_dict(
        {
            "objective": "grad_diff",
            "trainable": LOW,
            "transforms": [{"name": "mask", "parameters": ["*.1.*"], "rows": [2, 5], "columns": [0, 7, 9]}],
            "steps": 8,
            "lr": 1e-2,
            "weight_decay": 0.1,
        }
    )
    original = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    changed = unlearn(model, make.task(), recipe).changed()
    assert torch.equal(changed[DOWN.format(0)], original[DOWN.format(0)])
    moved = (changed[DOWN.format(1)] != original[DOWN.format(1)]).nonzero().tolist()
    assert moved == [[r, c] for r in (2, 5) for c in (0, 7, 9)]


def test_clip_by_module_bounds_every_parameter(make):
    clip = TRANSFORMS["clip_by_module"](TRANSFORMS["clip_by_module"].Options(norm=0.5))
    grads = {"a": torch.full((4,), 10.0), "b": torch.full((4,), 0.01)}
    trained = {n: torch.nn.Parameter(g.clone()) for n, g in grads.items()}
    out = clip(grads, StepContext(0, 0.1, trained, grads, torch.optim.AdamW(list(trained.values()))))
    assert float(out["a"].norm()) == pytest.approx(0.5)
    assert torch.equal(out["b"], grads["b"])


def test_impossible_masks_are_refused(make):
    build = lambda trainable=LOW, **mask: Unlearner(  # noqa: E731
        make.model(),
        make.task(),
        Recipe.from_dict({"objective": "ga", "trainable": trainable, "transforms": [{"name": "mask", **mask}]}),
    )
    with pytest.raises(ConfigError, match="matches no trained parameter"):
        build(parameters=["*.2.*"])
    with pytest.raises(ConfigError, match="an index lies outside"):
        build(columns=[40])
    with pytest.raises(ConfigError, match="LoRA trains factors"):
        build({**LOW, "lora_rank": 2}, rows=[1])
    with pytest.raises(ConfigError, match="has one axis"):
        build({"modules": ["*norm.weight"]}, columns=[1])


def test_a_transform_can_ask_for_both_sides_apart(make):
    seen = {}

    class Sides(Transform):
        wants_sides = True

        def __call__(self, grads, ctx):
            seen.update(ctx.sides, total=grads, before=dict(ctx.before))
            return grads

    model = make.model()
    unlearner = Unlearner(model, make.task(), Recipe.from_dict({"objective": "grad_diff", "trainable": LOW}))
    unlearner.transforms = [Sides(None)]
    unlearner._last = LastStep(unlearner._set, unlearner._optimizer, copies=True)  # as with a transform from the start
    before = unlearner.changed()
    unlearner.step()
    for name in before:
        torch.testing.assert_close(seen["forget"][name] + seen["retain"][name], seen["total"][name])
        assert torch.equal(seen["before"][name], before[name])
        assert float(seen["retain"][name].abs().max()) > 0


@pytest.mark.parametrize(
    "objective", [name for name in OBJECTIVES if OBJECTIVES[name].trains and "language" in OBJECTIVES[name].modalities]
)
@pytest.mark.parametrize("sampler", ["cyclic", "paired"])
@pytest.mark.parametrize("lora", [0, 2])
def test_every_objective_runs_under_a_mask(make, objective, sampler, lora):
    recipe = Recipe.from_dict(
        {
            "objective": objective,
            "options": {"ratio": 0.0} if objective == "crisp" else {},  # of a random dictionary no latent stands out
            "sampler": sampler,
            "trainable": {**LOW, "lora_rank": lora},
            "transforms": [{"name": "clip_by_module"}, {"name": "mask", "parameters": ["*.1.*"]}],
            "steps": 2,
        }
    )
    unlearner = unlearn(make.model(), make.task(), recipe, make.sae())
    original, changed = unlearner.originals, unlearner.changed()
    assert torch.equal(changed[DOWN.format(0)], original[DOWN.format(0)])
    assert not torch.equal(changed[DOWN.format(1)], original[DOWN.format(1)])


def test_duplicate_names_are_refused():
    with pytest.raises(ConfigError, match="'npo' is already registered"):
        OBJECTIVES.register("npo")(OBJECTIVES["npo"])


def test_trainable_accepts_everything_by_default():
    assert Trainable() == Recipe("ga").trainable
