"""The table that a run prints: the report's headline table, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from interp_unlearn.cli._console import console
from interp_unlearn.report import compare, headline, read_run
from interp_unlearn.runs import RunFolder


def print_table(folders: Sequence[RunFolder]) -> None:
    """Print one headline table per target: original, each method, gold."""
    for comparison in compare([read_run(folder.path) for folder in folders]):
        head = headline(comparison)
        shown = [i for i, _ in enumerate(head.columns) if any(not row.cells[i].missing for row in head.rows)]
        table = Table(title=comparison.title, title_justify="left", padding=(0, 1))
        table.add_column("model")
        for i in shown:
            column = head.columns[i]
            table.add_column(f"{column.group}\n{column.label}".replace("neigh-bours", "neighbours"), justify="right")
        for row in head.rows:
            table.add_row(row.name, *(row.cells[i].text + (" *" if row.cells[i].best else "") for i in shown))
        console.print(table)
        if any(cell.best for row in head.rows for cell in row.cells):
            console.print("* nearest to gold among the methods", highlight=False)
