"""Waterbirds and Biased NICO++ from local folders in their published layouts."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp_unlearn._core import ConfigError, DataError, FileFormatError, nearest
from interp_unlearn.benchmarks._image_files import image_files, read_images
from interp_unlearn.benchmarks._images import BiasedImages, resplit

BIRDS = ("landbird", "waterbird")
PLACES = ("land", "water")


def load_waterbirds(folder: str | Path, *, aligned: float | None = None, size: int = 64, seed: int = 0) -> BiasedImages:
    """Waterbirds (Sagawa et al. 2020, arXiv 1911.08731), whose landbirds are mostly on land.

    Args:
        folder: The published folder, with ``metadata.csv`` (columns img_filename, y, split, place) and the images.
        aligned: Share of aligned training images in a new split of all images; None keeps the published split (95 %
            aligned; validation images are left out).
        size: Height and width to which images are cropped and scaled.
        seed: Of a new split.

    Raises:
        DataError: If files are missing.
        FileFormatError: If one is damaged or metadata.csv lacks a column.
    """
    folder = Path(folder).expanduser()
    table = folder / "metadata.csv"
    if not table.is_file():
        raise DataError(f"{table} does not exist; give the folder of the published Waterbirds archive")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        kept = [r for r in rows if aligned is not None or int(r["split"]) != 1]
        labels, places = (np.array([int(r[key]) for r in kept]) for key in ("y", "place"))
        train = np.array([int(r["split"]) == 0 for r in kept])
        files = [folder / r["img_filename"] for r in kept]
    except (KeyError, ValueError, TypeError) as error:
        raise FileFormatError(f"{table} is not the table of Waterbirds ({error!r}); copy it again") from error
    data = _made("waterbirds", files, size, labels, places, labels == places, train, BIRDS, PLACES)
    return data if aligned is None else resplit(data, aligned, seed)


def load_nico(
    folder: str | Path,
    *,
    pairs: Mapping[str, str],
    aligned: float = 0.95,
    size: int = 64,
    seed: int = 0,
) -> BiasedImages:
    """Biased NICO++ (Zhang et al. 2023, arXiv 2204.08040): classes, each tied to one context.

    Args:
        folder: The published layout ``<context>/<class>/*.jpg``.
        pairs: Class to its usual context, at least two classes. Contexts that are nobody's usual one are not read.
        aligned: Share of aligned training images.
        size: Height and width to which images are cropped and scaled.
        seed: Of the split.

    Raises:
        ConfigError: If fewer than two classes are named.
        DataError: If a folder is missing, or a class has too few images.
        FileFormatError: If a file is damaged.
    """
    folder = Path(folder).expanduser()
    if not is_pairs(pairs) or len(pairs) < 2:
        raise ConfigError('nico++: name classes with their usual contexts, e.g. pairs = {dog = "grass", cat = "rock"}')
    classes, contexts = tuple(pairs), tuple(dict.fromkeys(pairs.values()))
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the one that holds <context>/<class>/*.jpg")
    there = sorted(p.name for p in folder.iterdir() if p.is_dir())
    for context in contexts:
        if context not in there:
            raise DataError(f"{folder} has no context {context!r}{nearest(context, there)}; it has {', '.join(there)}")
    files: list[Path] = []
    labels: list[int] = []
    places: list[int] = []
    for c, name in enumerate(classes):
        for p, context in enumerate(contexts):
            found = image_files(folder / context / name)
            files += found
            labels += [c] * len(found)
            places += [p] * len(found)
    usual = np.array([contexts.index(pairs[classes[c]]) for c in labels])
    y, place = np.array(labels), np.array(places)
    data = _made("nico++", files, size, y, place, place == usual, place == usual, classes, contexts)
    return resplit(data, aligned, seed)


def is_pairs(value: Any) -> bool:
    """Whether it ties texts to texts."""
    return isinstance(value, Mapping) and all(isinstance(v, str) for v in (*value, *value.values()))


def _made(
    name: str,
    files: Sequence[Path],
    size: int,
    labels: np.ndarray,
    places: np.ndarray,
    aligned: np.ndarray,
    train: np.ndarray,
    classes: tuple[str, ...],
    settings: tuple[str, ...],
) -> BiasedImages:
    return BiasedImages(
        name=name,
        images=torch.from_numpy(read_images(files, size)),
        labels=torch.from_numpy(labels.astype(np.int64)),
        aligned=torch.from_numpy(aligned.astype(bool)),
        train=torch.from_numpy(train.astype(bool)),
        classes=classes,
        names=tuple("/".join(file.parts[-3:]) for file in files),
        setting=torch.from_numpy(places.astype(np.int64)),
        settings=settings,
        sources=(f"{name}: local files in the published layout",),
    )
