"""Figures of image runs from saved tables."""

import dataclasses

import numpy as np
import pytest

from interp_unlearn._core import Axis, Labelled
from interp_unlearn.report import plots
from interp_unlearn.report._images import partition_sentence


def table(name, shape, **axes):
    labels = [Axis(key, tuple(str(v) for v in values)) for key, values in axes.items()]
    return Labelled(name, np.random.default_rng(0).random(shape), tuple(labels), n=3, mask_policy="items")


QUANTITIES = ("forget", "forget aligned", "forget conflicting", "gap", "worst group", "kept")


def test_bars_show_each_group_of_each_model():
    bias = table("bias", (2, 6), split=("train", "test"), quantity=QUANTITIES)
    figure = plots.group_bars({"original": bias, "cupid": bias}, "test", methods=["cupid"])
    assert [trace.name for trace in figure.data] == ["original", "cupid"]
    assert list(figure.data[0].y) == pytest.approx([bias.at(split="test", quantity=q) for q in plots._images.BARS])


def test_the_checks_of_the_partition_are_drawn_and_said():
    checks = {"spearman_loss": 0.995, "spearman_gradient_norm": float("nan"), "auc_conflicting": 0.61}
    found = dataclasses.replace(
        table("cupid.partition", (3, 2), item="abc", quantity=("loss", "causal")), config=checks
    )
    figure = plots.partition_bars({"cupid": found})
    assert list(figure.data[0].y) == [0.995, 0.61]
    words = partition_sentence(found)
    assert "loss 0.99" in words or "loss 1.00" in words
    assert "norm not defined, AUC for conflicting images 0.61" in words


def test_probe_curves_have_one_control():
    probe = table("p", (3, 2), site=("stem.output", "blocks.0.output", "head.input"), group=("all", "control"))
    figure = plots.probe_curves({"original": probe, "gold": probe}, "Class", "low")
    assert [trace.name for trace in figure.data].count("labels shuffled") == 1
    assert list(figure.data[0].x) == ["stem", "blocks.0", "head.input"]


def test_the_grid_has_a_row_of_images_and_one_per_model_in_one_unit():
    pictures = table(
        "maps.pictures", (2, 4, 4, 3), image=("aligned: a", "b: <i>"), y=range(4), x=range(4), channel="rgb"
    )
    maps = {
        who: table("m", (2, 2, 2), image=("aligned: a", "b: <i>"), y=range(2), x=range(2)) for who in ("original", "x")
    }
    figure = plots.picture_grid(pictures, maps)
    assert [trace.type for trace in figure.data].count("image") == 2
    heat = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(heat) == 4
    assert len({trace.zmax for trace in heat}) == 1
    assert "<i>" not in figure.to_json()
