"""Parts of the evidence by name: what can be measured on the models of a run, how dear it is, and what it serves.

Behaviour, probes, attacks and views register their parts here; a run, an audit and the verdict go through this list
and know none of them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from interp_unlearn._core import Evidence, Labelled, Registry
from interp_unlearn.probes._phases import Phases
from interp_unlearn.worlds import Modality

Level = Literal["quick", "standard", "full"]
LEVELS: tuple[Level, ...] = ("quick", "standard", "full")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and how many there are (0: not known)."""


@dataclass(frozen=True)
class Found:
    """What a part found.

    Attributes:
        evidence: Measurements, each with its control; one that cannot be computed has a NaN value and its reason.
        tables: Curves and tables behind them, by name, to be saved and drawn.
        reason: Why a part of kind ``"view"``, which has no evidence to say it, saves nothing.
    """

    evidence: tuple[Evidence, ...] = ()
    tables: Mapping[str, Labelled] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Part:
    """One part of the evidence.

    Attributes:
        name: Registered name; its evidence ids begin with it, e.g. ``stitch`` gives ``stitch.recall/blocks.3``.
        what: What it does, in a few words, for progress and ``--help``.
        kind: ``"behaviour"``, ``"probe"``, ``"attack"`` or ``"view"``. Attacks try to bring the target back: they make
            the label that a verdict is calibrated on, and are never used to predict it. Views give no evidence, only
            tables for pictures.
        level: The cheapest evidence level that includes it.
        look: Does it: ``look(phases, progress)``.
        modalities: What the models may read that it works on.
    """

    name: str
    what: str
    kind: Literal["behaviour", "probe", "attack", "view"]
    level: Level
    look: Callable[[Phases, Progress], Found]
    modalities: tuple[Modality, ...] = ("language",)


PARTS: Registry[Part] = Registry("part of the evidence")


def register_part(part: Part) -> Part:
    """File a part under its name."""
    return PARTS.register(part.name)(part)


def parts_of(level: Level, modality: Modality = "language") -> tuple[Part, ...]:
    """The parts of an evidence level for models of a modality, cheaper levels included, in order of cost and name."""
    chosen = LEVELS[: LEVELS.index(level) + 1]
    found = (part for part in (PARTS[n] for n in PARTS) if part.level in chosen and modality in part.modalities)
    return tuple(sorted(found, key=lambda p: (LEVELS.index(p.level), p.name)))
