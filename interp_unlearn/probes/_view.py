"""What the parts for pictures have in common: the few prompts they show, and the form of their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp_unlearn._core import Axis, DataError, Labelled
from interp_unlearn.probes._forced import pick_prompts
from interp_unlearn.worlds import Prompt, Task

DIGITS = 5
TARGET_SHOWN, NEIGHBOURS_SHOWN = 3, 2


def view_prompts(task: Task) -> tuple[tuple[str, Prompt], ...]:
    """The questions that are shown token by token, each with its set: ``forget`` (held-out wordings) or ``neighbours``.

    Raises:
        DataError: If the task asks nothing about its target.
    """
    target = pick_prompts(task.forget_heldout.prompts or task.forget_train.prompts, TARGET_SHOWN)
    if not target:
        raise DataError("the task asks nothing about its target, so there is no prompt to show token by token")
    near = pick_prompts(task.neighbours.prompts, NEIGHBOURS_SHOWN)
    return (*(("forget", p) for p in target), *(("neighbours", p) for p in near))


def view_table(
    name: str,
    values: np.ndarray,
    axes: Mapping[str, Sequence[object]],
    *,
    n: int,
    mask_policy: str,
    config: Mapping[str, Any],
    note: str,
) -> Labelled:
    """A table for pictures: its numbers rounded, since it is made to be looked at and many of them lie in a run."""
    named = tuple(Axis(axis, tuple(str(label) for label in labels)) for axis, labels in axes.items())
    return Labelled(name, rounded(values), named, n=n, mask_policy=mask_policy, config=config, note=note)


def rounded(values: np.ndarray, digits: int = DIGITS) -> np.ndarray:
    """Numbers with so many significant digits; NaN and infinities stay."""
    values = np.asarray(values, dtype=np.float64)
    usable = np.isfinite(values) & (values != 0)
    scale = 10.0 ** (digits - 1 - np.floor(np.log10(np.abs(np.where(usable, values, 1.0)))))
    return np.where(usable, np.round(values * scale) / scale, values)
