import numpy as np
import pytest
import torch

from interp_unlearn._core import DataError, Labelled
from interp_unlearn.diff import compare_activations, compare_latents, compare_neurons, compare_weights
from interp_unlearn.hooked import Activations

from .conftest import GROUPS, SITES, labelled


def named(tables):
    return {t.name: t for t in tables}


def test_nothing_moved(rows):
    found = named(compare_activations(rows(), rows()))
    neutral = {"norm_drift": 1, "cosine_drift": 0, "displacement": 0, "effect_size": 0, "largest_effect": 0, "cka": 1}
    assert set(found) == {f"diff.{k}" for k in neutral}
    for measure, value in neutral.items():
        table = found[f"diff.{measure}"]
        assert table.values.shape == (2, 2)
        np.testing.assert_allclose(table.values, value, atol=1e-6)
        assert table.config["rows"] == {"target": 8, "known_eval": 12}
        assert table.n == 20
        assert table.mask_policy == "last token of the name"


def test_a_shift_of_one_group_at_one_site_is_found_there_alone(rows):
    before, after = rows(), rows(shift=3.0)
    found = named(compare_activations(before, after))
    effect = found["diff.largest_effect"]
    assert effect.at(site=SITES[0], group="target") == pytest.approx(3.0, rel=0.35)  # 3 standard deviations of noise
    assert found["diff.effect_size"].at(site=SITES[0], group="target") == pytest.approx(
        effect.at(site=SITES[0], group="target") / 6**0.5, rel=1e-6
    )
    for name in ("diff.largest_effect", "diff.displacement", "diff.cosine_drift"):
        assert found[name].at(site=SITES[0], group="target") > 0.1
        assert found[name].at(site=SITES[0], group="known_eval") == pytest.approx(0, abs=1e-6)
        assert found[name].at(site=SITES[1]) == pytest.approx(0, abs=1e-6)


def test_norms_and_angles_are_what_they_say(rows):
    before = rows()
    double = labelled({s: 2 * before[s][:, 0] for s in SITES})
    flipped = labelled({s: -before[s][:, 0] for s in SITES})
    found = named(compare_activations(before, double))
    np.testing.assert_allclose(found["diff.norm_drift"].values, 2, rtol=1e-6)
    np.testing.assert_allclose(found["diff.displacement"].values, 1, rtol=1e-6)
    np.testing.assert_allclose(found["diff.cosine_drift"].values, 0, atol=1e-6)
    np.testing.assert_allclose(named(compare_activations(before, flipped))["diff.cosine_drift"].values, 2, rtol=1e-6)
    np.testing.assert_allclose(named(compare_activations(before, flipped))["diff.cka"].values, 1, rtol=1e-6)


def test_broken_models_give_nan_and_unlabelled_tokens_one_group(rows):
    before = rows()
    broken = labelled({s: torch.full((20, 6), float("nan")) for s in SITES})
    for table in compare_activations(before, broken):
        assert np.isnan(table.values).all()
    x = torch.randn(3, 4, 5)
    mask = torch.tensor([[True, True, True, False]] * 3)
    tokens = torch.zeros(3, 4, dtype=torch.long)
    plain = Activations({"s": x}, tokens, mask, tokens, "content")
    table = compare_activations(plain, plain)[0]
    assert table.axes[1].labels == ("all",)
    assert table.n == 9


def test_labelled_feature_maps_are_one_row_each():
    maps = torch.randn(6, 3, 2, 2)
    images = Activations({"conv1.output": maps}, labels={"group": ["target"] * 2 + ["known_eval"] * 4})
    table = named(compare_activations(images, images))["diff.cosine_drift"]
    assert table.config["rows"] == {"target": 2, "known_eval": 4}
    np.testing.assert_allclose(table.values, 0, atol=1e-6)


def test_rows_that_do_not_belong_together_are_refused(rows):
    before = rows()
    other = Activations(before.values, before.tokens, before.mask, before.positions, "all", {"group": GROUPS[::-1]})
    with pytest.raises(DataError, match="different rows"):
        compare_activations(before, other)
    tokens = before.tokens + 1
    other = Activations(before.values, tokens, before.mask, before.positions, "all", before.labels)
    with pytest.raises(DataError, match="different tokens"):
        compare_activations(before, other)
    with pytest.raises(DataError, match="models differ"):
        compare_activations(before, rows(d=5))
    with pytest.raises(DataError, match="no rows of group"):
        compare_activations(before, before, groups=["unknown_eval"])


class Identity(torch.nn.Module):
    site, d_in = SITES[0], 6

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z


