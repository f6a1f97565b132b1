"""Accuracies by group of a forgotten class, and the membership attack."""

import numpy as np
import pytest

from interp_unlearn.benchmarks import ShapesConfig, coloured_shapes, image_task
from interp_unlearn.metrics import bias_table, membership_share


@pytest.fixture(scope="module")
def task():
    return image_task(
        coloured_shapes(ShapesConfig(aligned=0.5, per_class=8, test_per_class=8, never=0, size=16)), "ring"
    )


def test_groups_gap_and_the_group_forgotten_least(task):
    aligned = np.array([b == "aligned" for b in task.forget_heldout.groups["bias"]])
    correct = {"forget_heldout": np.where(aligned, 0.0, 1.0), "neighbours": np.full(len(task.neighbours), 0.25)}
    correct["forget_heldout"][np.flatnonzero(~aligned)[:1]] = 0.0
    table = bias_table(correct, task, "after")
    at = lambda q: float(table.at(split="test", quantity=q))  # noqa: E731
    assert at("forget aligned") == 0
    assert at("forget conflicting") == pytest.approx(0.75)
    assert at("gap") == pytest.approx(0.75)
    assert at("worst group") == pytest.approx(0.75)
    assert at("kept") == pytest.approx(0.25)
    assert np.isnan(table.at(split="train")).all()


def test_membership_calls_members_what_looks_like_them():
    rng = np.random.default_rng(0)
    member, outsider = rng.normal(0, 1, (200, 3)), rng.normal(4, 1, (200, 3))
    share, accuracy = membership_share(member, outsider, rng.normal(0, 1, (50, 3)), seed=0)
    assert share > 0.95
    assert accuracy > 0.95
    share, _ = membership_share(member, outsider, rng.normal(4, 1, (50, 3)), seed=0)
    assert share < 0.05
    _, accuracy = membership_share(member, rng.normal(0, 1, (200, 3)), member[:5], seed=0)
    assert 0.3 < accuracy < 0.7
