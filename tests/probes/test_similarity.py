import numpy as np
import pytest
import torch

from interp_unlearn.probes import pca_direction, pca_shift, similarity

from .conftest import SITE, SITES, changed, make_mentions


def by_kind(found):
    return {e.name.split("/")[0].split(".")[1]: e for e in found}


def move(acts, change, groups=("target",), site=SITE):
    """Apply ``change`` to the rows of some groups."""
    rows = torch.tensor(np.isin(acts.labels["group"], groups))
    x = acts[site].clone()
    x[rows] = change(x[rows])
    return changed(acts, {site: x})


def test_shift_and_direction_by_hand():
    x = np.array([[-2.0, 0, 0.1], [2, 0, -0.1], [0, 1, 0], [0, -1, 0]])
    spread = np.sqrt(8 / 3)  # along the first axis
    assert pca_shift(x, x + np.eye(3)[0]) == pytest.approx(1 / spread, rel=1e-2)
    assert pca_shift(x, x + 5 * np.eye(3)[2]) < 0.3  # outside the plane
    assert pca_direction(x, -x) == pytest.approx(1)  # the sign is arbitrary
    assert pca_direction(x, x[:, [1, 0, 2]]) < 0.1
    assert np.isnan(pca_shift(np.ones((4, 3)), x[:, :3]))


def test_nothing_changed():
    acts = make_mentions(targets=6, templates=4)
    found = by_kind(similarity(acts, acts, SITES))
    assert found["cka"].value == pytest.approx(1) == found["cka"].control
    assert found["pca_shift"].value == pytest.approx(0)
    assert found["pca_direction"].value == pytest.approx(1)
    assert found["cka"].name == "similarity.cka/prompt"


def test_a_changed_target_stands_out_from_neighbours():
    acts = make_mentions(targets=6, templates=4)
    rng = torch.Generator().manual_seed(0)
    noise = move(acts, lambda x: torch.randn(x.shape, generator=rng) * 3)
    found = by_kind(similarity(acts, noise, [SITE]))
    assert found["cka"].value < 0.4 and found["cka"].control == pytest.approx(1)
    assert found["cka"].interval[1] < 0.9
    shifted = by_kind(similarity(acts, move(acts, lambda x: x + 5), [SITE], plane="pooled"))
    assert shifted["pca_shift"].value > 0.5 and shifted["pca_shift"].control == pytest.approx(0)
    assert shifted["cka"].value == pytest.approx(1)  # a shift leaves geometry as it is


def test_a_rotation_of_everything_keeps_geometry_and_turns_directions():
    acts = make_mentions(targets=6, templates=4)
    turn = torch.tensor(np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0], dtype=torch.float32)
    found = by_kind(similarity(acts, changed(acts, {SITE: acts[SITE] @ turn}), [SITE]))
    assert found["cka"].value == pytest.approx(1, abs=1e-3)
    assert found["pca_direction"].value < 0.9
    curve = found["cka"].details["layers"]
    assert curve.axes[1].labels == ("target", "neighbours")


def test_one_target_is_compared_with_single_neighbours_and_gold_is_noted():
    acts = make_mentions(targets=1, templates=6)
    found = by_kind(similarity(acts, acts, [SITE], gold=make_mentions(targets=1, templates=6, seed=4)))
    assert found["cka"].config["neighbour_sets"] == 14
    assert found["cka"].config["gold"] < 0.9
    assert "gold" not in found["pca_shift"].config


def test_too_few_rows_and_broken_models_are_refused():
    few = make_mentions(targets=1, templates=3)
    assert all("3 rows about the target" in e.reason for e in similarity(few, few, [SITE]))
    acts = make_mentions(targets=2, templates=4)
    assert all("broken" in e.reason for e in similarity(acts, move(acts, lambda x: x * torch.nan), [SITE]))
    flat = by_kind(similarity(acts, move(acts, torch.zeros_like), [SITE]))
    assert "do not vary" in flat["cka"].reason
