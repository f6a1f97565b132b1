"""Figures of the tables that runs save for pictures: what they draw, and that text from outside stays text."""

import json

import numpy as np
import pytest

from interp_unlearn.report import plots

from .views import saved_views, view

EVIL = "<script>alert(1)</script>"
DRAWN = {
    "token_map": lambda t: plots.token_map(t["view.token_map"]),
    "lens_grid": lambda t: plots.lens_grid(plots.prompt_slice(t["view.lens_grid"], 0, "after"), "npo"),
    "next_token_bars": lambda t: plots.next_token_bars(t["view.next_tokens"]),
    "site_map": lambda t: plots.site_map(t["view.site_map"]),
    "latent_ranking": lambda t: plots.latent_ranking(t["view.latents"], latent="12"),
    "latent_histogram": lambda t: plots.latent_histogram(t["view.latent_histogram"], "7"),
    "latent_logits": lambda t: plots.latent_logits(t["view.latent_logits"], "7"),
    "latent_contexts": lambda t: plots.latent_contexts(t["view.latent_contexts"], "12"),
    "neuron_map": lambda t: plots.neuron_map(t["view.neurons"]),
    "neuron_layers": lambda t: plots.neuron_layers(t["view.neuron_layers"]),
}


@pytest.fixture(scope="module")
def tables():
    return saved_views()


@pytest.mark.parametrize("name", DRAWN)
def test_names_from_outside_stay_text(name):
    figure = DRAWN[name](saved_views(EVIL))
    text = json.dumps(figure.to_plotly_json(), default=lambda v: np.asarray(v).tolist())
    assert "<script" not in text
    assert figure.layout.title.text and figure.layout.height


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_take_a_ground(name, theme, tables):
    clear, themed = DRAWN[name](tables), plots.themed(DRAWN[name](tables), theme)
    assert themed.layout.paper_bgcolor == plots.THEMES[theme]["paper_bgcolor"] and clear.layout.paper_bgcolor is None
    assert themed.data == clear.data


def test_an_unknown_theme_is_refused(tables):
    with pytest.raises(ValueError, match="not one of clear, light, dark"):
        plots.themed(DRAWN["site_map"](tables), "solar")


def test_a_prompt_is_cut_out_without_the_cells_beyond_its_end(tables):
    cut = plots.prompt_slice(tables["view.token_map"], 1)
    assert [a.name for a in cut.axes] == ["phase", "layer", "position", "measure"]
    assert cut.axes[2].labels == ("0:  Japan", "1:  is")
    assert np.isfinite(cut.values).all()
    grid = plots.prompt_slice(tables["view.lens_grid"], 1, "gold")
    assert [len(row) for row in grid.config["top_tokens"]] == [2] * 4
    assert grid.config["prompt"] == "Japan is"
    with pytest.raises(ValueError, match="no phase 'later'"):
        plots.prompt_slice(tables["view.lens_grid"], 0, "later")
    assert plots.prompt_choices(tables["view.token_map"]) == {
        0: "target: The capital of Japan is",
        1: "neighbour: Japan is",
    }


def test_a_token_map_frames_the_name_and_shares_its_scale(tables):
    figure = plots.token_map(tables["view.token_map"], phases=("after", "gold"))
    assert len(figure.data) == 2 and {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(2.5, 3.5)] * 2
    values = tables["view.token_map"].values[0, 1:, :, :, 2]
    assert figure.layout.coloraxis.cmax == pytest.approx(values.max())
    around = plots.token_map(tables["view.token_map"], measure="norm_drift").layout.coloraxis
    assert around.cmax - 1 == pytest.approx(1 - around.cmin)
    assert not plots.token_map(tables["view.token_map"], 1).layout.shapes


def test_the_answer_is_bold_wherever_the_lens_reads_it(tables):
    heat = plots.lens_grid(plots.prompt_slice(tables["view.lens_grid"], 0, "before")).data[0]
    assert heat.text[0][4] == "<b>Tokyo</b>" and heat.text[0][0] == "w0"
    labels = plots.next_token_bars(tables["view.next_tokens"]).layout.yaxis.ticktext
    assert [label.startswith("<b>") for label in labels] == [True, False, False]


def test_groups_without_rows_have_no_panel(tables):
    figure = plots.site_map(tables["view.site_map"], "cka", groups=("target", "nobody"))
    assert len(figure.data) == 1 and list(figure.data[0].y) == ["residual stream", "attention output", "MLP output"]


def test_neurons_are_marked_by_what_they_hold_and_whether_they_moved(tables):
    names = [trace.name for trace in plots.neuron_map(tables["view.neurons"]).data]
    assert names == ["moved most", "holds the fact", "holds the fact and moved most"]
    chance = plots.neuron_layers(tables["view.neuron_layers"]).data[-1]
    assert list(chance.y) == pytest.approx([0.1] * 4)


def test_contexts_leave_out_empty_places(tables):
    heat = plots.latent_contexts(tables["view.latent_contexts"], "7").data[0]
    assert np.shape(heat.z) == (2, 5)
    assert list(heat.text[0]) == ["The", "capital", "of", "Japan", "is"] and heat.text[1][3] == ""


def test_promoted_tokens_stand_on_top(tables):
    figure = plots.latent_logits(tables["view.latent_logits"], "7")
    assert list(figure.layout.yaxis.ticktext) == ["low", "down", "Japan", "up"]


def test_attacks_are_drawn_beside_facts_that_were_never_known():
    values = [[[0.1, 0.0, 0.2, 0.1], [0.6, 0.5, 0.8, 0.5]], [[0.1, 0.0, 0.2, 0.1], [0.1, 0.0, 0.3, 0.1]]]
    table = view(
        "attack", values, group=("target", "never known"), setting=("none", "int4"),
        quantity=("recall", "low", "high", "probability"),
    )  # fmt: skip
    target, control = plots.attack_levels(table, "Quantising").data
    assert (target.name, control.name) == ("target", "never known")
    assert list(target.error_y.array) == pytest.approx([0.1, 0.2])
    assert target.line.color != control.line.color
    assert plots.attack_levels(table, "x", quantity="probability").data[0].error_y.array is None
