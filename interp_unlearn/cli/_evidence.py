"""`evidence`: add parts of the evidence to finished runs."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from interp_unlearn.cli._console import console, friendly, progress_bar


@friendly
def evidence_command(
    runs: list[Path] | None = typer.Argument(None, help="Finished run folders, or folders that hold several."),
    level: str = typer.Option("standard", help="Every part up to this level: quick, standard or full."),
    only: list[str] = typer.Option([], help="Only this part, whatever its level (may be repeated)."),
    show: bool = typer.Option(False, "--list", help="List the parts; measure nothing."),
) -> None:
    """Add parts of the evidence to finished RUNS, also to those of an earlier version, and judge again.

    What is there already is not measured again; what an interrupted call measured is kept.
    """
    from interp_unlearn._core import ConfigError

    if show:
        _print_parts()
        return
    if not runs:
        raise ConfigError("name at least one run folder, or use --list to see the parts")
    from interp_unlearn.cli._table import print_verdicts
    from interp_unlearn.report import write_report
    from interp_unlearn.runs import RunFolder, add_evidence_many, chosen_parts

    chosen_parts(level, only)
    with progress_bar() as progress:
        for path in runs:
            found = RunFolder.find(path)
            folders = [folder.path for folder in found if folder.status()["state"] == "done" or len(found) == 1]
            for folder in found:
                if folder.path not in folders:
                    console.print(Text(f"left out: {folder.path} is not finished"), soft_wrap=True)
            done = add_evidence_many(folders, level, only=only, progress=progress)
            progress("writing the report", 0, 0)
            if not done:
                continue
            report = write_report([folder.path for folder in done], path / "report.html")
            print_verdicts(done)
            console.print(f"Report: {report}", highlight=False, soft_wrap=True)


def _print_parts() -> None:
    from interp_unlearn import runs as runs  # registers every part
    from interp_unlearn.probes import LEVELS, PARTS

    table = Table("name", "level", "kind", "models", "what it does")
    for part in sorted((PARTS[name] for name in PARTS), key=lambda p: (LEVELS.index(p.level), p.name)):
        table.add_row(part.name, part.level, part.kind, ", ".join(part.modalities), part.what)
    console.print(table)
    console.print("A level includes the cheaper ones. Kinds: docs/architecture.md", highlight=False)
