"""The steps of a run on an image classifier: one class is forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from interp_unlearn._core import ConfigError, ModelError, NothingToForgetError
from interp_unlearn.benchmarks import IMAGE_SETS, ImageTask, Preprocess, image_task, load_images
from interp_unlearn.hooked import HookedModel
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._flow import register_flow
from interp_unlearn.runs._labelled import LabelledFlow
from interp_unlearn.runs._workbench import Progress, Workbench
from interp_unlearn.unlearn._fields import build
from interp_unlearn.zoo import (
    IMAGE_MODELS,
    ImageTraining,
    default_training,
    image_model,
    open_image_model,
    preprocess_of,
)
from interp_unlearn.zoo._changes import apply_delta

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "ga": {"optimizer": "sgd", "lr": 0.01, "steps": 8},
    "delete": {"lr": 1e-4},
    "random_labels": {"lr": 5e-4},
    "bad_teaching": {"lr": 5e-4},
    "scrub": {"lr": 5e-4, "steps": 32, "options": {"max_steps": 16}},
}
"""Fields of recipes for image classifiers, searched on coloured shapes with a seed that is not reported."""
COMMON = {"sampler": "random", "batch_size": 64, "retain_batch_size": 64, "lr": 1e-4, "steps": 16}


class ImageFlow(LabelledFlow):
    """Image classifiers: items are images, rows are images, gold is trained without the class."""

    modality = "image"

    def open(self, config: RunConfig, progress: Progress) -> Workbench:
        """The data set, its task, and the classifier (trained now or read from the cache, or opened by path)."""
        self._check(config)
        progress("loading the images", 0, 0)
        options = {k: v for k, v in config.world.options.items() if k != "training"}
        data = load_images(config.world.name, config.world.data_dir, **{"seed": config.seed, **options})
        name = config.model.name
        if name in IMAGE_MODELS:
            training = self._training(config)
            task = image_task(data, config.target.entities[0], preprocess_of(name, training), seed=config.seed)
            model = image_model(name, task, training, progress=progress)
        else:
            model, preprocess = _folder(name, data.classes)
            task = image_task(data, config.target.entities[0], preprocess, seed=config.seed)
        if config.model.delta is not None:
            apply_delta(model.module, config.model.delta)
            model.source["delta"] = config.model.delta
        _check_classes(model, task)
        if config.evidence.require_known:
            _check_known(model, task)
        return Workbench(model, task)

    def _check(self, config: RunConfig) -> None:
        if len(config.target.entities) != 1 or config.target.relations:
            raise ConfigError(
                'an image run forgets one class: write entities = ["<class>"] and no relations under [target]'
            )
        if config.model.adapter is not None or config.latents.sae or config.latents.second:
            raise ConfigError("image classifiers are opened without adapters and SAEs; leave these fields out")

    def _training(self, config: RunConfig) -> ImageTraining:
        base = default_training(config.model.name)
        given = config.world.options.get("training", {})
        if not isinstance(given, Mapping):
            raise ConfigError(f"world.options.training is {given!r}; give a table such as {{ epochs = 4 }}")
        made = build(ImageTraining, {"seed": config.seed, **given}, "world.options.training")
        unset = {f: getattr(base, f) for f in ("epochs", "lr", "batch_size") if f not in given}
        return replace(made, **unset)

    def open_named(self, config: RunConfig, name: str, bench: Workbench | None, progress: Progress) -> HookedModel:
        """A model folder."""
        return _folder(name, () if bench is None else self.task(bench).classes)[0]

    def sizes(self, model: HookedModel) -> dict[str, Any]:
        """Also the classes in their order, where the model's folder says so."""
        return {**super().sizes(model), "classes": list(model.source.get("classes") or ())}

    def check_fits(self, bench: Workbench, sizes: Mapping[str, Any], tokenizer: Any, who: str) -> None:
        """Refuse also classes in another order: the same outputs would mean other things."""
        super().check_fits(bench, sizes, tokenizer, who)
        _check_order(who, sizes.get("classes") or (), self.task(bench).classes)

    def makes_gold(self, config: RunConfig, bench: Workbench) -> bool:
        """Where the classifier was trained here."""
        return bench.model.source.get("name") in IMAGE_MODELS and config.model.delta is None

    def retrain(self, config: RunConfig, bench: Workbench, progress: Progress) -> HookedModel:
        """The classifier trained in the same way without the class, cached.

        Raises:
            ConfigError: For a model that was not trained here.
        """
        task = bench.any_task
        source = bench.model.source
        if not self.makes_gold(config, bench) or not isinstance(task, ImageTask):
            raise ConfigError(f"{bench.model.name} cannot be retrained here; name a gold model (model.gold)")
        training = ImageTraining(**source["training"])
        return image_model(str(source["name"]), task, training, exclude=True, progress=progress)

    def defaults(self, objective: str, bench: Workbench) -> dict[str, Any]:
        """Searched rates where there are such."""
        return {**COMMON, **DEFAULTS.get(objective, {})}


def _folder(name: str, classes: tuple[str, ...]) -> tuple[HookedModel, Preprocess | None]:
    """A classifier by path, with what it reads of an image.

    Raises:
        ModelError: If its folder says that its classes come in another order than the data's.
    """
    model = open_image_model(name)
    _check_order(name, model.source["classes"], classes)
    facts = model.source["preprocess"]
    return model, None if facts is None else Preprocess(**facts)


def _check_order(who: str, own: Sequence[str], classes: Sequence[str]) -> None:
    if set(own) == set(classes) and tuple(own) != tuple(classes):
        raise ModelError(
            f"{who} has the classes in another order ({', '.join(own)}) than the data ({', '.join(classes)}); "
            "reorder the outputs of its head"
        )


def _check_classes(model: HookedModel, task: ImageTask) -> None:
    n = task.shape(model).n_classes
    if n != len(task.classes):
        raise ModelError(f"{model.name} has {n} outputs, but {task.world} has {len(task.classes)} classes")


@torch.no_grad()
def _check_known(model: HookedModel, task: ImageTask) -> None:
    items = task.forget_train
    logits = torch.cat([task.logits(model, ids) for ids in items.ids.split(256)])
    accuracy = float((logits.argmax(1).cpu() == items.labels).double().mean())
    if accuracy <= 1 / len(task.classes):
        raise NothingToForgetError(
            f"{model.name} calls {accuracy:.0%} of the training images of {task.target.entities[0]!r} by their name, "
            "no more than chance: there is nothing to forget; choose another class or model"
        )


register_flow(ImageFlow(), tuple(IMAGE_SETS))
