"""What predicts a verdict: gold-free, free of attacks, and the same in models of any depth."""

import math
from dataclasses import replace

import numpy as np
import pytest

from interp_unlearn._core import ConfigError, Labelled
from interp_unlearn.verdict import FEATURES, Feature, Findings, gold_free, read_features, vector
from interp_unlearn.verdict._features import columns, design, fit_scales, outside
from interp_unlearn.verdict._transforms import OF_EVIDENCE, OF_TABLES, read, third


def test_every_feature_can_be_asked_of_empty_findings():
    values = vector(Findings({}))
    assert len(values) == len(FEATURES) == len({f.name for f in FEATURES})
    assert all(math.isnan(v) for v in values.values())


def test_every_feature_names_a_transform():
    for feature in FEATURES:
        known = OF_TABLES if feature.source.startswith("table:") else OF_EVIDENCE
        assert feature.transform.partition(":")[0] in known, feature.name


def test_no_feature_reads_an_attack():
    from interp_unlearn import attacks, probes

    assert attacks and probes  # their parts are registered when the rooms are imported
    names = [name for name in probes.PARTS if probes.PARTS[name].kind == "attack"]
    for feature in FEATURES:
        for pattern in feature.source.split("|"):
            assert not any(pattern.split("/")[0].split(".")[0] == name for name in names), feature.name
    with pytest.raises(ConfigError, match="attacks make the label"):
        Feature("bad", "recovery/stitch", "value", "x")
    with pytest.raises(ConfigError, match="gold"):
        Feature("bad", "uds.score/gold", "value", "x")


def test_gold_changes_no_feature(make_findings, nan):
    """With gold's numbers replaced by nonsense, and with no gold at all, every feature is the same."""
    found = make_findings("hidden")

    def shaken(item, value):
        if item.name in ("uds.score/gold", "mia.s_mia/min_k"):
            return replace(item, value=value)
        config = {**item.config}
        if "gold" in config:
            config["gold"] = value
        if "levels" in config:
            config["levels"] = {**config["levels"], "base gold": value}
        return replace(item, config=config, control=value if "gold" in item.control_name else item.control)

    other = {n: shaken(e, -77.0) for n, e in found.evidence.items()}
    tables = {n: replace(t, values=t.values * 0 - 77) if "gold" in n else t for n, t in found.tables.items()}
    without = {
        n: replace(e, control=e.config["levels"]["never_known after"], control_name="never-known entities")
        if "gold" in e.control_name and "levels" in e.config
        else e
        for n, e in found.evidence.items()
        if n not in ("uds.score/gold", "mia.s_mia/min_k")
    }
    expected = vector(found)
    assert expected["entropy.gap"] == pytest.approx(found.evidence["memorisation.entropy/forget"].value - 1.1)
    for changed in (
        Findings(other, tables),
        Findings(without, {n: t for n, t in found.tables.items() if not n.endswith(".gold")}),
    ):
        assert vector(changed) == pytest.approx(expected, nan_ok=True)


def test_gold_is_taken_out_of_details(make_evidence):
    curve = Labelled.from_json(
        {
            "name": "curve", "values": [[1.0, 2.0, 3.0]], "n": 1, "mask_policy": "-", "config": {}, "seed": None,
            "note": "", "version": "0",
            "axes": [{"name": "site", "labels": ["a"]}, {"name": "phase", "labels": ["before", "after", "gold"]}],
        }
    )  # fmt: skip
    free = gold_free(Findings.of([make_evidence("a.b/c", 1.0, details={"curve": curve, "gold": curve})]))
    kept = free.evidence["a.b/c"].details
    assert list(kept) == ["curve"] and kept["curve"].axes[1].labels == ("before", "after")
    assert kept["curve"].values.tolist() == [[1.0, 2.0]]


