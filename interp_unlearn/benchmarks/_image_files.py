"""Image files of a folder as one array, with every likely damage named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from interp_unlearn._core import ConfigError, DataError, FileFormatError, optional_import

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}

SMALLEST = 8
"""Height and width in pixels, at least."""


def image_files(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name.

    Raises:
        DataError: If it does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of images; see docs/images.md for the layout that is expected")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def read_images(files: Sequence[Path], size: int | None) -> UInt8[np.ndarray, "n 3 h w"]:
    """RGB images, channels first.

    Args:
        files: Image files.
        size: Cut the middle square out and scale it (Lanczos) to so many pixels; None takes images as they are.

    Raises:
        ConfigError: If the size is no whole number, or too small.
        MissingPackageError: If pillow is not installed.
        FileFormatError: If a file is not a whole image.
        DataError: If images differ in size and ``size`` is None, or there are none.
    """
    pillow = optional_import("PIL.Image", "vision", "reading image files")
    ops = optional_import("PIL.ImageOps", "vision", "reading image files")
    if size is not None and (type(size) is not int or size < SMALLEST):
        raise ConfigError(f"size = {size!r}; give a whole number of pixels, at least {SMALLEST}")
    if not files:
        raise DataError("there is no image file to read; check the folder")
    found: list[np.ndarray] = []
    for file in files:
        try:
            with pillow.open(file) as opened:
                image = ops.exif_transpose(opened).convert("RGB")
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise FileFormatError(f"{file} is not a whole image ({error}); copy it again or take it out") from error
        if size is not None:
            image = ops.fit(image, (size, size), method=pillow.Resampling.LANCZOS)
        found.append(np.asarray(image).transpose(2, 0, 1))
        if found[-1].shape != found[0].shape:
            first, other = (f"{a.shape[2]}×{a.shape[1]}" for a in (found[0], found[-1]))
            raise DataError(
                f"images differ in size: {files[0].name} is {first}, {file.name} is {other}; "
                "set size, to which all are cropped and scaled"
            )
    return np.stack(found)
