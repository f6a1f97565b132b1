"""Token maps and lens grids: what the parts for pictures save of a few prompts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_unlearn._core import DataError, Labelled
from interp_unlearn.probes import PARTS, LivePhases, prompt_states, read_grid, token_map, view_prompts
from interp_unlearn.probes._view import rounded
from interp_unlearn.worlds import QASet


def quiet(*_):
    pass


@pytest.fixture
def edited(model):
    """The MLP of block 1 differs."""
    name = "model.layers.1.mlp.down_proj.weight"
    value = model.tensors()[name].detach()
    return {name: value + 0.5 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))}


@pytest.fixture
def phases(model, task, edited):
    return LivePhases(model, task, edited=edited)


def test_states_are_those_of_the_prompt_alone_and_mark_the_name(model, task):
    prompts = task.forget_heldout.prompts
    found = prompt_states(model, prompts)
    for row, prompt in enumerate(prompts):
        batch = model.batch([prompt.text])
        length = int(found.lengths[row])
        assert found.tokens[row, :length].tolist() == batch.tokens[0].tolist()
        assert (found.states[row, :, length:] == 0).all()
        start, end = found.name[row].tolist()
        assert (
            prompt.text[batch.offsets[0][start][0] : batch.offsets[0][end][1]].strip()
            == prompt.text[15:].split(" is")[0]
        )
        with torch.no_grad():
            own = model.forward(batch)[0, -1]
        torch.testing.assert_close(model.unembed(found.states[row, -1, length - 1]), own, rtol=1e-4, atol=1e-4)


def test_a_token_map_is_one_where_nothing_moved_and_starts_where_the_edit_is(model, task, phases):
    found = PARTS["token_map"].look(phases, quiet)
    assert not found.evidence
    table = found.tables["view.token_map"]
    before, after = (pick_phase(table, phase) for phase in ("before", "after"))
    here = ~np.isnan(before[..., 0])
    np.testing.assert_allclose(before[here][:, 1:], np.tile([1.0, 0.0, 0.0], (here.sum(), 1)), atol=1e-6)
    assert np.isnan(before[0, 0, len(table.config["prompts"][0]["tokens"]) :]).all()
    displacement = after[..., 3]
    assert np.nanmax(displacement[:, 0]) == 0
    assert np.nanmin(displacement[:, 1]) > 0
    np.testing.assert_allclose(after[..., 1], after[..., 0] / before[..., 0], rtol=1e-3, equal_nan=True)
    assert Labelled.from_json(table.to_json()).config["prompts"] == table.config["prompts"]


def pick_phase(table, phase):
    return table.values[:, table.axes[1].labels.index(phase)]


def test_the_last_layer_of_a_grid_is_what_the_model_says(model, task):
    prompt = task.forget_heldout.prompts[0]
    grid = read_grid(model, prompt_states(model, [prompt]))
    with torch.no_grad():
        own = model.forward(model.batch([prompt.text]))[0].softmax(-1)
    assert grid["top"][0, -1].tolist() == own.argmax(-1).tolist()
    np.testing.assert_allclose(grid["values"][0, -1, :, 0], own.max(-1).values, atol=1e-5)
    np.testing.assert_allclose(grid["next"][0].exp(), own[-1], atol=1e-5)
    answer = prompt_states(model, [prompt]).answer[0]
    assert grid["values"][0, -1, -1, 2] == 1 + int((own[-1] > own[-1, answer]).sum())


def test_a_broken_model_has_no_rank(model, task):
    states = prompt_states(model, task.forget_heldout.prompts[:1])
    broken = replace(states, states=states.states * torch.nan)
    assert read_grid(model, broken)["values"].isnan().all()


def test_next_tokens_are_shown_in_every_phase(model, task, phases):
    tables = PARTS["lens_grid"].look(phases, quiet).tables
    table, grid = tables["view.next_tokens"], tables["view.lens_grid"]
    tokens = table.config["tokens"][0]
    assert 8 <= len(tokens) <= 16
    values = table.values[0, :, : len(tokens)]
    assert np.isfinite(values).all() and np.isnan(table.values[0, :, len(tokens) :]).all()
    largest = values.max(0)
    assert (np.diff(largest) <= 0).all()
    last = len(table.config["prompts"][0]["tokens"]) - 1
    for p in range(len(phases.names)):
        top = grid.config["top_tokens"][0][p][-1][last]
        assert tokens[int(values[p].argmax())] == top
        assert grid.values[0, p, -1, last, 0] == pytest.approx(values[p].max(), rel=1e-4)


def test_what_was_read_is_kept_with_its_phase(phases):
    reads = []
    once = phases.once

    def counted(phase, name, measure):
        return once(phase, name, lambda model: reads.append((phase, name)) or measure(model))

    phases.once = counted
    for part in ("token_map", "lens_grid", "token_map"):
        PARTS[part].look(phases, quiet)
    assert len(reads) == len(set(reads)) == 2


def test_a_task_without_questions_says_so(model, task):
    none = replace(task, forget_heldout=QASet("paraphrased", ()), forget_train=QASet("base", ()))
    with pytest.raises(DataError, match="asks nothing about its target"):
        view_prompts(none)


def test_token_maps_of_several_prompts_do_not_mix(model, task):
    prompts = task.forget_heldout.prompts
    both = prompt_states(model, prompts)
    for row, prompt in enumerate(prompts):
        alone = prompt_states(model, [prompt])
        length = int(alone.lengths[0])
        torch.testing.assert_close(both.states[row, :, :length], alone.states[0], rtol=1e-4, atol=1e-4)
    same = token_map({"before": both, "after": both})
    assert float(same[:, 1, ..., 3].nan_to_num().abs().max()) == 0


def test_rounding_keeps_digits_and_gaps():
    values = np.array([0.0, 123456.0, -0.000123456, np.nan, np.inf, 1.0])
    np.testing.assert_allclose(rounded(values)[[0, 1, 2, 5]], [0, 123460, -0.00012346, 1])
    assert np.isnan(rounded(values)[3]) and np.isinf(rounded(values)[4])
