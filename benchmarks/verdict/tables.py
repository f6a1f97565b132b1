"""The numbers of a calibration as Markdown, between two markers of the docs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from interp_unlearn._core import DataError
from interp_unlearn.verdict import LABELS, Calibration, Dataset, Evaluation, Score

START, END = "<!-- numbers: begin (written by benchmarks/verdict/fit.py) -->", "<!-- numbers: end -->"
SHOWN = 40


def fill(page: str, text: str) -> str:
    """``page`` with ``text`` between its markers.

    Raises:
        DataError: If the page lacks them.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise DataError(f"the page lacks the markers {START!r} and {END!r}")
    return f"{before}{START}\n\n{text.strip()}\n\n{END}{after}"


def markdown(
    data: Dataset, calibration: Calibration, found: Mapping[str, Evaluation], transfer: Evaluation | None
) -> str:
    facts = calibration.provenance
    parts = [
        f"Calibration `{calibration.version}` on {facts.get('where')}: {len(data)} runs, "
        f"{len(set(data.groups['method']))} methods, {len(set(data.groups['target']))} targets; "
        f"{facts['runs']} runs reach the second stage ({_counts(facts['classes'])}). "
        f"Penalty C = {facts['strength']:g}, temperature {calibration.temperature:.2f}.",
        _made(data),
    ]
    for kind, evaluation in found.items():
        parts += [f"### Left out: {kind} and target", *_evaluation(evaluation)]
    if transfer is not None:
        parts += ["### Transfer: runs of another model, judged by this calibration", *_evaluation(transfer)]
    parts += ["### What the second stage reads", _weights(calibration)]
    return "\n\n".join(p for p in parts if p)


def in_short(calibration: Calibration, found: Mapping[str, Evaluation], transfer: Evaluation | None) -> str:
    """The calibration of a cheaper evidence level, in a table of one line per test."""
    lines = [_row(["tested on", "AUROC", "95 % interval", "calibration error (by chance)", "right"]), _rule(5)]
    tests = {f"{kind} and target left out": e for kind, e in found.items()}
    tests |= {} if transfer is None else {"another model": transfer}
    for name, e in tests.items():
        interval = "–" if math.isnan(e.verdict.low) else f"{e.verdict.low:.3f} to {e.verdict.high:.3f}"
        error = f"{e.ece:.3f} ({e.ece_floor:.3f})"
        lines.append(_row([name, _number(e.verdict.value), interval, error, f"{e.accuracy:.1%}"]))
    head = (
        f"### Evidence level {calibration.provenance['level']}\n\nWhere no more than this level was measured, "
        f"calibration `{calibration.version}` judges, which reads {len(calibration.scales)} features instead of all."
    )
    return "\n\n".join([head, "\n".join(lines)])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def _made(data: Dataset) -> str:
    """Labels by trick: what was made on purpose, and what it turned out to be."""
    if "trick" not in data.groups:
        return ""
    shown = [*LABELS, ""]
    counts = Counter(zip(data.groups["trick"], data.labels, strict=True))
    lines = [_row(["made by", *LABELS, "no label"]), _rule(len(shown) + 1)]
    lines += [_row([t, *(str(counts[t, name]) for name in shown)]) for t in sorted(set(data.groups["trick"]))]
    return "\n".join(lines)


def _evaluation(e: Evaluation) -> list[str]:
    scores = [_row(["hidden against forgotten", "AUROC", "95 % interval", "verdict's lead", "measured in"]), _rule(5)]
    scores += [_score(e.verdict, "**verdict**"), _score(e.verdict_all, "verdict, first stage included")]
    named = [s for s in e.singles if "(" in s.name]
    best = [s for s in e.singles if s not in named][: max(0, 3)]
    scores += [_score(s) for s in sorted([*named[:SHOWN], *best], key=lambda s: -s.value)]
    confusion = [_row(["label ↓ stated →", *LABELS]), _rule(len(LABELS) + 1)]
    confusion += [_row([a, *(str(e.confusion[a][b]) for b in LABELS)]) for a in LABELS]
    predicted = len(e.labels) - e.unpredicted
    lines = [
        "\n".join(scores),
        f"Expected calibration error of the stated label {e.ece:.3f} (by chance alone {e.ece_floor:.3f}); of P(hidden) "
        f"in the second stage {_number(e.ece_inner)} (by chance {_number(e.ece_inner_floor)}). Right: {e.accuracy:.1%} "
        f"of {predicted} runs" + (f"; {e.unpredicted} could not be predicted." if e.unpredicted else "."),
        "\n".join(confusion),
    ]
    if e.failures:
        count = Counter(e.methods)
        failures = [_row(["method or trick", "runs", "failures"]), _rule(3)]
        failures += [_row([m, str(count[m]), _counts(found)]) for m, found in e.failures.items()]
        lines.append("\n".join(failures))
    return lines


def _score(score: Score, name: str = "") -> str:
    lead = "" if math.isnan(score.lead) else f"{score.lead:+.3f} ({score.lead_low:+.3f} to {score.lead_high:+.3f})"
    return _row(
        [
            name or score.name,
            _number(score.value),
            "–" if math.isnan(score.low) else f"{score.low:.3f} to {score.high:.3f}",
            lead,
            f"{score.coverage:.0%} of {score.n}",
        ]
    )


def _weights(calibration: Calibration) -> str:
    """The strongest coefficients, hidden against forgotten, in log-odds per standard deviation."""
    if not {"hidden", "forgotten"} <= set(calibration.classes):
        return ""
    a, b = (calibration.classes.index(name) for name in ("hidden", "forgotten"))
    names = [
        n for s in calibration.scales for n in ([s.feature, f"missing: {s.feature}"] if s.missing else [s.feature])
    ]
    each = calibration.temperature * (calibration.coefficients[a] - calibration.coefficients[b])
    order = np.argsort(-np.abs(each))[:12]
    lines = [_row(["feature", "log-odds of hidden against forgotten, per standard deviation"]), _rule(2)]
    return "\n".join([*lines, *(_row([f"`{names[i]}`", f"{each[i]:+.2f}"]) for i in order)])


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(n: int) -> str:
    return "|" + "---|" * n
