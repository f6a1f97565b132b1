"""The task of forgetting one class of images: sets of items, logits, and rows of activations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from interp_unlearn._core import ConfigError, DataError, ModelError, numpy_rng
from interp_unlearn.benchmarks._images import ALIGNED, CONFLICTING, BiasedImages
from interp_unlearn.hooked import (
    Activations,
    HookedModel,
    ImageShape,
    capture,
    class_logits,
    evaluating,
    image_shape,
    pooled,
)
from interp_unlearn.worlds import ItemSet, LabelledTask, Target
from interp_unlearn.worlds._types import Modality, Split

BATCH = 256
MOST_ROWS = 200
"""Rows of activations of each group, at most."""
QUARTERS = ("target, aligned", "target, conflicting", "retained, target's setting", "retained, other setting")
"""The four groups of rows; the third shows whether the setting's cue was hurt."""
NO_QUARTER = "-"
"""Of retained images whose setting is not known: they may show the target's, or another."""


@dataclass(frozen=True)
class Preprocess:
    """From pixels (0 to 255) to what a model reads: ``(pixel / 255 - mean) / std``.

    Attributes:
        mean: Of each channel.
        std: Of each channel.
        size: Height and width that the model wants, or None for those of the data.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    size: int | None = None

    def __post_init__(self) -> None:
        if min(self.std) <= 0 or (self.size is not None and self.size < 8):
            raise ConfigError(f"{self}: standard deviations must be positive and the size at least 8 pixels")

    def resized(self, images: UInt8[Tensor, "n 3 h w"]) -> UInt8[Tensor, "n 3 h2 w2"]:
        """The images at the wanted size (bilinear, antialiased)."""
        if self.size is None or images.shape[2:] == (self.size, self.size):
            return images
        parts = [
            nn.functional.interpolate(part.float(), (self.size, self.size), mode="bilinear", antialias=True)
            for part in images.split(BATCH)
        ]
        return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])

    def __call__(self, images: UInt8[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
        """Normalised images."""
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (self.mean, self.std))
        return (images.float() / 255 - mean) / std


@dataclass(frozen=True, eq=False)
class ImageTask(LabelledTask):
    """Forget one class; see `LabelledTask` for the sets. Made by `image_task`.

    Items carry the labels ``bias`` (aligned, conflicting) and, where settings are known, ``quarter`` (see `QUARTERS`;
    ``"-"`` for retained images whose own setting is not known).

    Attributes:
        data: The images, at the size that the model reads.
        preprocess: What the model reads of an image.
        label: Index of the class to forget.
        pixels: Checksum of all images, so that tasks on other images are other tasks.
    """

    data: BiasedImages
    preprocess: Preprocess
    label: int
    world: str
    target: Target
    seed: int
    classes: tuple[str, ...]
    forget_train: ItemSet
    forget_heldout: ItemSet
    retain_train: ItemSet
    neighbours: ItemSet
    never_known: ItemSet
    pixels: str
    sources: tuple[str, ...] = ()
    modality: Modality = field(default="image", init=False)
    _shapes: MutableMapping[nn.Module, ImageShape] = field(default_factory=WeakKeyDictionary, repr=False)

    def inputs(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n 3 h w"]:
        """What the model reads of the images."""
        return self.preprocess(self.data.images[ids])

    def logits(self, model: HookedModel, ids: Int[Tensor, " n"]) -> Float[Tensor, "n classes"]:
        """What the model says of each image, in evaluation mode: batch-norm statistics never move."""
        with evaluating(model.module):
            return class_logits(model.forward(self.inputs(ids).to(model.device, model.dtype)))

    def shape(self, model: HookedModel) -> ImageShape:
        """Blocks and head of a model.

        Raises:
            ModelError: If it is no image classifier, or cannot read images of this kind and size.
        """
        if model.module not in self._shapes:
            example = self.inputs(torch.zeros(1, dtype=torch.long)).to(model.device, model.dtype)
            try:
                self._shapes[model.module] = image_shape(model, example)
            except (RuntimeError, ValueError) as error:
                raise ModelError(
                    f"{model.name} cannot read RGB images of {example.shape[3]}×{example.shape[2]} pixels "
                    f"({str(error).splitlines()[0]}); use a classifier of such images, or set the size that it wants"
                ) from error
        return self._shapes[model.module]

    def sites(self, model: HookedModel, stride: int = 1) -> list[str]:
        """Every ``stride``-th block's output, the last block's, and the input of the head."""
        found = self.shape(model)
        last = len(found.blocks) - 1
        kept = [f"{path}.output" for i, path in enumerate(found.blocks) if i % stride == 0 or i == last]
        return [*kept, f"{found.head}.input"]

    def main_site(self, model: HookedModel) -> str:
        """The input of the head: the features that classes are read from."""
        return f"{self.shape(model).head}.input"

    def chosen(self, split: Split = "heldout") -> list[tuple[str, ItemSet]]:
        """Groups of rows with their items: the target, retained images in two halves, images of no class likewise."""
        target, known = (
            (self.forget_heldout, self.neighbours) if split == "heldout" else (self.forget_train, self.retain_train)
        )
        out = [("target", _few(target, MOST_ROWS, self.seed))]
        for name, items in (("known", known), ("unknown", self.never_known)):
            few = _few(items, 2 * MOST_ROWS, self.seed)
            out += [(f"{name}_ref", few.take(range(0, len(few), 2))), (f"{name}_eval", few.take(range(1, len(few), 2)))]
        return [(group, items) for group, items in out if len(items)]

    def rows(self, model: HookedModel, sites: Sequence[str], split: Split = "heldout") -> Activations:
        """One row per image; maps are averaged over their places."""
        groups = self.chosen(split)
        ids = torch.cat([items.ids for _, items in groups])
        values: dict[str, list[Tensor]] = {site: [] for site in sites}
        for part in ids.split(BATCH):
            found = capture(model, self.inputs(part).to(model.device, model.dtype), sites)
            for site in sites:
                values[site].append(pooled(found[site]).float().cpu())
        labels: dict[str, list[str]] = {
            "entity": [name for _, items in groups for name in items.names],
            "group": [group for group, items in groups for _ in items.names],
            "template": ["image"] * len(ids),
            "class": [self.classes[int(c)] for _, items in groups for c in items.labels],
        }
        for key in ("bias", "quarter"):
            labels[key] = [v for _, items in groups for v in items.groups.get(key, ("-",) * len(items))]
        return Activations({site: torch.cat(parts) for site, parts in values.items()}, mask_policy="all", labels=labels)

    def settings(self) -> Mapping[str, Any]:
        """Class, pixels and preprocessing."""
        size = list(self.data.images.shape[2:])
        pre = {"mean": list(self.preprocess.mean), "std": list(self.preprocess.std), "size": size}
        return {"label": self.label, "pixels": self.pixels, "preprocess": pre}


def image_task(data: BiasedImages, target: str, preprocess: Preprocess | None = None, *, seed: int = 0) -> ImageTask:
    """The task of forgetting a class.

    Images of no class (label -1) are the ``never_known`` set. The model has no output for them, so they go under the
    target's name: what is taught or asked is whether *that* answer comes.

    Args:
        data: Images with a split.
        target: Name of the class.
        preprocess: What the model reads of an image; default the usual normalisation at the data's own size.
        seed: Decides which images are read for evidence.

    Raises:
        DataError: If the class is absent, or no other class has training images.
    """
    label = data.class_index(target)
    preprocess = preprocess or Preprocess()
    own = data.labels == label
    other = (data.labels >= 0) & ~own
    if not bool((data.train & other).any()):
        raise DataError(f"{data.name} has training images of {target!r} only; nothing is left to keep")
    resized = preprocess.resized(data.images)

    def items(name: str, which: Tensor, why: str) -> ItemSet:
        ids = which.nonzero()[:, 0]
        labels = torch.where(data.labels[ids] < 0, label, data.labels[ids])
        groups = {"bias": tuple(ALIGNED if a else CONFLICTING for a in data.aligned[ids].tolist())}
        if bool((data.labels[ids] < 0).any()):
            groups = {}
        elif data.settings:
            groups["quarter"] = tuple(_quarter(data, i, label) for i in ids.tolist())
        return ItemSet(name, ids, labels, tuple(data.names[i] for i in ids.tolist()), groups, "" if len(ids) else why)

    held = f"{data.name} has no evaluation image of it"
    never = f"{data.name} has no images of a class that no model was trained on"
    digest = hashlib.sha256(np.ascontiguousarray(resized.numpy()).tobytes()).hexdigest()[:16]
    return ImageTask(
        data=_with_images(data, resized),
        preprocess=preprocess,
        label=label,
        world=data.name,
        target=Target((target,)),
        seed=seed,
        classes=data.classes,
        forget_train=items("forget_train", data.train & own, held),
        forget_heldout=items("forget_heldout", ~data.train & own, held),
        retain_train=items("retain_train", data.train & other, held),
        neighbours=items("neighbours", ~data.train & other, held),
        never_known=items("never_known", data.labels < 0, never),
        sources=data.sources,
        pixels=digest,
    )


def _quarter(data: BiasedImages, i: int, label: int) -> str:
    if int(data.labels[i]) == label:
        return QUARTERS[0] if bool(data.aligned[i]) else QUARTERS[1]
    if int(data.setting[i]) < 0:
        return NO_QUARTER
    usual = data.setting[data.train & data.aligned & (data.labels == label)]
    mine = int(usual.mode().values) if len(usual) else -1
    return QUARTERS[2] if int(data.setting[i]) == mine >= 0 else QUARTERS[3]


def _with_images(data: BiasedImages, images: Tensor) -> BiasedImages:
    if images.shape == data.images.shape:
        return data
    mask = data.mask
    if mask is not None:
        mask = nn.functional.interpolate(mask[:, None].float(), images.shape[2:], mode="nearest")[:, 0] > 0.5
    return replace(data, images=images, mask=mask)


def _few(items: ItemSet, most: int, seed: int) -> ItemSet:
    """At most so many items, drawn by seed; aligned and conflicting ones alike often where both are there."""
    order = numpy_rng(seed, "rows", items.name).permutation(len(items))
    bias = items.groups.get("bias")
    if bias is not None:
        rank: dict[str, int] = {}
        place = {}
        for i in order.tolist():
            place[i] = rank[bias[i]] = rank.get(bias[i], -1) + 1
        order = np.array(sorted(order.tolist(), key=lambda i: place[i]), dtype=int)
    return items.take(order[:most].tolist())
