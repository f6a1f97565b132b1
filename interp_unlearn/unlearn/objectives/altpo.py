"""AltPO: prefer a plausible wrong answer to the target's, so that the model goes on answering in its own way.

The loss is DPO's; the preferred answer is a wrong one of the same kind instead of a refusal. In the paper the model
that is unlearned writes five of them per question; here they are same-type answers from the world, or the user's own
file (the generator of open-unlearning writes such a file).

Source: Mekala et al. 2024 (arXiv 2409.13474), ``community/methods/AltPO`` of open-unlearning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interp_unlearn.unlearn._protocols import OBJECTIVES
from interp_unlearn.unlearn.objectives.dpo import DPO, DPOOptions


@dataclass(frozen=True)
class AltPOOptions(DPOOptions):
    """Options of AltPO: those of `DPOOptions` with same-type swaps, five per question, as defaults."""

    answers: Literal["auto", "refusals", "swaps"] = "swaps"
    per_question: int = 5


@OBJECTIVES.register("altpo")
class AltPO(DPO):
    """Alternate preference optimisation."""

    Options = AltPOOptions
    modalities = ("language",)
