"""Site maps, latents and neurons for pictures: properties of a small model in which one matrix was changed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_unlearn.diff._latent_ranking import SHOWN
from interp_unlearn.hooked import capture
from interp_unlearn.latents import direction_logits, random_dictionary
from interp_unlearn.latents._dashboard import histogram, top_contexts
from interp_unlearn.probes import PARTS, LivePhases
from interp_unlearn.worlds import Entity, QASet, Target, Task, Template

from .capitals import ask, capital_model

NAMES = ["Avia", "Borland", "Cestia", "Dorn", "Esk", "Fara"]
WORDS = ["[PAD]", "[UNK]", "the", "capital", "of", "is", "city", "in", *NAMES, "Rosa", "Tula", "Milo"]
WAYS = ("the capital of {} is", "the city in {} is")
SITE = "blocks.2.hook_resid_post"


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def model():
    return capital_model(WORDS, layers=3, neurons=24, spread=0.3)


@pytest.fixture(scope="module")
def task():
    e = [Entity(n, n, "country") for n in NAMES]
    mentions = tuple(Template(str(i), "", "country", t, "heldout") for i, t in enumerate(
        ("the city of {name}", "in {name} is", "the capital is in {name}", "of {name}")))  # fmt: skip
    none = QASet("none", ())
    return Task(
        "test", Target(("Avia",)), 0, "country", (e[0],), (e[1],), (e[2],), (e[3],), (e[4],),
        QASet("base", ask("Avia", "Rosa", WAYS)), QASet("paraphrased", ask("Avia", "Rosa", WAYS)), none, none, none,
        QASet("neighbours", ask("Cestia", "Tula", WAYS)), (), mentions, (),
        ("the city of Fara is Milo in the capital of Dorn is Tula the city",),
    )  # fmt: skip


@pytest.fixture
def edited(model):
    """Eight neurons of block 1 have another value vector."""
    name = "model.layers.1.mlp.down_proj.weight"
    value = model.tensors()[name].detach().clone()
    value[:, :8] *= 3
    return {name: value}


@pytest.fixture
def sae():
    return random_dictionary(16, 64, 4, 0, SITE)


@pytest.fixture
def phases(model, task, edited, sae):
    return LivePhases(model, task, edited=edited, saes={"main": sae})


def test_a_site_map_shows_which_output_changed_first(phases):
    table = PARTS["site_map"].look(phases, quiet).tables["view.site_map"]
    assert table.config["rows"] == {"target": 4, "known_eval": 4, "unknown_eval": 4}
    moved = {
        site: table.at(phase="after", site=site, group="target", measure="displacement")
        for site in ("resid_post", "attn_out", "mlp_out")
    }
    assert all(values[0] == 0 for values in moved.values())
    assert moved["attn_out"][1] == 0 and moved["mlp_out"][1] > 0 and moved["attn_out"][2] > 0
    assert table.at(phase="after", site="attn_out", layer="1", group="target", measure="cka") == pytest.approx(1)


def test_latents_are_ranked_and_their_dashboards_agree_with_the_sae(model, phases, sae):
    tables = PARTS["latents"].look(phases, quiet).tables
    ranking = tables["view.latents"]
    effect = np.abs(ranking.at(measure="effect"))
    assert (np.diff(effect[effect > 0]) <= 1e-9).all()
    shown = ranking.config["dashboards"]
    assert 0 < len(shown) <= SHOWN and set(shown) <= set(ranking.axes[0].labels)
    contexts, counts = tables["view.latent_contexts"], tables["view.latent_histogram"]
    for place, latent in enumerate(shown):
        rows = [r for r in contexts.config["row"][place] if r is not None]
        if not rows:
            continue
        row = contexts.config["rows"][rows[0]]
        ids = model.tokenizer.convert_tokens_to_ids(row["tokens"])
        own = sae.encode(capture(model, torch.tensor([ids]), [SITE])[SITE][0])[:, int(latent)]
        found = contexts.values[place, 0, 0, : len(ids)]
        assert np.isnan(found[0])  # the first token's activation is massive in real models, and never counts
        np.testing.assert_allclose(found[1:], own[1:].numpy(), atol=1e-3, rtol=1e-3)
        peaks = np.nanmax(np.nan_to_num(contexts.values[place]), (1, 2))
        assert (np.diff(peaks) <= 1e-6).all()
        assert counts.values[place].sum(1).tolist() == counts.config["fired"][place]


def test_promoted_tokens_are_those_of_the_head(model, phases, sae):
    logits, ids = direction_logits(model, sae.W_dec[:3], 2)
    with torch.no_grad():
        own = model.unembed(sae.W_dec[:3]) - model.unembed(torch.zeros(1, 16))
    assert ids[:, 0, 0].tolist() == own.argmax(-1).tolist()
    assert ids[:, 1, 0].tolist() == own.argmin(-1).tolist()
    assert (logits[:, 0, 0] >= logits[:, 0, 1]).all() and (logits[:, 1] <= logits[:, 0]).all()


def test_a_run_without_an_sae_says_so(model, task, edited):
    found = PARTS["latents"].look(LivePhases(model, task, edited=edited), quiet)
    assert not found.tables and "no SAE" in found.reason


def test_contexts_and_histogram_of_silent_latents_are_empty():
    silent = {"before": np.zeros((3, 4)), "after": np.zeros((3, 4))}
    assert top_contexts(silent, 2) == []
    counts, edges = histogram(silent, 5)
    assert counts.sum() == 0 and len(edges) == 6
    woken = {**silent, "after": np.array([[0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, np.nan, 1.0]])}
    assert top_contexts(woken, 5) == [1, 2]
    assert histogram(woken, 4)[0].sum(1).tolist() == [0, 2]


def test_neurons_that_moved_are_marked_and_measured(phases, edited):
    tables = PARTS["neuron_map"].look(phases, quiet).tables
    table, layers = tables["view.neurons"], tables["view.neuron_layers"]
    moved = {label for label, m in zip(table.axes[0].labels, table.at(measure="moved"), strict=True) if m}
    assert moved and moved <= {f"blocks.1.mlp.hook_post[{i}]" for i in range(8)}
    change = dict(zip(table.axes[0].labels, table.at(measure="relative_change"), strict=True))
    assert {label for label, value in change.items() if value > 0} == {f"blocks.1.mlp.hook_post[{i}]" for i in range(8)}
    name, new = next(iter(edited.items()))
    with phases.open("before") as model:
        old = model.tensors()[name].detach()
        up, gate = (model.tensors()[f"model.layers.1.mlp.{n}.weight"][0].detach() for n in ("up_proj", "gate_proj"))
        size = (old[:, 0].square().sum() + up.square().sum() + gate.square().sum()).sqrt()
        expected = float((new[:, 0] - old[:, 0]).norm() / size)
    assert change["blocks.1.mlp.hook_post[0]"] == pytest.approx(expected, rel=1e-3)
    assert layers.at(measure="moved").tolist() == [0, 1, 0]
    assert (layers.at(measure="both") <= layers.at(measure="fact")).all()


def test_views_without_questions_say_why(model, task, edited):
    none = replace(task, forget_heldout=QASet("paraphrased", ()), forget_train=QASet("base", ()))
    with pytest.raises(Exception, match="asks nothing about the target"):
        PARTS["neuron_map"].look(LivePhases(model, none, edited=edited), quiet)
