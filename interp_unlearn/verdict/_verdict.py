"""`Verdict`: what the evidence of one run adds up to, to be saved, read by people and asked by scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from interp_unlearn._core import FileFormatError, __version__, read_json, write_json

KIND = "verdict"


@dataclass(frozen=True)
class Reason:
    """Something that decided.

    Attributes:
        evidence: Name of the evidence, or ``table:<name>``.
        value: What was read there, in the form that ``text`` says.
        push: What it adds to the log-odds of the label (against the next likely one; for gates, the gate's own).
        text: One clause for people.
    """

    evidence: str
    value: float
    push: float
    text: str


@dataclass(frozen=True)
class SideEffect:
    """What the edit did to something that must survive.

    Attributes:
        name: ``neighbours``, ``same_answer``, ``own_other``, ``retained``, ``text_loss``.
        before: In the original model (share of questions answered, or nats per token).
        after: In the edited model.
        change: After minus before; for ``text_loss`` as a share of ``before``.
        low: Lower end of the 95 % interval of the change, NaN where there is none.
        high: Upper end.
        n: Questions or tokens it rests on.
        harm: The change in the harmful direction, never negative: what a limit is set on.
    """

    name: str
    before: float
    after: float
    change: float
    low: float
    high: float
    n: int
    harm: float


@dataclass(frozen=True)
class Verdict:
    """A statement about an unlearned model.

    Attributes:
        label: ``forgotten``, ``hidden``, ``over-suppressed``, ``broken`` or ``kept``: the most probable.
        probabilities: Of all five; none where the label was decided by rule alone (`ruled`).
        sentence: The verdict in one sentence.
        decided_by: The evidence that decided, strongest first.
        side_effects: What else changed.
        not_tested: What was not looked at, one sentence each.
        calibration: Which calibration, where it was made, and whether this run lies outside its range.
        predicted: The five probabilities from cheap evidence alone, before any attack was looked at.
        attacks: What attacks say beside it: agreement, disagreement, or that none was run.
        outside: Features outside the calibrated range.
        version: Library version.
    """

    label: str
    probabilities: Mapping[str, float]
    sentence: str
    decided_by: tuple[Reason, ...]
    side_effects: tuple[SideEffect, ...]
    not_tested: tuple[str, ...]
    calibration: str
    predicted: Mapping[str, float] = field(default_factory=dict)
    attacks: str = ""
    outside: tuple[str, ...] = ()
    version: str = __version__

    @property
    def probability(self) -> float:
        """Of the stated label; NaN where it was decided by rule."""
        return self.probabilities.get(self.label, float("nan"))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary that `from_json` reads back."""
        return {"kind": KIND, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Read what `to_json` wrote.

        Raises:
            FileFormatError: If it is not a verdict.
        """
        if not isinstance(data, Mapping) or data.get("kind") != KIND:
            raise FileFormatError("this is not a saved verdict")
        fields = {k: v for k, v in data.items() if k != "kind"}
        try:
            fields["decided_by"] = tuple(Reason(**r) for r in fields["decided_by"])
            fields["side_effects"] = tuple(SideEffect(**s) for s in fields["side_effects"])
            for name in ("not_tested", "outside"):
                fields[name] = tuple(fields[name])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise FileFormatError(f"this verdict lacks or misnames a field ({error}); judge the run again") from error

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Verdict:
        """Read a file written by `save`.

        Raises:
            FileFormatError: If it is missing or not a verdict.
        """
        return cls.from_json(read_json(path))
