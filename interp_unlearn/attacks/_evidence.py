"""What relearning curves show, with their control."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from interp_unlearn._core import DataError, Evidence, Labelled
from interp_unlearn.attacks._curve import curve_area, prompt_areas, prompt_scores, step_numbers, steps_to_level
from interp_unlearn.metrics import bootstrap

DOES_NOT_SHOW = (
    "that knowledge which does not come back is gone: other facts, more steps or another attack may bring it back. As "
    "fast as never known does not prove absence either, since a model may learn new facts as fast as it recalls old "
    "ones; slower than never known is a mark of over-suppression, not of a better forgetting."
)


def relearn_evidence(
    unlearned: Labelled,
    control: Labelled | None,
    original: Labelled | None = None,
    gold: Labelled | None = None,
    *,
    metric: str = "probability",
    full_level: float | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Evidence:
    """Does the target come back faster than the same effort teaches facts that were never known?

    The value is the area under the target's curve over the step budget (its mean level, 0 to 1), the control is that of
    the never-known curve, or of gold where it is given. ``config`` has the area between the curves with its interval,
    the steps each needs to half recovery (NaN: never within the budget), the largest value of each curve (recovery
    need not be monotone) and ``slower_than_never_known``.

    Args:
        unlearned: `RelearnCurve.target` of the unlearned model.
        control: `RelearnCurve.control` of the same model; None where nothing was never known (then gold is needed).
        original: `RelearnCurve.target` of the original model; its first point says what full recovery is.
        gold: `RelearnCurve.target` of the gold model.
        metric: "probability" or "exact".
        full_level: What full recovery is, where there is no curve of the original.
        draws: Bootstrap resamples, over facts (over templates where there is one fact).
        seed: Of the bootstrap.

    Raises:
        DataError: If the curves have different steps, settings or test sets, or there is neither control nor gold.
    """
    if control is None and gold is None:
        raise DataError("a relearning curve alone shows nothing; give the never-known control, or the curve of gold")
    others = (("never known", control), ("original", original), ("gold", gold))
    curves = {"target": unlearned, **{name: curve for name, curve in others if curve is not None}}
    _check_alike(curves)
    areas = {name: curve_area(curve, metric) for name, curve in curves.items()}
    resampled = {name: _resampled_areas(curves[name], metric, draws, seed) for name in curves}
    reference = "gold" if gold is not None else "never known"
    means = {name: prompt_scores(curve, metric).mean(1) for name, curve in curves.items()}
    known = full_level if original is None else float(means["original"][0])
    full = known if known is not None else float(max(m.max() for m in means.values()))
    lesser = "never known" if control is not None else "gold"
    between = _difference(resampled["target"], resampled[lesser])
    start, last = float(means["target"][0]), float(means["target"][-1])
    facts: dict[str, Any] = {
        "set": unlearned.config["set"],
        "metric": metric,
        "areas": areas,
        "area_between": areas["target"] - areas[lesser],
        "area_between_interval": list(between) if between else None,
        "slower_than_never_known": bool(between is not None and between[1] < 0),
        "faster_than_never_known": bool(between is not None and between[0] > 0),
        "half_level": full / 2,
        "half_of": "the original model's level" if known is not None else "the highest point of the curves",
        "steps_to_half": {name: steps_to_level(curve, full / 2, metric) for name, curve in curves.items()},
        "best": {name: float(mean.max()) for name, mean in means.items()},
        "start": {name: float(mean[0]) for name, mean in means.items()},
        "recovered_share": (last - start) / (full - start) if known is not None and full > start else None,
        "steps": int(step_numbers(unlearned)[-1]),
        "relearn": unlearned.config["relearn"],
        "learning_rate": unlearned.config["learning_rate"],
        "trained": unlearned.config["trained"],
    }
    return Evidence(
        name=f"relearn.{facts['set']}",
        question=_question(facts["set"]),
        value=areas["target"],
        interval=_interval(resampled["target"]),
        control=areas[reference],
        control_name="gold, relearned alike" if gold is not None else "never-known facts, taught alike",
        direction="near control",
        n=unlearned.n,
        mask_policy="answer tokens",
        does_not_show=DOES_NOT_SHOW,
        details=curves,
        config=facts,
        seed=seed,
    )


def _question(test: str) -> str:
    if test == "rest":
        return "When a part of the target is relearned, does the rest come back?"
    return "Does the target come back under other wordings faster than a fact that was never known is learned?"


def _check_alike(curves: dict[str, Labelled]) -> None:
    first = curves["target"]
    for name, curve in curves.items():
        for what, mine, theirs in (
            ("steps", first.axes, curve.axes),
            ("settings", first.config.get("relearn"), curve.config.get("relearn")),
            ("test sets", first.config.get("set"), curve.config.get("set")),
        ):
            if what == "settings" and isinstance(mine, dict) and isinstance(theirs, dict):
                mine, theirs = ({k: v for k, v in s.items() if k != "controls"} for s in (mine, theirs))
            if mine != theirs:
                raise DataError(
                    f"the relearning curves 'target' and {name!r} have different {what}; relearn all with one "
                    "RelearnConfig"
                )


def _resampled_areas(curve: Labelled, metric: str, draws: int, seed: int) -> np.ndarray | None:
    facts = ["\t".join(fact) for fact in curve.config["facts"]]
    clusters = facts if len(set(facts)) > 1 else list(curve.config["templates"])
    if len(set(clusters)) < 2:
        return None
    who = str(curve.config["who"])
    return bootstrap(prompt_areas(curve, metric), clusters, draws=draws, seed=seed, purpose=f"relearn {who}")


def _interval(drawn: np.ndarray | None) -> tuple[float, float] | None:
    if drawn is None or math.isnan(float(np.sum(drawn))):
        return None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _difference(one: np.ndarray | None, other: np.ndarray | None) -> tuple[float, float] | None:
    return None if one is None or other is None else _interval(one - other)
