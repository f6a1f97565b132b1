"""BAR, biased action recognition: six actions, each photographed nearly always in one kind of place.

Source: Nam et al. 2020, "Learning from Failure" (arXiv 2007.02561), alinlab/BAR. The published training images
are aligned and the published test images conflicting, so both are pooled and split anew (`resplit`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from interp_unlearn._core import DataError, FileFormatError
from interp_unlearn.benchmarks._image_files import image_files, read_images
from interp_unlearn.benchmarks._images import BiasedImages, resplit
from interp_unlearn.benchmarks._npz import read_arrays

ACTIONS = ("climbing", "diving", "fishing", "pole vaulting", "racing", "throwing")
PLACES = ("rock wall", "underwater", "water surface", "sky", "paved track", "playing field")
ARRAYS = ("images", "labels", "filenames")


def load_bar(folder: str | Path, *, aligned: float = 0.95, size: int = 64, seed: int = 0) -> BiasedImages:
    """BAR, split anew.

    There is no label of the place of an image: it is known (from the published split) only whether it is the usual one.

    Args:
        folder: With ``train.npz`` and ``test.npz`` (arrays images (n, h, w, 3) uint8, labels, filenames), or with the
            folders ``train`` and ``test`` of the published archive (files ``<action>_<number>.jpg``).
        aligned: Share of aligned training images.
        size: Height and width to which image files are cropped and scaled; npz files are taken as they are.
        seed: Of the split.

    Raises:
        DataError: If files are missing, or images differ in size.
        FileFormatError: If a file is damaged.
    """
    folder = Path(folder).expanduser()
    packed = (folder / "train.npz").is_file() or (folder / "test.npz").is_file()
    parts = [_npz(folder / f"{split}.npz") if packed else _files(folder / split, size) for split in ("train", "test")]
    shapes = {part[0].shape[1:] for part in parts}
    if len(shapes) > 1:
        raise DataError(f"{folder}: training and test images differ in size ({shapes}); make both at one size")
    images, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    usual = torch.arange(len(images)) < len(parts[0][0])
    labels = torch.from_numpy(labels.astype(np.int64))
    data = BiasedImages(
        name="bar",
        images=torch.from_numpy(images),
        labels=labels,
        aligned=usual,
        train=usual.clone(),
        classes=ACTIONS,
        names=tuple(name for part in parts for name in part[2]),
        setting=torch.where(usual, labels, -1),
        settings=PLACES,
        sources=("BAR (Nam et al. 2020, alinlab/BAR): aligned is known from the published split only",),
    )
    return resplit(data, aligned, seed)


Loaded = tuple[np.ndarray, np.ndarray, list[str]]


def _npz(path: Path) -> Loaded:
    found = read_arrays(path, ARRAYS)
    missing = sorted(set(ARRAYS) - set(found))
    if missing:
        raise FileFormatError(f"{path} has no array {missing[0]!r}; is it the file that this loader is for?")
    images, labels = found["images"], found["labels"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise FileFormatError(f"{path}: images are {images.dtype} {images.shape}; uint8 (n, h, w, 3) is expected")
    whole = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    if not whole or (len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(ACTIONS)):
        raise FileFormatError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}; give each image's action as a number 0…"
            f"{len(ACTIONS) - 1}, (n,)"
        )
    if not len(images) == len(labels) == len(found["filenames"]):
        raise FileFormatError(f"{path}: {len(images)} images but {len(labels)} labels; copy or make it again")
    return images.transpose(0, 3, 1, 2).copy(), labels, [str(name) for name in found["filenames"]]


def _files(folder: Path, size: int) -> Loaded:
    files, labels = image_files(folder), []
    for file in files:
        action = file.stem.rpartition("_")[0].replace("-", " ").replace("_", " ")
        if action not in ACTIONS:
            raise DataError(f"{file}: a name such as climbing_0.jpg is expected, with one of {', '.join(ACTIONS)}")
        labels.append(ACTIONS.index(action))
    return read_images(files, size), np.array(labels), [file.name for file in files]