def test_latents_are_ranked_by_the_targets_change(rows):
    before, after = rows(), rows(shift=4.0)
    (table,) = compare_latents(before, after, SITES[0], Identity(), top=3)
    assert table.name == "diff.latents"
    assert table.axes[0].labels[0] == "0"
    assert table.values.shape == (3, 2, 5)
    first = {s: float(table.at(latent="0", group="target", statistic=s)) for s in table.axes[2].labels}
    x, y = before[SITES[0]][:8, 0].relu(), after[SITES[0]][:8, 0].relu()
    assert first["mean_before"] == pytest.approx(float(x[:, 0].mean()), rel=1e-5)
    assert first["mean_after"] == pytest.approx(float(y[:, 0].mean()), rel=1e-5)
    assert first["frequency_before"] == pytest.approx(float((x[:, 0] > 0).float().mean()))
    assert first["frequency_after"] == 1
    assert first["effect"] > 2
    assert table.at(group="known_eval", statistic="effect") == pytest.approx(0)
    assert Labelled.from_json(table.to_json()).axes == table.axes
    assert compare_latents(before, after, SITES[0], Identity(), top=None)[0].values.shape[0] == 6
    with pytest.raises(DataError, match="give site="):
        compare_latents(before, after, SITES[1], Identity())


def test_a_latent_that_never_varied_has_a_finite_effect(rows):
    before, after = rows(), rows()
    before.values[SITES[0]][..., 2] = 0
    after.values[SITES[0]][..., 2] = 0
    after.values[SITES[0]][:8, :, 2] = 5.0
    (table,) = compare_latents(before, after, SITES[0], Identity())
    assert table.axes[0].labels[0] == "2"
    assert np.isfinite(table.values).all()


def test_neurons_are_ranked_over_all_their_sites(rows):
    before, after = rows(), rows(shift=4.0)
    ranked, by_site = compare_neurons(before, after, sites=SITES, top=4)
    assert ranked.axes[0].labels[0] == f"{SITES[0]}[0]"
    assert ranked.values.shape == (4, 2, 5)
    effects = np.abs(ranked.at(group="target", statistic="effect"))
    assert (np.diff(effects) <= 0).all()
    assert by_site.at(site=SITES[0], group="target") > by_site.at(site=SITES[1], group="target") == 0
    with pytest.raises(DataError, match="no neurons were captured"):
        compare_neurons(before, after)


def test_weights():
    before = {"a.weight": torch.ones(4, 3), "b.bias": torch.zeros(2), "c.weight": torch.ones(5)}
    after = {"a.weight": torch.ones(4, 3), "b.bias": torch.tensor([0.0, 1.0])}
    after["a.weight"] = before["a.weight"] + torch.outer(torch.tensor([1.0, 2, 0, 0]), torch.tensor([0.0, 3, 4]))
    found = named(compare_weights(before, after, effective_rank=True))
    assert list(found) == ["relative_change", "max_abs_change", "changed_entries", "changed_fraction", "effective_rank"]
    size = (5 * 25) ** 0.5
    assert found["relative_change"].at(parameter="a.weight") == pytest.approx(size / 12**0.5)
    assert np.isnan(found["relative_change"].at(parameter="b.bias"))  # the original was zero
    assert found["max_abs_change"].at(parameter="a.weight") == 8
    assert found["changed_entries"].values.tolist() == [4, 1]
    assert found["changed_fraction"].at(parameter="a.weight") == pytest.approx(1 / 3)
    assert found["effective_rank"].at(parameter="a.weight") == pytest.approx(1, abs=1e-3)
    assert np.isnan(found["effective_rank"].at(parameter="b.bias"))
    assert found["relative_change"].n == 14
    assert found["relative_change"].config["total"] == pytest.approx(((125 + 1) / 12) ** 0.5)


def test_full_rank_and_unchanged_weights():
    before = {"w": torch.zeros(6, 6), "v": torch.ones(6, 6)}
    found = named(compare_weights(before, {"w": torch.eye(6), "v": torch.ones(6, 6)}, effective_rank=True))
    assert found["effective_rank"].at(parameter="w") == pytest.approx(6, rel=1e-5)
    assert np.isnan(found["effective_rank"].at(parameter="v"))
    assert found["relative_change"].at(parameter="v") == 0


def test_weights_of_another_model_are_refused():
    with pytest.raises(DataError, match=r"no parameter 'layer\.weights'; nearest: layer\.weight"):
        compare_weights({"layer.weight": torch.ones(2)}, {"layer.weights": torch.ones(2)})
    with pytest.raises(DataError, match="shape"):
        compare_weights({"w": torch.ones(2)}, {"w": torch.ones(3)})
    with pytest.raises(DataError, match="no tensors"):
        compare_weights({"w": torch.ones(2)}, {})
