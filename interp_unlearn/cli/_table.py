"""The table that a run prints: the report's headline table, turned so that it fits a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from interp_unlearn.cli._console import console, say
from interp_unlearn.report import compare, headline, read_run, verdict_of
from interp_unlearn.report._images import partition_sentence
from interp_unlearn.runs import RunFolder


def print_verdicts(folders: Sequence[RunFolder]) -> None:
    """Print the verdict of each run that has one, in a sentence."""
    for folder in folders:
        verdict = verdict_of(read_run(folder.path))
        if not verdict.missing:
            say(f"{verdict.method}: {verdict.sentence}")


def print_partitions(folders: Sequence[RunFolder]) -> None:
    """Print of each run with CUPID how its sharpness ranks the images, in a sentence."""
    for folder in folders:
        table = folder.table("cupid.partition")
        if table is not None:
            console.print(f"{folder.path.name}: {partition_sentence(table)}", highlight=False, soft_wrap=True)


def print_table(folders: Sequence[RunFolder]) -> None:
    """Print one table per target: a line per question, a column per model (original, each method, gold)."""
    for comparison in compare([read_run(folder.path) for folder in folders]):
        head = headline(comparison)
        table = Table(title=comparison.title, title_justify="left", padding=(0, 1), show_edge=False)
        table.add_column("")
        for row in head.rows:
            table.add_column(row.name, justify="right")
        table.add_column("forgotten looks like", style="dim")
        group = ""
        for i, column in enumerate(head.columns):
            if all(row.cells[i].missing for row in head.rows):
                continue
            if column.group != group:
                group = column.group
                table.add_section()
            label = f"{column.group}: {column.label}".replace("neigh-bours", "neighbours")
            cells = (row.cells[i].text + ("*" if row.cells[i].best else "") for row in head.rows)
            table.add_row(label, *cells, column.forgotten)
        console.print(table)
        if any(cell.best for row in head.rows for cell in row.cells):
            say("* nearest to gold among the methods")
        console.print()
