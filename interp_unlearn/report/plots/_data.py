"""Reading saved results for pictures: layers from site names, slices that keep their facts, hover footers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from interp_unlearn._core import Axis, Labelled
from interp_unlearn.report.plots._style import plain

GROUP_WORDS = {"known_eval": "neighbours", "unknown_eval": "unknown", "known_ref": "known references"}
"""Groups of rows as readers know them."""

SET_WORDS = {
    "base": "target, trained on",
    "forget_train": "target, trained on",
    "paraphrased": "target, held out",
    "forget_heldout": "target, held out",
    "forget": "target, held out",
    "multi_hop": "target, multi-hop",
    "backwards": "target, backwards",
    "own_other": "the target's other facts",
    "same_answer": "others with the same answer",
    "retain": "known, usable by recipes",
    "retain_train": "known, usable by recipes",
    "neighbours": "known neighbours, held out",
}
"""Question sets as readers know them."""


def set_words(name: str) -> str:
    """A question set as readers know it."""
    return SET_WORDS.get(name, name.replace("_", " "))


def layer_of(label: str) -> int | None:
    """The layer in a site or module name: its first whole-number component (``"blocks.12.hook_resid_post"`` → 12)."""
    for part in label.split("."):
        if part.isdigit():
            return int(part)
    return None


def split_module(label: str) -> tuple[int | None, str]:
    """Layer and the rest of a parameter name: ``"model.layers.3.mlp.down_proj.weight"`` → (3, "mlp.down_proj")."""
    parts = label.removesuffix(".weight").split(".")
    for i, part in enumerate(parts):
        if part.isdigit():
            return int(part), ".".join(parts[i + 1 :]) or ".".join(parts[:i])
    return None, ".".join(parts)


def layers_or_labels(labels: Sequence[str]) -> list[int] | list[str]:
    """Layer numbers where every label has its own, else the labels."""
    numbers = [layer_of(label) for label in labels]
    if all(n is not None for n in numbers) and len(set(numbers)) == len(numbers):
        return [int(n) for n in numbers if n is not None]
    return list(labels)


def numbers_or_labels(labels: Sequence[str]) -> list[float] | list[str]:
    """The labels as numbers where all of them are, else as they are."""
    try:
        return [float(label) for label in labels]
    except ValueError:
        return list(labels)


def axis_names(data: Labelled) -> tuple[str, ...]:
    """Names of the axes, in order."""
    return tuple(axis.name for axis in data.axes)


def has(data: Labelled, axis: str, label: str) -> bool:
    """Whether ``data`` has this label on this axis."""
    return any(a.name == axis and label in a.labels for a in data.axes)


def pick(data: Labelled, axis: str, label: str) -> Labelled:
    """The slice of ``data`` at one label of one axis, with all its facts."""
    index = axis_names(data).index(axis)
    values = np.asarray(np.take(data.values, data.axes[index].labels.index(label), axis=index))
    return dataclasses.replace(data, values=values, axes=tuple(a for i, a in enumerate(data.axes) if i != index))


def sorted_by_layer(data: Labelled) -> Labelled:
    """A one-axis array in layer order (file order where labels name no layers)."""
    keys = layers_or_labels(data.axes[0].labels)
    if not keys or isinstance(keys[0], str):
        return data
    order = np.argsort(np.asarray(keys))
    labels = tuple(data.axes[0].labels[i] for i in order)
    return dataclasses.replace(data, values=data.values[order], axes=(Axis(data.axes[0].name, labels),))


def footer(data: Labelled) -> str:
    """Hover lines that say what a value rests on."""
    policy = "" if data.mask_policy in ("", "-") else f"<br>tokens: {plain(data.mask_policy)}"
    return f"<br>n = {data.n}{policy}"
