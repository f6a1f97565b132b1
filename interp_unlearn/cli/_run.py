"""`run`, `resume`, `report`."""

from __future__ import annotations

from pathlib import Path

import typer

from interp_unlearn.cli._console import console, friendly, progress_bar
from interp_unlearn.cli._table import print_table


@friendly
def run_command(
    config: Path = typer.Argument(help="TOML file: tables model, world, target, and one recipe or several."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Folder of the run; default runs/<config name>."),
) -> None:
    r"""Forget what CONFIG says, look inside before and after, attack, and write a report.

    Example config:

        \[model]
        name = "smollm2-135m"

        \[world]
        name = "countries"

        \[target]
        entities = ["Japan"]
        relations = ["capital"]

        \[latents]
        sae = "smollm2-135m"

        \[\[recipe]]
        objective = "npo"

        \[\[recipe]]
        objective = "sae_guided"

    A second call with the same config continues an unfinished run; a finished one is only shown.
    """
    from interp_unlearn.report import write_report
    from interp_unlearn.runs import load_configs, run, run_many

    configs = load_configs(config)
    folder = out or Path("runs") / config.stem
    with progress_bar() as progress:
        if len(configs) == 1:
            done = [run(next(iter(configs)), folder, progress=progress)]
        else:
            done = run_many(configs, folder, progress=progress)
        progress("writing the report", 0, 0)
        report = write_report([d.path for d in done], folder / "report.html")
    print_table(done)
    console.print(f"Report: {report}", highlight=False, soft_wrap=True)


@friendly
def resume_command(run: Path = typer.Argument(help="A run folder, or a folder of run folders.")) -> None:
    """Continue an interrupted RUN; a finished one is left as it is.

    On the CPU the final weights are bit for bit those of an uninterrupted run.
    """
    from interp_unlearn.report import write_report
    from interp_unlearn.runs import RunFolder, resume

    with progress_bar() as progress:
        done = [resume(folder.path, progress=progress) for folder in RunFolder.find(run)]
        report = write_report([d.path for d in done], run / "report.html")
    print_table(done)
    console.print(f"Report: {report}", highlight=False, soft_wrap=True)


@friendly
def report_command(
    runs: list[Path] = typer.Argument(help="Run folders, or a folder that holds several."),
    out: Path | None = typer.Option(None, "--out", "-o", help="HTML file; default report.html in the first folder."),
) -> None:
    """Write one self-contained HTML report from saved files; nothing is computed again."""
    from interp_unlearn.report import write_report
    from interp_unlearn.runs import RunFolder

    folders = [folder.path for path in runs for folder in RunFolder.find(path)]
    report = write_report(folders, out or runs[0] / "report.html")
    console.print(f"Report: {report}", highlight=False, soft_wrap=True)
