"""Figures: what they draw, that colours stay with their names, and that text from outside stays text."""

import math

import numpy as np
import pytest

from interp_unlearn._core import Axis, Evidence, Labelled
from interp_unlearn.report import plots
from interp_unlearn.report.plots import layer_of, pick, split_module, styles


def table(values, n=7, policy="content", config=None, name="x", **axes):
    shape = tuple(Axis(k, tuple(v)) for k, v in axes.items())
    return Labelled(name, np.asarray(values, dtype=float), shape, n=n, mask_policy=policy, config=config or {})


def by_name(figure):
    return {trace.name: trace for trace in figure.data}


def test_reserved_words_and_methods_keep_their_styles():
    alone = styles(["npo"], methods=["ga", "npo"])
    both = styles(["original", "npo", "ga", "gold"], methods=["ga", "npo"])
    assert alone["npo"] == both["npo"]
    assert both["original"] == styles(["original"])["original"] == plots.RESERVED["original"]
    assert len({(s.colour, s.symbol) for s in both.values()}) == 4
    many = styles([f"m{i}" for i in range(12)])
    assert len({(s.colour, s.dash, s.symbol) for s in many.values()}) == 12


@pytest.mark.parametrize(
    ("label", "layer", "module"),
    [
        ("blocks.12.hook_resid_post", 12, "hook_resid_post"),
        ("model.layers.3.mlp.down_proj.weight", 3, "mlp.down_proj"),
        ("transformer.h.0.attn.c_attn.bias", 0, "attn.c_attn.bias"),
        ("model.embed_tokens.weight", None, "model.embed_tokens"),
        ("7", 7, ""),
    ],
)
def test_layers_are_found_in_names(label, layer, module):
    assert layer_of(label) == layer
    assert split_module(label) == (layer, module)


def test_pick_keeps_the_facts():
    whole = table([[1, 2], [3, 4]], policy="inner", row=("a", "b"), column=("x", "y"))
    part = pick(whole, "row", "b")
    assert part.values.tolist() == [3, 4]
    assert (part.n, part.mask_policy, part.axes) == (7, "inner", whole.axes[1:])


def test_layer_curves_sort_by_layer_and_show_n_and_mask():
    curve = table([3, 1, 2], site=("blocks.10.a", "blocks.0.a", "blocks.2.a"))
    figure = plots.layer_curves({"before": curve, "npo": curve}, "Title", "y", forgotten="Forgotten: low.")
    trace = by_name(figure)["npo"]
    assert list(trace.x) == [0, 2, 10]
    assert list(trace.y) == [1, 2, 3]
    assert "n = 7" in trace.hovertemplate
    assert "tokens: content" in trace.hovertemplate
    assert figure.layout.title.text == "Title"
    assert figure.layout.title.subtitle.text == "Forgotten: low."


def test_bands_lie_around_the_middle():
    middle = table([1, 1], layer=("0", "1"))
    low, high = table([0.5, 0.5], layer=("0", "1")), table([1.5, 1.5], layer=("0", "1"))
    figure = plots.layer_curves({"unknown": middle}, "t", "y", bands={"unknown": (low, high)})
    assert list(figure.data[0].y) == [1.5, 1.5, 0.5, 0.5]


def test_scatter_reads_groups_from_config_or_from_labels():
    values = [[0.1, 0.9], [0.0, 1.0], [1.0, 1.1]]
    groups = ("target", "known_eval", "unknown_eval")
    labelled = table(values, mention=[f"{g}|e|t" for g in groups], coordinate=("t", "r"))
    config = table(values, config={"groups": groups}, mention=("m0", "m1", "m2"), value=("t", "r"))
    for data in (labelled, config):
        figure = plots.alignment_scatter({"original": data, "npo": data})
        traces = by_name(figure)
        assert list(traces["known entities"].x) == [0.0]
        assert list(traces["unknown entities"].y) == [1.1]
        assert list(traces["target, npo"].x) == [0.1]
    assert traces["target, npo"].marker.color == styles(["npo"])["npo"].colour


def test_lens_curves_average_over_prompts():
    data = table(np.arange(8).reshape(2, 2, 2), prompt=("a", "b"), layer=("0", "1"), measure=("logprob", "rank"))
    figure = plots.lens_curves({"before": data}, "forget")
    assert list(figure.data[0].y) == [2.0, 4.0]


def test_lens_grid_shows_tokens_and_probabilities():
    config = {"top_tokens": [["a", "<b>"], ["c", "\n"]], "prompt": "x y"}
    data = table(
        [[[0.1, 0], [0.2, 0]], [[0.3, 0], [0.4, 0]]],
        config=config,
        layer="01",
        position=("0: x", "1: y"),
        measure=("top", "answer"),
    )
    heat = plots.lens_grid(data, "npo").data[0]
    assert np.asarray(heat.z).tolist() == [[0.1, 0.2], [0.3, 0.4]]
    assert list(heat.text[0]) == ["a", "&lt;b&gt;"]
    assert heat.text[1][1] == "↵"
    assert (heat.zmin, heat.zmax) == (0, 1)


def test_weight_map_places_layers_and_what_lies_outside():
    names = ("model.layers.1.mlp.down_proj.weight", "model.layers.0.mlp.down_proj.weight", "model.norm.weight")
    heat = plots.weight_map(table([0.1, 0.2, 0.3], policy="-", module=names), "npo").data[0]
    assert list(heat.y) == ["0", "1", "other"]
    assert list(heat.x) == ["mlp.down_proj", "model.norm"]
    grid = np.asarray(heat.z)
    assert (grid[0, 0], grid[1, 0], grid[2, 1]) == (0.2, 0.1, 0.3)
    assert np.isnan(grid[0, 1])
    assert "tokens" not in heat.hovertemplate


