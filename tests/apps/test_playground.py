"""The playground: both models of a run asked, and the edited one changed while it answers."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from explorer.playground import Models, _models
from explorer.playground_model import AFTER, BEFORE, EDITED, Change, Opened, generate, latents, lens, next_tokens

from interp_unlearn.runs import RunFolder, RunPhases, saved_config

PROMPT = "to see Dogola travel to"


@pytest.fixture(scope="module")
def opened(gallery) -> Opened:
    out = RunFolder.open(gallery.real)
    config = saved_config(out)
    return Opened(RunPhases(config, out, gallery.bench), config.name, gallery.bench.model)


def phase(table, name: str) -> np.ndarray:
    return table.at(prompt=PROMPT, phase=name)


def test_next_tokens_are_those_of_both_models(opened):
    table = next_tokens(opened, PROMPT)
    assert [axis.labels for axis in table.axes][1] == (BEFORE, AFTER)
    assert (phase(table, BEFORE) != phase(table, AFTER)).any()
    with opened.phase(BEFORE) as model, torch.no_grad():
        best = model(PROMPT)[0, -1].softmax(-1).max()
    assert np.isclose(phase(table, BEFORE).max(), float(best), rtol=1e-5)


def test_the_original_at_the_last_layer_brings_its_answer_back(opened):
    last = len(opened.tokens(PROMPT)) - 1
    site = f"blocks.{opened.model.lm.n_layers - 1}.hook_resid_post"
    table = next_tokens(opened, PROMPT, Change("patch", site, last))
    moved = np.abs(phase(table, EDITED) - phase(table, BEFORE)).sum()
    assert moved < np.abs(phase(table, AFTER) - phase(table, BEFORE)).sum()


def test_steering_by_the_whole_difference_is_patching(opened):
    change = {"site": "blocks.0.hook_resid_post", "token": 3}
    patched = next_tokens(opened, PROMPT, Change("patch", **change))
    steered = next_tokens(opened, PROMPT, Change("steer", strength=1.0, **change))
    np.testing.assert_allclose(phase(steered, EDITED), phase(patched, EDITED), atol=1e-5)


def test_ablation_changes_the_answer_and_is_undone(opened):
    before = next_tokens(opened, PROMPT)
    table = next_tokens(opened, PROMPT, Change("ablate", "blocks.0.hook_resid_post", len(opened.tokens(PROMPT)) - 1))
    assert not np.allclose(phase(table, EDITED), phase(table, AFTER))
    np.testing.assert_array_equal(next_tokens(opened, PROMPT).values, before.values)


def test_texts_lens_and_latents(opened):
    texts = generate(opened, PROMPT, 3, Change("ablate", "blocks.0.hook_resid_post", 1))
    assert set(texts) == {BEFORE, AFTER, EDITED}
    grids = lens(opened, PROMPT)
    assert grids[BEFORE].axes == grids[AFTER].axes
    assert len(grids[BEFORE].axes[1].labels) == len(opened.tokens(PROMPT))
    fired = latents(opened, PROMPT, 2, top=5)
    assert fired[BEFORE].axes == fired[AFTER].axes
    assert len(fired[BEFORE].axes[0].labels) == 5


def test_sites_begin_with_the_residual_stream(opened):
    assert opened.sites()[0] == "blocks.0.hook_resid_post"


def test_the_page_asks_both_models(opened, gallery, monkeypatch):
    """Loading reports progress once; whatever is clicked afterwards asks the models that are loaded."""
    from streamlit.testing.v1 import AppTest

    told = []

    def open_run(_path, progress):
        told.append(progress("loading the model", 1, 2))
        return opened

    monkeypatch.setattr("explorer.playground_model.open_run", open_run)
    _models.clear()
    script = "from pathlib import Path; from explorer.playground import show; show(Path({!r}))"
    test = AppTest.from_string(script.format(str(gallery.root)))
    test.query_params["run"] = "tiny/ga"
    test.run(timeout=120)
    test.button[0].click().run(timeout=120)
    assert not test.exception and not test.button
    for what in ("Text", "Lens", "Latents"):
        test.query_params["show"] = what
        test.run(timeout=120)
        assert not test.exception, what
    assert test.text_area[0].value
    assert len(told) == 1
    _models.clear()


def test_only_the_last_models_stay_in_memory(monkeypatch):
    loaded = []
    monkeypatch.setattr("explorer.playground_model.open_run", lambda path, _progress: loaded.append(path.name))
    models = Models()
    for name in ("a", "b", "a", "c", "a", "b"):
        models.open(SimpleNamespace(path=Path(name), stamp=(1,)), print)
    assert loaded == ["a", "b", "c", "b"]
