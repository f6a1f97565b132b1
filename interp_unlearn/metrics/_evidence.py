"""Every evidence that this room's parts give: what it asks, where a forgotten target lies, what it does not show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp_unlearn._core import Evidence
from interp_unlearn.metrics._resample import bootstrap, cluster_unit, percentile_interval
from interp_unlearn.probes._catalogue import Kind
from interp_unlearn.probes._catalogue import evidence as catalogued
from interp_unlearn.worlds import Prompt

NEIGHBOURS = "neighbours in the edited model"
NEVER_KNOWN = "never-known entities with assigned answers, in the edited model"
BEFORE = "the same in the original model"

_OUTPUT = "It reads one way of asking and one way of answering; knowledge that is only hidden leaves it low as well."
_TOKENS = "Right beginnings are given, so tails of names and function words count; a low value is not absence."
_AUC = "An AUC at the control says that answers' likelihoods do not betray the target; other readings may."

KINDS: Mapping[str, Kind] = {
    "memorisation.probability": Kind(
        "How likely are the right answers about the target, per token?", "low", NEIGHBOURS, _OUTPUT
    ),
    "memorisation.exact_memorisation": Kind(
        "What share of the answers' tokens is the model's first choice?", "low", NEIGHBOURS, _TOKENS
    ),
    "memorisation.extraction_strength": Kind(
        "What share of an answer does the model complete by itself?", "low", NEIGHBOURS, _TOKENS
    ),
    "memorisation.truth_ratio": Kind(
        "Are right and wrong answers equally likely (1), or is one preferred (0)?",
        "near control",
        NEVER_KNOWN,
        "The same value comes from knowing the answer and from avoiding it: the sign of log_truth_ratio in config says "
        "which. A broken model has no preference either.",
    ),
    "memorisation.entropy": Kind(
        "How spread out is the distribution where the answer begins, in nats?",
        "near control",
        NEVER_KNOWN,
        "Above the control is flattening, below it another answer or a refusal; neither says where the fact is.",
    ),
    "memorisation.confidence": Kind(
        "How likely is the most likely token where the answer begins?",
        "near control",
        NEVER_KNOWN,
        "It does not ask which token: confidence in a false answer and in the right one look alike.",
    ),
    "memorisation.forget_quality": Kind(
        "How far apart are the truth ratios of the edited model and of gold (Kolmogorov–Smirnov D)?",
        "low",
        "the original model against gold",
        "Equal truth ratios come by accident while a model collapses, and questions of one entity are not independent: "
        "read D, not the p-value alone, and utility beside it.",
    ),
    "mia.auc": Kind(
        "Do the answers' likelihoods tell the target from entities that were never known (1), or not (0.5)?",
        "near control",
        "median over never-known entities in the target's place",
        f"{_AUC} Below 0.5 it is over-forgotten, and that betrays the target too.",
    ),
    "mia.privleak": Kind(
        "By how many per cent is the AUC of Min-40 % off gold's?",
        "near control",
        "0 by definition: gold's AUC (0.5 where there is no gold)",
        "Negative is still a member, positive over-unlearned; without gold 0 means chance, not gold.",
    ),
    "mia.s_mia": Kind(
        "How near is the AUC of Min-40 % to gold's (1 = equal)?",
        "high",
        BEFORE,
        "It does not tell still a member from over-unlearned.",
    ),
    "mia_gradnorm.auc": Kind(
        "Do gradient norms tell the target from entities that were never known (1), or not (0.5)?",
        "near control",
        "median over never-known entities in the target's place",
        _AUC,
    ),
    "fluency.entropy": Kind(
        "How varied are greedy generations (n-gram entropy, bits)?",
        "near control",
        BEFORE,
        "It detects repetition and silence; nonsense of many different words has a high entropy.",
    ),
    "fluency.repetition": Kind(
        "What share of word triples repeats an earlier one?",
        "near control",
        BEFORE,
        "Small base models repeat themselves before any unlearning; only the change counts.",
    ),
}


def evidence(kind: str, where: str, value: float, *, n: int, reason: str = "", **fields: Any) -> Evidence:
    """An `Evidence` named ``"<kind>/<where>"`` with its entry of `KINDS` filled in; a NaN always has a reason."""
    if math.isnan(value) and not reason:
        reason = "the edited model gives numbers that are not finite"
    filled = {"mask_policy": "answer tokens", **fields}
    interval = filled.get("interval")
    if interval is not None and not np.isfinite(interval).all():
        filled["interval"] = None
    return catalogued(kind, where, value, n=n, reason=reason, catalogue=KINDS, **filled)


def missing(kind: str, where: str, reason: str, **fields: Any) -> Evidence:
    """An `Evidence` without a value, and the reason why."""
    return evidence(kind, where, math.nan, n=0, reason=reason, **fields)


def mean_and_interval(
    values: np.ndarray, prompts: Sequence[Prompt], *, seed: int, purpose: str
) -> tuple[float, tuple[float, float] | None, dict[str, Any]]:
    """Mean over questions, its 95 % interval over entities (over templates for one entity), and what was resampled.

    NaN means "does not apply" only where a caller says so: here it shows in the mean.
    """
    mean = float(values.mean()) if len(values) else math.nan
    unit, groups = cluster_unit([p.entity for p in prompts], [p.template for p in prompts])
    facts = {"unit": unit, "clusters": len(set(groups))}
    if unit == "none" or not np.isfinite(values).all():
        return mean, None, facts
    return mean, percentile_interval(bootstrap(values, groups, seed=seed, purpose=purpose)), facts
