"""Labelled results: what passes from room to room, and what is saved in a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from interp_unlearn._core._errors import FileFormatError
from interp_unlearn._core._io import read_json, write_json
from interp_unlearn._core._version import __version__


@dataclass(frozen=True)
class Axis:
    """One axis of a `Labelled` array: its name and a label for each index."""

    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Labelled:
    """An array with names for its axes and the facts needed to read it.

    Attributes:
        name: What the values are, with unit, e.g. ``"cosine drift"``.
        values: The numbers, one dimension per axis (a scalar has none).
        axes: Labels of each dimension.
        n: How many samples (prompts or tokens) each value rests on.
        mask_policy: Token-mask policy of the activations behind it (``"all"``, ``"content"``, ``"inner"``,
            a named position, or ``"-"`` where no tokens are involved).
        config: Settings that produced it.
        seed: Seed, if any randomness was involved.
        note: A sentence on how to read it.
        version: Library version.
    """

    name: str
    values: np.ndarray
    axes: tuple[Axis, ...]
    n: int
    mask_policy: str
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    note: str = ""
    version: str = __version__

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        object.__setattr__(self, "values", values)
        shape = tuple(len(axis.labels) for axis in self.axes)
        if values.shape != shape:
            raise ValueError(f"Labelled {self.name!r}: values have shape {values.shape} but axes say {shape}")

    def at(self, **labels: str) -> Any:
        """Select by label, e.g. ``diff.at(site="blocks.3.hook_resid_post")``; returns a NumPy array or scalar."""
        index: list[Any] = [slice(None)] * len(self.axes)
        names = [axis.name for axis in self.axes]
        for name, label in labels.items():
            axis = self.axes[names.index(name)]
            index[names.index(name)] = axis.labels.index(label)
        return self.values[tuple(index)]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary that `from_json` reads back."""
        return {
            "kind": "labelled",
            "name": self.name,
            "values": self.values.tolist(),
            "axes": [{"name": a.name, "labels": list(a.labels)} for a in self.axes],
            "n": self.n,
            "mask_policy": self.mask_policy,
            "config": dict(self.config),
            "seed": self.seed,
            "note": self.note,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Labelled:
        """Read what `to_json` wrote."""
        axes = tuple(Axis(a["name"], tuple(a["labels"])) for a in data["axes"])
        return cls(
            name=data["name"],
            values=np.asarray(data["values"], dtype=np.float64).reshape([len(a.labels) for a in axes]),
            axes=axes,
            n=data["n"],
            mask_policy=data["mask_policy"],
            config=data["config"],
            seed=data["seed"],
            note=data["note"],
            version=data["version"],
        )


@dataclass(frozen=True)
class Evidence:
    """One measurement, with what is needed to believe it.

    Attributes:
        name: Stable identifier, e.g. ``"alignment.axis_t"``.
        question: What it asks, in one sentence.
        value: The measured number (``nan`` with a `reason` where it cannot be computed).
        interval: 95 % interval, or None where there is none.
        control: The same measurement where the answer is known (shuffled labels, unknown entities, gold), or None.
        control_name: What the control is.
        direction: What a forgotten target looks like: ``"low"``, ``"high"`` or ``"near control"``.
        n: Number of samples.
        mask_policy: As in `Labelled`.
        does_not_show: What a reader must not conclude from it.
        reason: Why the value is missing, if it is.
        details: Arrays behind the number, by name, for plots.
        config: Settings.
        seed: Seed, if any.
        version: Library version.
    """

    name: str
    question: str
    value: float
    direction: Literal["low", "high", "near control"]
    n: int
    mask_policy: str
    does_not_show: str
    interval: tuple[float, float] | None = None
    control: float | None = None
    control_name: str = ""
    reason: str = ""
    details: Mapping[str, Labelled] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    version: str = __version__

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary that `from_json` reads back."""
        return {
            "kind": "evidence",
            "name": self.name,
            "question": self.question,
            "value": float(self.value),
            "interval": list(self.interval) if self.interval else None,
            "control": self.control,
            "control_name": self.control_name,
            "direction": self.direction,
            "n": self.n,
            "mask_policy": self.mask_policy,
            "does_not_show": self.does_not_show,
            "reason": self.reason,
            "details": {k: v.to_json() for k, v in self.details.items()},
            "config": dict(self.config),
            "seed": self.seed,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evidence:
        """Read what `to_json` wrote."""
        fields = {k: v for k, v in data.items() if k != "kind"}
        fields["interval"] = tuple(fields["interval"]) if fields["interval"] else None
        fields["details"] = {k: Labelled.from_json(v) for k, v in fields["details"].items()}
        return cls(**fields)

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Evidence:
        """Read a file written by `save`.

        Raises:
            FileFormatError: If the file is not one evidence.
        """
        data = read_json(path)
        if not isinstance(data, dict) or data.get("kind") != "evidence":
            raise FileFormatError(f"{path} is not a saved evidence")
        return cls.from_json(data)
