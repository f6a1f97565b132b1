"""`run`, `resume`, `report`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from interp_unlearn.cli._console import console, friendly, progress_bar
from interp_unlearn.cli._table import print_table, print_verdicts


@friendly
def run_command(
    config: Path = typer.Argument(help="TOML file: tables model, world, target, and one recipe or several."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Folder of the run; default runs/<config name>."),
    evidence: str | None = typer.Option(
        None, "--evidence", help="Evidence level quick, standard or full; default the config's."
    ),
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
    if evidence is not None:
        configs = tuple(replace(c, evidence=replace(c.evidence, level=evidence)) for c in configs)
    folder = out or Path("runs") / config.stem
    with progress_bar() as progress:
        if len(configs) == 1:
            done = [run(next(iter(configs)), folder, progress=progress)]
        else:
            done = run_many(configs, folder, progress=progress)
        progress("writing the report", 0, 0)
        report = write_report([d.path for d in done], folder / "report.html")
    print_table(done)
    print_verdicts(done)
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
    out: Path | None = typer.Option(None, "--out", "-o", help="File; default report.html in the first folder."),
    json: bool = typer.Option(False, "--json", help="Print the report as JSON, or write it to --out."),
) -> None:
    """Write one self-contained HTML report from saved files; nothing is computed again.

    With --json the same as JSON, for scripts; its schema is docs/schema/report.schema.json.
    """
    from interp_unlearn.report import as_text, find_runs, report_json, write_json_report, write_report

    folders = find_runs(runs)
    if json and out is None:
        print(as_text(report_json(folders)), end="")
        return
    if json and out is not None:
        console.print(f"Report: {write_json_report(folders, out)}", highlight=False, soft_wrap=True)
        return
    report = write_report(folders, out or runs[0] / "report.html")
    console.print(f"Report: {report}", highlight=False, soft_wrap=True)