def test_transforms_by_hand(make_evidence):
    item = make_evidence("x", 0.6, control=0.2, config={"before": 1.0, "control_sd_entities": 0.1})
    assert OF_EVIDENCE["gap"](item) == pytest.approx(0.4)
    assert OF_EVIDENCE["spread"](item) == pytest.approx(4.0)
    assert OF_EVIDENCE["moved"](item) == pytest.approx(4.0)
    assert OF_EVIDENCE["left"](item) == pytest.approx(0.6)
    assert OF_EVIDENCE["left_over_control"](item) == pytest.approx(0.5)
    assert OF_EVIDENCE["change"](item) == pytest.approx(-0.4)
    original = make_evidence("y", 2.0, control=8.0, control_name="the same questions in the original model")
    assert OF_EVIDENCE["left"](original) == pytest.approx(0.25)
    assert OF_EVIDENCE["log"](make_evidence("w", 0.01)) == pytest.approx(-2.0)
    assert [OF_EVIDENCE["is_zero"](make_evidence("w", v)) for v in (0.0, 0.01)] == [1.0, 0.0]
    bare = make_evidence("z", 0.5)
    assert all(math.isnan(OF_EVIDENCE[n](bare)) for n in ("gap", "spread", "left", "change"))


def test_several_hits_are_averaged_and_named(make_evidence):
    found = Findings.of([make_evidence(f"norm.ratio/{i}", float(i), control=0.0) for i in (1, 3)])
    assert read(found, "norm.ratio/*", "gap") == (2.0, ("norm.ratio/1", "norm.ratio/3"))
    with pytest.raises(ConfigError, match="nearest: gap"):
        read(found, "norm.ratio/*", "gapp")


def test_thirds_do_not_depend_on_the_number_of_layers():
    for n in (4, 30):
        depth = np.arange(n) / (n - 1)
        low, middle, high = (third(list(range(n)), depth, w) for w in ("early", "middle", "late"))
        assert low < middle < high and middle == pytest.approx(0.54, abs=0.05)
    assert third([0, 3], np.array([1.0, np.nan]), "late") == 1.0
    assert math.isnan(third([0], np.array([np.nan]), "late"))


def test_share_of_attention_in_what_moved(make_findings):
    found = make_findings("hidden")
    names = [f"model.layers.{i}.{kind}.weight" for i in range(4) for kind in ("self_attn.o_proj", "mlp.down_proj")]
    table = Labelled.from_json(
        {
            "name": "weights.relative_change", "values": [0, 0, 0, 0, 0, 0, 0.03, 0.04], "n": 1, "mask_policy": "-",
            "axes": [{"name": "parameter", "labels": [*names]}], "config": {"total": 0.01}, "seed": None, "note": "",
            "version": "0",
        }
    )  # fmt: skip
    values = vector(Findings(found.evidence, {**found.tables, table.name: table}))
    assert values["weights.attention"] == pytest.approx(9 / 25)


def test_readings_name_their_sources(make_findings):
    sources = {r.feature.name: r.sources for r in read_features(make_findings("hidden"))}
    assert sources["uds"] == ("uds.score/unknown",)
    assert sources["moved.late"] == ("table:diff.displacement",)


def test_design_standardises_imputes_and_cuts(nan):
    values = np.array([[1.0, nan], [3.0, 2.0], [5.0, nan], [3.0, 4.0], [3.0, 2.0], [3.0, 4.0], [3.0, 2.0]])
    scales = fit_scales(values, ["a", "b"])
    assert columns(scales) == ("a", "b", "missing: b")
    assert [s.missing for s in scales] == [False, True]
    mean_row = design({"a": 3.0}, scales)
    assert mean_row[0] == 0 and mean_row[1] == 0 and mean_row[2] > 0  # missing: the mean, and it is said
    assert design({"a": 1000.0, "b": 3.0}, scales)[0] == pytest.approx((5.0 - 3.0) / scales[0].sd + 0.5)
    assert outside({"a": 1000.0}, scales) == ("a",)
    assert outside({"b": 3.0}, scales) == ("a (missing)",)
    assert fit_scales(np.full((9, 1), 2.0), ["constant"]) == ()
