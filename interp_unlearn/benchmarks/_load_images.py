"""Sets of images by name, as configs name them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp_unlearn._core import ConfigError, nearest
from interp_unlearn.benchmarks._bar import load_bar
from interp_unlearn.benchmarks._folders import is_pairs, load_nico, load_waterbirds
from interp_unlearn.benchmarks._image_files import SMALLEST
from interp_unlearn.benchmarks._images import BiasedImages, check_share, check_whole
from interp_unlearn.benchmarks._shapes import ShapesConfig, coloured_shapes

IMAGE_SETS: Mapping[str, str] = {
    "coloured-shapes": "five grey shapes on coloured backgrounds, generated, with exact labels",
    "bar": "six actions, each mostly in one kind of place (BAR); needs data_dir",
    "waterbirds": "land and water birds on land and water (Waterbirds); needs data_dir",
    "nico++": "classes tied to contexts (Biased NICO++); needs data_dir and the option pairs",
}
"""Sets that `load_images` knows, with a line for lists."""
_LOADERS = {"bar": load_bar, "waterbirds": load_waterbirds, "nico++": load_nico}
_OPTIONS = {
    "coloured-shapes": tuple(ShapesConfig().to_dict()),
    "bar": ("aligned", "size", "seed"),
    "waterbirds": ("aligned", "size", "seed"),
    "nico++": ("pairs", "aligned", "size", "seed"),
}


def load_images(name: str, folder: str | Path | None = None, **options: Any) -> BiasedImages:
    """A set of images.

    Args:
        name: One of `IMAGE_SETS`.
        folder: Where its files are; the generated set needs none.
        options: Of its loader: `ShapesConfig`, `load_bar`, `load_waterbirds`, `load_nico`.

    Raises:
        ConfigError: If the name or an option is unknown, or a folder is needed.
        DataError, FileFormatError: As the loader raises.
    """
    if name not in IMAGE_SETS:
        raise ConfigError(f"unknown image set {name!r}{nearest(name, IMAGE_SETS)}; known: {', '.join(IMAGE_SETS)}")
    for key in options:
        if key not in _OPTIONS[name]:
            raise ConfigError(
                f"{name} has no option {key!r}{nearest(key, _OPTIONS[name])}; options: {', '.join(_OPTIONS[name])}"
            )
    _check(name, options)
    if name == "coloured-shapes":
        return coloured_shapes(ShapesConfig(**options))
    if folder is None:
        raise ConfigError(f"{name} is read from a local folder; name it as world.data_dir")
    if name == "nico++" and "pairs" not in options:
        raise ConfigError('nico++ needs the option pairs, class to usual context, e.g. {dog = "grass", cat = "rock"}')
    return _LOADERS[name](folder, **options)


def _check(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options of the wrong type, before a loader is called with them."""
    for key, least in (("seed", 0), ("size", SMALLEST)):
        check_whole(f"{name}: {key}", options.get(key, least), least)
    if options.get("aligned") is not None:
        check_share(options["aligned"])
    for key in ("noise", "tint"):
        if not isinstance(options.get(key, 0), (int, float)):
            raise ConfigError(f"{name}: {key} = {options[key]!r}; give a number")
    if not is_pairs(options.get("pairs", {})):
        raise ConfigError(f"{name}: pairs = {options['pairs']!r}; give a table of classes and their usual contexts")
