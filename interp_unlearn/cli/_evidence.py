"""`evidence`: add parts of the evidence to finished runs."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from interp_unlearn.cli._console import console, friendly, progress_bar, say
from interp_unlearn.cli._paths import open_runs


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
    from interp_unlearn.report import page_path, read_run, write_report
    from interp_unlearn.runs import add_evidence_many, chosen_parts

    chosen_parts(level, only)
    pages = {path: page_path(path / "report.html") for path in runs}
    with progress_bar() as progress:
        for path, page in pages.items():
            found = open_runs(path)
            folders = [f.path for f in found if len(found) == 1 or read_run(f.path, only=()).done]
            for folder in found:
                if folder.path not in folders:
                    say(f"left out: {folder.path} is not finished")
            done = add_evidence_many(folders, level, only=only, progress=progress)
            progress("writing the report", 0, 0)
            if not done:
                continue
            report = write_report([folder.path for folder in done], page)
            print_verdicts(done)
            say(f"Report: {report}")


def _print_parts() -> None:
    from interp_unlearn import runs as runs  # registers every part
    from interp_unlearn.probes import LEVELS, PARTS

    table = Table("name", "level", "kind", "models", "what it does")
    for part in sorted((PARTS[name] for name in PARTS), key=lambda p: (LEVELS.index(p.level), p.name)):
        table.add_row(part.name, part.level, part.kind, ", ".join(part.modalities), part.what)
    console.print(table)
    say("A level includes the cheaper ones. Kinds: docs/architecture.md")
