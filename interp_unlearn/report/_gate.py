"""`gate`: does a run meet what was asked of it? For scripts and continuous integration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from interp_unlearn._core import ConfigError, DataError, FileFormatError, nearest
from interp_unlearn.report._read import RunView
from interp_unlearn.report._side_effects import untold
from interp_unlearn.report._verdict import LABELS, VerdictView, verdict_of
from interp_unlearn.verdict import Findings, LabelRules, attacked, inferred


@dataclass(frozen=True)
class GateResult:
    """Whether one run passes.

    Attributes:
        run: Its name.
        passed: Whether it meets every demand.
        verdict: Its verdict.
        reasons: Why it does not pass; empty if it does.
    """

    run: str
    passed: bool
    verdict: VerdictView
    reasons: tuple[str, ...]


def gate(
    run: RunView,
    require: Sequence[str] = (),
    *,
    max_side_effects: float | None = None,
    min_probability: float | None = None,
    min_attacks: int = LabelRules.min_attacks,
) -> GateResult:
    """Hold a finished run against demands.

    Args:
        run: As read by `read_run`.
        require: Verdicts that pass, e.g. ``["forgotten"]``. Unless *hidden* passes too, *forgotten* does not where
            questions that need the target's facts are still answered (`inferred`).
        max_side_effects: Largest side effect that passes, as a share: the drop in questions answered of any set that
            must survive, or the rise of the loss on general text relative to the original's.
        min_probability: Least probability of the verdict that passes.
        min_attacks: So many attacks with a control must have been run before *forgotten* passes; cheap evidence alone
            was wrong too often on real models (docs/verdict.md).

    Raises:
        ConfigError: If nothing is demanded, a verdict is unknown, or a limit is not a share.
        FileFormatError: If the run is not finished or has no verdict.
        DataError: If side effects are limited and any was not measured or cannot be read, or *forgotten* would pass
            with too few attacks.
    """
    if not require and max_side_effects is None and min_probability is None:
        raise ConfigError("the gate demands nothing; give --require, --max-side-effects or --min-probability")
    for label in require:
        if label not in LABELS:
            raise ConfigError(f"unknown verdict {label!r}{nearest(label, LABELS)}; known: {', '.join(LABELS)}")
    if min_probability is not None and not 0 <= min_probability <= 1:
        raise ConfigError(f"--min-probability {min_probability} is not a share; give a number from 0 to 1")
    if max_side_effects is not None and not max_side_effects >= 0:
        raise ConfigError(f"--max-side-effects {max_side_effects} is no limit; give a share such as 0.05")
    if not run.done:
        state = run.status.get("state", "unknown")
        raise FileFormatError(f"{run.path} is not finished (state: {state}); first: interp-unlearn resume {run.path}")
    verdict = verdict_of(run)
    if verdict.missing and (require or min_probability is not None):
        raise FileFormatError(f"{run.path}: {verdict.missing}")
    findings = Findings.of(run.evidence.values(), run.tables)
    tried = len(attacked(findings))
    if "forgotten" in require and verdict.label == "forgotten" and tried < min_attacks:
        raise DataError(
            f"{run.path}: the verdict is forgotten, but {tried} attacks with a control were run and {min_attacks} are "
            f"needed to let it pass; add them with: interp-unlearn evidence {run.path}"
        )
    reasons = []
    if require and verdict.label not in require:
        reasons.append(f"the verdict is {_with_chance(verdict)}, not {' or '.join(require)}")
    if "forgotten" in require and "hidden" not in require and verdict.label == "forgotten":
        reasons += [f"the target is not given, but what follows from it is: {left}" for left in inferred(findings)]
    if min_probability is not None and not verdict.probability >= min_probability:
        reasons.append(f"the verdict {_with_chance(verdict)} is less certain than {min_probability:g}")
    if max_side_effects is not None:
        # The log of training steps says nothing of side effects, and a method of a single stroke has none.
        problems = [problem for problem in run.problems if not problem.startswith("events.jsonl")]
        if problems:
            raise DataError(
                f"{run.path}: side effects cannot be told, files are missing or damaged ({'; '.join(problems)}); "
                "make the run again in a new folder"
            )
        if not verdict.losses:
            raise DataError(f"{run.path} has no table of side effects; was its behaviour measured?")
        if missing := untold(run):
            raise DataError(
                f"{run.path}: side effects cannot be told, the edited model has no number for {'; '.join(missing)}; "
                "make the run again in a new folder"
            )
        reasons += [
            f"{e.what} went from {e.before:.4g} to {e.after:.4g}, a loss of {e.size:.4g}, over {max_side_effects:g}"
            for e in verdict.losses
            if e.size > max_side_effects
        ]
    return GateResult(run.name, not reasons, verdict, tuple(reasons))


def _with_chance(verdict: VerdictView) -> str:
    known = not math.isnan(verdict.probability)
    return f"{verdict.label} (probability {verdict.probability:.2f})" if known else verdict.label
