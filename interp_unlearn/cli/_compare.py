"""`compare`: many runs in one table, relative to the original and to gold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from interp_unlearn.cli._console import console, errors, friendly, say
from interp_unlearn.cli._paths import check_output

if TYPE_CHECKING:
    from interp_unlearn.report import Summary

WIDTH = 18  # characters of one method's column, about
LABELS = 36  # characters of the column of measures, and of the one that says what forgotten looks like
SHOW = ("value", "change", "gap")
INTERVALS = ("t", "bootstrap")


@friendly
def compare_command(
    runs: list[Path] = typer.Argument(help="Run folders, or folders that hold runs at any depth (sweeps)."),
    csv: Path | None = typer.Option(None, help="Write means, intervals and differences as CSV."),
    csv_runs: Path | None = typer.Option(None, help="Write every number of every run as CSV."),
    html: Path | None = typer.Option(None, help="Write one self-contained HTML page (a folder: compare.html in it)."),
    markdown: bool = typer.Option(False, "--markdown", help="Print Markdown instead of a table."),
    measure: list[str] | None = typer.Option(None, help="Only measures with this text in their name; may be repeated."),
    show: str = typer.Option("value", help="value, change (from the original) or gap (to gold)."),
    interval: str = typer.Option("t", help="t (Student's t) or bootstrap (percentiles; needs many targets)."),
) -> None:
    """Methods side by side over targets and seeds, with 95 % intervals, relative to the original and to gold.

    Each mean is over targets, each target's number the mean over its seeds. Intervals take the target as the unit;
    with a single target, the seed. Only finished runs count; the others are named.
    """
    from interp_unlearn._core import ConfigError
    from interp_unlearn.report import (
        find_runs,
        page_path,
        read_runs,
        summarise,
        write_csv,
        write_runs_csv,
        write_summary,
    )
    from interp_unlearn.report import markdown as as_markdown

    for name, value, known in (("--show", show, SHOW), ("--interval", interval, INTERVALS)):
        if value not in known:
            raise ConfigError(f"{name} {value} is not one of {', '.join(known)}")
    for path, option, name in ((csv, "--csv", "means.csv"), (csv_runs, "--csv-runs", "runs.csv")):
        check_output(path, option, name)
    if html is not None:
        html = page_path(html, "compare.html")
    views, refused = read_runs(find_runs(runs))
    summaries = summarise(views, "bootstrap" if interval == "bootstrap" else "t")
    if measure:
        summaries = tuple(summary.only(measure) for summary in summaries)
    for summary in summaries:
        if markdown:
            print(f"{summary.title}\n\n{as_markdown(summary, show)}\n")
        else:
            _print(summary, show)
    for sentence in (*(f"left out: {text}" for text in refused), *(n for s in summaries for n in s.notices)):
        errors.print(Text(f"! {sentence}"), soft_wrap=True)
    for path, write in ((csv, write_csv), (csv_runs, write_runs_csv)):
        if path is not None:
            say(f"CSV: {write(summaries, path)}")
    if html is not None:
        say(f"HTML: {write_summary(summaries, html, refused)}")


def _print(summary: Summary, view: str) -> None:
    """One table, or several below each other where the methods do not fit beside each other."""
    methods = [m for m in summary.rows if m in summary.methods]
    references = [r for r in summary.rows if r not in summary.methods and (r, view) not in _SELF]
    if not summary.measures:
        say(f"{summary.title}: no finished run has a number to show.")
        return
    beside = LABELS if view != "value" else 2 * LABELS
    room = (console.width - beside) // WIDTH - len(references)
    fit = max(1, room) if console.is_terminal else len(methods)
    wide = (
        console if console.is_terminal else Console(width=beside + WIDTH * len(summary.rows), markup=False, emoji=False)
    )  # a file has no edge
    for start in range(0, len(methods), fit):
        rows = [r for r in summary.rows if r in references or r in methods[start : start + fit]]
        wide.print(_table(summary, rows, view))
        wide.print()
    how = sorted({e.value.how for e in summary.entries.values() if e.value.how})
    say(f"95 % intervals: {', '.join(how) or 'none, a single target and seed'}")
    if any(entry.nearest for entry in summary.entries.values()):
        say("* nearest to gold among the methods")
    console.print()


_SELF = {("original", "change"), ("gold", "gap")}  # differences from themselves


def _table(summary: Summary, rows: Sequence[str], view: str) -> Table:
    from interp_unlearn.report import shown

    words = {"value": "", "change": "; difference from the original", "gap": "; difference from gold"}
    table = Table(title=summary.title + words[view], title_justify="left", padding=(0, 1), show_edge=False)
    table.add_column("")
    for row in rows:
        table.add_column(Text(row), justify="right")
    if view == "value":
        table.add_column("forgotten looks like", style="dim")
    group = ""
    for measure in summary.measures:
        if measure.group != group:
            group = measure.group
            table.add_section()
        cells = []
        for row in rows:
            entry = summary.at(row, measure)
            number, interval = shown(measure, entry, view)
            cell = Text(number + ("*" if entry.nearest and view != "change" else ""))
            cells.append(cell.append(f"\n{interval}", style="dim") if interval else cell)
        table.add_row(Text(measure.name), *cells, *([measure.forgotten] if view == "value" else []))
    return table
