import numpy as np
import pytest
import torch

from interp_unlearn._core import DataError, Evidence
from interp_unlearn.hooked import Activations
from interp_unlearn.probes import alignment, alignment_by_layer

from .conftest import SITE, SITES, ReluSAE, changed, make_mentions


def by_kind(found):
    return {e.name.split("/")[0]: e for e in found}


def pair(at=1.0, **options):
    """The target moves from known to ``at``; everything else stays as it is."""
    return make_mentions(0.0, **options), make_mentions(at, **options)


def test_a_target_moved_onto_unknown_entities_reads_as_aligned():
    found = by_kind(alignment(*pair(), SITE))
    t, r, ratio = (found[f"alignment.{k}"] for k in ("t", "r", "ratio"))
    assert t.name == "alignment.t/residual"
    assert t.config["before"] == pytest.approx(0, abs=0.25)
    assert t.value == pytest.approx(1, abs=0.25)
    assert t.control == pytest.approx(1, abs=0.1)
    assert t.interval[0] < t.value < t.interval[1]
    assert 0.05 <= t.config["percentile_among_unknown"] <= 0.95
    assert r.value == pytest.approx(r.control, rel=0.3)
    assert ratio.config["before"] < 0.4 < 0.6 < ratio.value
    assert found["alignment.separation"].value == pytest.approx(found["alignment.separation"].control, abs=1e-6)
    assert t.n == 5
    assert t.mask_policy == "last token of the name"


def test_untouched_overshot_and_off_axis_targets_are_told_apart():
    read = {
        name: by_kind(alignment(*pair(at, off_axis=off), SITE))
        for name, at, off in (("kept", 0.0, 0.0), ("overshot", 2.5, 0.0), ("off", 1.0, 20.0))
    }
    assert read["kept"]["alignment.t"].value < 0.3
    assert read["kept"]["alignment.t"].config["percentile_among_unknown"] == 0
    assert read["overshot"]["alignment.t"].config["percentile_among_unknown"] == 1
    off = read["off"]["alignment.r"]
    assert off.value > 2 * off.control
    assert off.config["percentile_among_unknown"] == 1


def test_merged_groups_lower_the_separation():
    before = make_mentions(0.0)
    merged = before.values[SITE] * 0 + before.values[SITE].mean(0) + 0.01 * torch.randn_like(before.values[SITE])
    found = by_kind(alignment(before, changed(before, {SITE: merged}), SITE))["alignment.separation"]
    assert found.control == pytest.approx(1, abs=0.15)
    assert abs(found.value) < 0.05


def test_sae_space_with_and_without_chosen_latents(sae):
    before, after = pair()
    whole = by_kind(alignment(before, after, SITE, sae))["alignment.t"]
    assert whole.name == "alignment.t/sae"
    few = by_kind(alignment(before, after, SITE, sae, latents=list(range(16)), basis="half"))["alignment.t"]
    assert few.name == "alignment.t/half"
    assert whole.value == pytest.approx(1, abs=0.35)
    assert few.value != whole.value
    with pytest.raises(DataError, match="no SAE was given"):
        alignment(before, after, SITE, latents=[1])


def test_details_hold_the_pictures_and_survive_saving(tmp_path):
    t = by_kind(alignment(*pair(), SITE))["alignment.t"]
    points = t.details["points"]
    assert [a.name for a in points.axes] == ["phase", "mention", "coordinate"]
    assert points.axes[1].labels[0] == "target|target 0|t0"
    after = points.at(phase="after", coordinate="t")[:5]
    assert after.mean() == pytest.approx(t.value)
    assert t.details["groups"].at(phase="after", group="target", statistic="mean") == pytest.approx(t.value)
    t.save(tmp_path / "t.json")
    back = Evidence.load(tmp_path / "t.json")
    assert back.value == t.value
    np.testing.assert_array_equal(back.details["points"].values, points.values)


def test_gold_is_placed_on_its_own_axis():
    before, after = pair()
    gold = make_mentions(1.0, seed=7)  # other weights: other directions
    t = by_kind(alignment(before, after, SITE, gold=gold))["alignment.t"]
    assert t.config["gold"] == pytest.approx(1, abs=0.25)


def test_broken_and_missing_rows_give_a_reason_instead_of_a_number(sae):
    before, after = pair()
    bad = after.values[SITE].clone()
    bad[0] = float("nan")
    for found in (
        alignment(before, changed(after, {SITE: bad}), SITE),
        alignment_by_layer(before, changed(after, {SITE: bad})),
    ):
        assert all(np.isnan(e.value) and "NaN or infinite" in e.reason for e in found)
    keep = [i for i, g in enumerate(before.labels["group"]) if g != "unknown_eval"]
    labels = {k: [v[i] for i in keep] for k, v in before.labels.items()}
    part = Activations({SITE: before[SITE][keep]}, labels=labels)
    assert "no rows of unknown_eval" in alignment(part, part, SITE)[0].reason


def test_mistakes_are_refused_with_a_sentence(sae):
    before, after = pair()
    with pytest.raises(DataError, match="different rows"):
        alignment(before, make_mentions(others=3), SITE)
    with pytest.raises(DataError, match="give site="):
        alignment(before, after, SITES[0], sae)
    with pytest.raises(DataError, match="width"):
        alignment(before, after, SITE, ReluSAE(torch.eye(8)))
    with pytest.raises(DataError, match="no 'group' label"):
        alignment(Activations(before.values), Activations(after.values), SITE)


def test_layer_curves_and_the_worst_layer():
    before, after = pair()
    hidden = changed(after, {SITES[0]: make_mentions(0.0)[SITES[0]]})  # the first layer was not touched
    clean = {e.name: e for e in alignment_by_layer(before, after)}
    shallow = {e.name: e for e in alignment_by_layer(before, hidden)}
    name = "alignment.layers_t/residual"
    assert clean[name].value < clean[name].config["control_p95"] * 1.5
    assert shallow[name].value > 1.5 * shallow[name].config["control_p95"]
    assert shallow[name].config["worst_site"] == SITES[0]
    curve = shallow[name].details["layers"]
    assert curve.axes[0].labels == SITES
    assert curve.at(site=SITES[0], phase="after", group="target", statistic="t") < 0.3
    assert curve.at(site=SITES[1], phase="after", group="target", statistic="t") > 0.7
    assert "alignment.layers_r/residual" in clean


def test_other_kinds_of_model_need_no_tokens_entities_or_templates():
    rng = np.random.default_rng(0)
    groups = ["target"] * 6 + [g for g in ("known_ref", "known_eval", "unknown_ref", "unknown_eval") for _ in range(20)]
    x = rng.normal(size=(len(groups), 8)) + 3.0 * np.array([g.startswith("unknown") for g in groups])[:, None]
    nodes = Activations({"conv1.output": torch.tensor(x, dtype=torch.float32)}, labels={"group": groups})
    t = alignment(nodes, nodes, "conv1.output")[0]
    assert abs(t.value) < 0.3
    assert t.n == 6
    assert t.interval is not None