def test_drift_has_one_colour_per_method_and_one_dash_per_group():
    data = table([[1, 0], [2, 0]], site=("blocks.0.x", "blocks.1.x"), group=("target", "known_eval"))
    traces = by_name(plots.drift_curves({"ga": data, "npo": data}, "t", "y"))
    assert set(traces) == {"ga", "npo", "ga, neighbours", "npo, neighbours", "neighbours"}
    assert [name for name, t in traces.items() if t.showlegend is not False] == ["ga", "npo", "neighbours"]
    target, bystander = (
        next(t for name, t in traces.items() if name.startswith("ga") and ("neighbours" in name) is not yes)
        for yes in (True, False)
    )
    assert target.line.color == bystander.line.color
    assert target.line.dash != bystander.line.dash


def test_relearning_steps_are_numbers():
    data = table([0, 0.5], step=("0", "16"))
    figure = plots.relearn_curves({"original": data, "npo": data}, controls={"npo": data})
    assert list(figure.data[0].x) == [0.0, 16.0]
    traces = by_name(figure)
    assert traces["control, npo"].line.color == traces["npo"].line.color
    assert traces["control, npo"].line.dash == "dot"


def test_features_that_moved_are_bars_with_other_groups_as_marks():
    values = np.arange(12).reshape(3, 2, 2)
    data = table(values, latent=("7", "1", "4"), group=("target", "known_eval"), statistic=("mean_after", "effect"))
    figure = plots.feature_changes(data, "npo", top=2)
    bars, marks = figure.data
    assert (list(bars.x), list(bars.y)) == ([1, 5], ["7", "1"])
    assert list(marks.x) == [3, 7]
    assert "latents" in figure.layout.title.text.lower()


def test_training_draws_every_term_and_skips_what_is_no_number():
    events = [{"kind": "step", "step": i, "loss": 1.0 / i, "forget": 2.0, "note": "x", "ok": True} for i in (1, 2, 3)]
    figure = plots.training_curves([*events, {"kind": "eval", "step": 2, "exact": 0.5}], "npo")
    assert [t.name for t in figure.data] == ["loss", "forget"]
    points = plots.evaluation_curves({"npo": [{"kind": "eval", "step": 2, "exact": 0.5}]}, "exact")
    assert list(points.data[0].y) == [0.5]


def test_behaviour_dots_carry_intervals_and_counts():
    data = table([[0.5], [0.9]], config={"n": {"a": 3, "b": 4}}, set=("a", "b"), metric=("exact",))
    bounds = table([[[0.4, 0.7]], [[0.8, 1.0]]], set=("a", "b"), metric=("exact",), bound=("low", "high"))
    trace = plots.behaviour_dots({"npo": data}, "exact", intervals={"npo": bounds}).data[0]
    assert list(trace.x) == [0.5, 0.9]
    assert trace.error_x.array == pytest.approx([0.2, 0.1])
    assert trace.error_x.arrayminus == pytest.approx([0.1, 0.1])
    assert trace.customdata[1][1] == 4


def test_latent_bars_mark_real_entities():
    data = table([0.1, 0.9], latent=("12", "7"))
    figure = plots.latent_bars({"before": data, "npo": data}, "known", references={"known": data, "unknown": data})
    assert [t.type for t in figure.data] == ["bar", "bar", "scatter", "scatter"]
    assert figure.layout.xaxis.type == "category"


def test_evidence_dots_show_value_interval_control_original_and_gold():
    facts = {"question": "?", "direction": "near control", "n": 3, "mask_policy": "content", "does_not_show": "…"}
    item = Evidence(
        name="a.b/c", value=0.5, interval=(0.4, 0.8), control=0.2, config={"before": 0.0, "gold": 0.25}, **facts
    )
    empty = Evidence(name="a.b/c", value=math.nan, reason="why", **facts)
    traces = by_name(plots.evidence_dots({"c": {"npo": item, "ga": empty}}))
    assert list(traces["npo"].x) == [0.5]
    assert traces["npo"].error_x.array == pytest.approx([0.3])
    assert list(traces["control"].x) == [0.2]
    assert list(traces["gold"].x) == [0.25]
    assert "ga" not in traces


def test_generic_pictures():
    assert plots.generic(table([1, 2], step=("1", "10"))).data[0].type == "scatter"
    assert plots.generic(table([1, 2], kind=("a", "b"))).data[0].type == "bar"
    heat = plots.generic(table([[1, 2]], row="r", column=("a", "b"))).data[0]
    assert (heat.type, list(heat.x), heat.texttemplate) == ("heatmap", ["a", "b"], "%{z:.3g}")
    upright = plots.generic(table([[1, 2]], row="r", column=("a name that is long", "b"))).data[0]
    assert list(upright.y) == ["a name that is long", "b"]
    assert np.asarray(upright.z).tolist() == [[1], [2]]
    with pytest.raises(ValueError, match="needs one or two"):
        plots.generic(table([[[1]]], a="1", b="2", c="3"))
    with pytest.raises(ValueError, match="needs one or two"):
        plots.generic(Labelled("x", np.asarray(1.0), (), n=1, mask_policy="-"))


def test_text_from_outside_is_escaped_in_titles_and_names():
    evil = "<a href='https://evil.example'>x</a>"
    figure = plots.layer_curves({evil: table([1, 2], layer=("0", "1"))}, evil, "y")
    assert "<a" not in figure.to_json()
