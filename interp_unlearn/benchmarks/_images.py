"""`BiasedImages`: images whose background, or another nuisance, nearly tells the class; and the splits made of them.

An image is *aligned* if it shows its class in the usual setting, else *conflicting*. A model trained where nearly all
images are aligned learns the setting as a shortcut for the class.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from interp_unlearn._core import ConfigError, DataError, nearest, numpy_rng

ALIGNED, CONFLICTING = "aligned", "conflicting"
SHARE_OFF = 0.1
"""How far the share of aligned training images may be from what was asked; small classes cannot have every share."""


@dataclass(frozen=True)
class BiasedImages:
    """Images with class, setting and split.

    Attributes:
        name: Of the data set.
        images: RGB, channels first.
        labels: Class of each image; -1 for images of no class, which no model is trained on.
        aligned: Whether each image shows its class in the usual setting.
        train: Whether each image is for training; the others are for evaluation.
        classes: Names of the classes.
        names: A name of each image for people.
        setting: Index into ``settings`` of each image, or -1 where it is not known.
        settings: Names of the settings (backgrounds); empty where the data do not say.
        mask: Where the object is in each image; None where the data do not say.
        sources: Provenance sentences.

    Raises:
        DataError: If lengths differ, or a label or setting has no name.
    """

    name: str
    images: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    aligned: Bool[Tensor, " n"]
    train: Bool[Tensor, " n"]
    classes: tuple[str, ...]
    names: tuple[str, ...]
    setting: Int[Tensor, " n"]
    settings: tuple[str, ...] = ()
    mask: Bool[Tensor, "n h w"] | None = None
    sources: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        n = len(self.images)
        parts = {"labels": self.labels, "aligned": self.aligned, "train": self.train, "setting": self.setting}
        for what, value in {**parts, "names": self.names}.items():
            if len(value) != n:
                raise DataError(f"{self.name} has {n} images but {len(value)} values of {what!r}; give one per image")
        for what, value, known in (("class", self.labels, self.classes), ("setting", self.setting, self.settings)):
            if n and int(value.max()) >= len(known):
                raise DataError(f"{self.name} has an image of {what} {int(value.max())}, but {len(known)} names")

    def __len__(self) -> int:
        return len(self.images)

    def class_index(self, name: str) -> int:
        """Index of a class.

        Raises:
            DataError: If there is no such class (the nearest is shown), or it has no training image.
        """
        if name not in self.classes:
            raise DataError(
                f"{self.name} has no class {name!r}{nearest(name, self.classes)}; classes: {', '.join(self.classes)}"
            )
        index = self.classes.index(name)
        if not bool((self.train & (self.labels == index)).any()):
            raise DataError(f"{self.name} has no training image of {name!r}, so there is nothing to forget")
        return index

    def where(self, *, train: bool) -> Int[Tensor, " k"]:
        """Indices of the images of all classes for training, or for evaluation."""
        return ((self.train == train) & (self.labels >= 0)).nonzero()[:, 0]


def check_share(aligned: Any) -> None:
    """Refuse a share of aligned images that is none.

    Raises:
        ConfigError: If it is not above 0 and at most 1.
    """
    if not isinstance(aligned, (int, float)) or isinstance(aligned, bool) or not 0 < aligned <= 1:
        raise ConfigError(f"aligned = {aligned!r} is not a share of training images; use e.g. 0.995 or 0.95")


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number of at least so much.

    Raises:
        ConfigError: Which names the option.
    """
    if type(value) is not int or value < least:
        raise ConfigError(f"{name} = {value!r}; give a whole number of at least {least}")


def resplit(data: BiasedImages, aligned: float, seed: int = 0) -> BiasedImages:
    """Training images at a chosen share of aligned ones, and evaluation images at 50:50, class by class.

    Of each class, ``h`` aligned and ``h`` conflicting images are kept for evaluation, and of what remains as many train
    as have the share: all aligned ones that are left, beside ``m`` conflicting ones (one at least, unless ``aligned``
    is 1). Where conflicting images are few (``a > c``), all that do not train are for evaluation; else ``h`` is no more
    than half of the aligned ones, so that there is enough to train on, and conflicting images that are left over are
    dropped.

    Args:
        data: Whose present split is not regarded.
        aligned: Share of aligned images in training, e.g. 0.995 or 0.95.
        seed: Decides which images go where.

    Raises:
        ConfigError: If ``aligned`` is no share.
        DataError: If a class has too few aligned or conflicting images, also for the share.
    """
    check_share(aligned)
    train: list[int] = []
    test: list[int] = []
    for c, name in enumerate(data.classes):
        rng = numpy_rng(seed, "re-split", data.name, name)
        mine = data.labels == c
        yes, no = ((mine & (data.aligned == side)).nonzero()[:, 0].numpy() for side in (True, False))
        if len(yes) < 2 or len(no) < 2:
            raise DataError(
                f"{data.name}: class {name!r} has {len(yes)} aligned and {len(no)} conflicting images; "
                "at least 2 of each are needed for a split"
            )
        yes, no = rng.permutation(yes), rng.permutation(no)
        held, moved = _sizes(len(yes), len(no), aligned)
        got = (len(yes) - held) / (len(yes) - held + moved)
        if abs(got - aligned) > SHARE_OFF:
            raise DataError(
                f"{data.name}: class {name!r} has {len(yes)} aligned and {len(no)} conflicting images, of which "
                f"{len(yes) - held} and {moved} would train, a share of {got:.3f} in place of {aligned:g}; "
                f"set aligned = {got:.3f} or add images"
            )
        test += [*yes[:held].tolist(), *no[moved : moved + held].tolist()]
        train += [*yes[held:].tolist(), *no[:moved].tolist()]
    kept = sorted([*train, *test, *(data.labels < 0).nonzero()[:, 0].tolist()])
    is_train = torch.zeros(len(data), dtype=torch.bool)
    is_train[train] = True
    return take(replace(data, train=is_train), np.array(kept))


def _sizes(n_aligned: int, n_conflicting: int, aligned: float) -> tuple[int, int]:
    """Images of each kind held out, and conflicting images to train on, which have the share of what is left."""
    least = 0 if aligned == 1 else 1

    def moved(held: int) -> int:
        return max(least, round((1 - aligned) / aligned * (n_aligned - held)))

    most = n_conflicting - 1 if n_aligned > n_conflicting else min(n_conflicting - 1, n_aligned // 2)
    for held in range(most, 0, -1):
        if held + moved(held) <= n_conflicting:
            return held, moved(held)
    return 1, n_conflicting - 1


def take(data: BiasedImages, which: np.ndarray) -> BiasedImages:
    """The chosen images, in that order."""
    index = torch.as_tensor(which, dtype=torch.long)
    return replace(
        data,
        images=data.images[index],
        labels=data.labels[index],
        aligned=data.aligned[index],
        train=data.train[index],
        setting=data.setting[index],
        names=tuple(data.names[i] for i in index.tolist()),
        mask=None if data.mask is None else data.mask[index],
    )
