"""Maps of a class: the formula, and an object that a model looks at by construction."""

import pytest
import torch
from torch import nn

from interp_unlearn.benchmarks import ShapesConfig, coloured_shapes, image_task
from interp_unlearn.probes import LivePhases, class_maps, labels_of_probes, map_site
from interp_unlearn.probes._image_maps import _on_object, look_channels, look_maps, slopes
from interp_unlearn.zoo import open_image_model
from interp_unlearn.zoo._small_resnet import SmallResNet


@pytest.fixture(scope="module")
def task():
    return image_task(
        coloured_shapes(ShapesConfig(aligned=0.5, per_class=8, test_per_class=8, never=8, size=32)), "ring"
    )


def test_a_map_is_the_slope_weighted_sum_of_channels_without_its_negative_part():
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    slope = torch.tensor([[[[2.0, 0.0]], [[-1.0, -1.0]]]])  # means 1 and -1
    assert class_maps(maps, slope).tolist() == [[[0.0, 2.0]]]


def test_share_on_the_object():
    maps = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[:, :2, 2:] = True
    share = _on_object(maps, mask)
    assert float(share[0]) == pytest.approx(0.75)
    assert bool(share[1].isnan())


def test_slopes_of_a_linear_readout_are_its_weights(task):
    model = open_image_model(SmallResNet(5, width=2).eval())
    site = "blocks.3.output"
    maps, slope, logit = slopes(model, task, task.forget_heldout, site)
    places = maps.shape[2] * maps.shape[3]
    weight = model.module.head.weight[task.label].detach() / places
    assert torch.allclose(slope, weight.view(1, -1, 1, 1).expand_as(slope), atol=1e-6)
    assert torch.allclose(logit, task.logits(model, task.forget_heldout.ids)[:, task.label].detach(), atol=1e-5)
    assert all(p.requires_grad for p in model.module.parameters())


def test_both_parts_on_live_models(task):
    model = open_image_model(SmallResNet(5, width=2).eval())
    assert map_site(model, task) == "blocks.1.output"
    edited = {"head.weight": -model.module.head.weight.detach()}
    phases = LivePhases(model, task, edited=edited)
    found = look_maps(phases, lambda *_: None)
    assert {"maps.pictures", "maps.before", "maps.after"} == set(found.tables)
    assert found.tables["maps.pictures"].values.shape == (8, 32, 32, 3)
    found = look_channels(phases, lambda *_: None)
    assert [e.value for e in found.evidence] == pytest.approx([-1, -1])  # the head was turned round


def test_probes_read_class_and_background(task):
    labels, quarter, counts = labels_of_probes(task)
    assert set(labels["class"][counts]) == {"target", "other"}
    assert set(labels["bias"][counts]) == set(task.data.settings)
    assert len(quarter) == len(counts) == sum(len(items) for _, items in task.chosen())
    assert isinstance(SmallResNet(5, 2).head, nn.Linear)
