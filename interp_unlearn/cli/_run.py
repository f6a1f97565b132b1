"""`run`, `resume`, `report`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from interp_unlearn.cli._console import friendly, print_error, progress_bar, say
from interp_unlearn.cli._paths import check_file, open_runs
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

    Ctrl-C stops. A second call with the same config goes on, also with recipes that had not begun; what is finished is
    only shown. A recipe that fails does not hold up those after it.
    """
    from interp_unlearn._core import RunsFailedError
    from interp_unlearn.report import page_path, write_report
    from interp_unlearn.runs import load_configs, run, run_many

    check_file(config, "a TOML config")
    configs = load_configs(config)
    if evidence is not None:
        configs = tuple(replace(c, evidence=replace(c.evidence, level=evidence)) for c in configs)
    folder = out or Path("runs") / config.stem
    page = page_path(folder / "report.html")
    failed: RunsFailedError | None = None
    with progress_bar() as progress:
        try:
            one = len(configs) == 1
            done = [run(configs[0], folder, progress=progress)] if one else run_many(configs, folder, progress=progress)
        except RunsFailedError as error:
            done, failed = error.done, error
        progress("writing the report", 0, 0)
        report = write_report([d.path for d in done], page) if done else None
    print_table(done)
    print_verdicts(done)
    if report is not None:
        say(f"Report: {report}")
    if failed is not None:
        raise failed


@friendly
def resume_command(run: Path = typer.Argument(help="A run folder, or a folder of run folders.")) -> None:
    """Continue an interrupted RUN, or those below a folder; a finished one is left as it is.

    On the CPU the final weights are bit for bit those of an uninterrupted run.
    """
    from interp_unlearn._core import InterpUnlearnError
    from interp_unlearn.report import page_path, write_report
    from interp_unlearn.runs import resume

    folders, page = open_runs(run), page_path(run / "report.html")
    done, failed = [], []
    with progress_bar() as progress:
        for folder in folders:
            try:
                done.append(resume(folder.path, progress=progress))
            except InterpUnlearnError as error:
                if len(folders) == 1:
                    raise
                failed.append(f"{folder.path}: {error}")
        report = write_report([d.path for d in done], page) if done else None
    print_table(done)
    print_verdicts(done)
    if report is not None:
        say(f"Report: {report}")
    for sentence in failed:
        print_error(sentence)
    if failed:
        raise typer.Exit(2)


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
        say(f"Report: {write_json_report(folders, out)}")
        return
    report = write_report(folders, out or runs[0] / "report.html")
    say(f"Report: {report}")
