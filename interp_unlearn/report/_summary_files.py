"""The table of many runs as CSV, Markdown and HTML."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from interp_unlearn._core import __version__
from interp_unlearn.report._estimate import Estimate
from interp_unlearn.report._html import page_path, render, write_page
from interp_unlearn.report._summary import Entry, Measure, Summary

VIEWS = {
    "value": "The measure itself",
    "change": "Difference from the original, within each target and seed",
    "gap": "Difference from gold, within each target and seed",
}


def shown(measure: Measure, entry: Entry, view: str = "value") -> tuple[str, str]:
    """A cell's number and its interval as texts; the interval is empty where there is none.

    Args:
        measure: The column.
        entry: The cell.
        view: ``"value"``, ``"change"`` or ``"gap"``.
    """
    found: Estimate = getattr(entry, view)
    signed = view != "value"
    if found.missing:
        return "–", ""
    if math.isnan(found.low):
        return measure.text(found.mean, signed=signed), ""
    low, high = (measure.text(x, signed=signed) for x in (found.low, found.high))
    return measure.text(found.mean, signed=signed), f"{low} to {high}"


def tip(measure: Measure, entry: Entry, view: str = "value") -> str:
    """What a cell rests on, in a few lines."""
    found: Estimate = getattr(entry, view)
    if found.missing:
        return "no number"
    lines = [f"{measure.name}", f"{found.n} runs"]
    lines.append(f"95 % interval: {found.how}" if found.how else "a single target and seed: no interval")
    if not math.isnan(found.sd):
        lines.append(f"standard deviation {measure.text(found.sd)}")
    return "\n".join(lines)


# -- CSV ---------------------------------------------------------------------------------------------------------------

HEAD = (
    *("model", "world", "method", "measure", "mean", "low", "high", "sd", "interval", "runs", "targets", "seeds"),
    *("change_from_original", "change_low", "change_high", "gap_to_gold", "gap_low", "gap_high", "nearest_to_gold"),
)
RUN_HEAD = ("model", "world", "target", "seed", "method", "measure", "value", "original", "gold", "folder")


def write_csv(summaries: Iterable[Summary], path: Path) -> Path:
    """One line for each model and measure: mean, interval, and both differences; an empty field where there is none."""
    return _write(path, HEAD, (line for summary in summaries for line in _lines(summary)))


def write_runs_csv(summaries: Iterable[Summary], path: Path) -> Path:
    """One line for each run and measure, with the original and gold of the same target and seed beside it."""
    lines = (
        (s.model, s.world, n.target, n.seed, n.method, n.measure.name, n.value, n.original, n.gold, n.folder)
        for s in summaries
        for n in s.numbers
    )
    return _write(path, RUN_HEAD, lines)


def _lines(summary: Summary) -> Iterable[Sequence[object]]:
    for row in summary.rows:
        for measure in summary.measures:
            entry = summary.at(row, measure)
            value, change, gap = entry.value, entry.change, entry.gap
            if not value.missing:
                yield (
                    *(summary.model, summary.world, row, measure.name),
                    *(value.mean, value.low, value.high, value.sd, value.how, value.n),
                    *(value.targets, value.seeds),
                    *(change.mean, change.low, change.high, gap.mean, gap.low, gap.high),
                    "yes" if entry.nearest else "",
                )


def _write(path: Path, head: Sequence[str], lines: Iterable[Sequence[object]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for line in lines:
        writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in line])
    write_page(path, text.getvalue())
    return path


# -- Markdown and HTML -------------------------------------------------------------------------------------------------


def markdown(summary: Summary, view: str = "value") -> str:
    """A Markdown table, one row per model: mean and, in brackets, the 95 % interval; a sentence where it is empty."""
    if not summary.measures:
        return "No finished run has a number to show."
    lines = ["| model | runs | " + " | ".join(m.name for m in summary.measures) + " |"]
    lines.append("|---" * (len(summary.measures) + 2) + "|")
    for row in summary.rows:
        cells = []
        for measure in summary.measures:
            number, interval = shown(measure, summary.at(row, measure), view)
            cells.append(f"{number} [{interval}]" if interval else number)
        runs = max(summary.at(row, m).value.n for m in summary.measures)
        lines.append(f"| {row} | {runs} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_summary(summaries: Sequence[Summary], path: Path, refused: Sequence[str] = ()) -> Path:
    """One self-contained HTML file: the table as it is, relative to the original, relative to gold, and every run.

    Args:
        summaries: As made by `summarise`.
        path: The HTML file, or a folder for ``compare.html``.
        refused: A sentence for each folder that could not be read.

    Raises:
        FileFormatError: If ``path`` is a file of other origin.
    """
    path = page_path(path, "compare.html")
    values = {
        "summaries": summaries,
        "refused": refused,
        "views": VIEWS,
        "shown": shown,
        "tip": tip,
        "version": __version__,
    }
    write_page(path, render("compare.html.j2", values))
    return path
