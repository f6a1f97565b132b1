"""All commands in one list."""

from __future__ import annotations

import typer

from interp_unlearn._core import __version__
from interp_unlearn.cli._audit import audit_command, gate_command
from interp_unlearn.cli._capture import capture_command
from interp_unlearn.cli._catalog import models_app, worlds_app
from interp_unlearn.cli._compare import compare_command
from interp_unlearn.cli._demo import demo_command
from interp_unlearn.cli._evidence import evidence_command
from interp_unlearn.cli._explore import explore_command
from interp_unlearn.cli._run import report_command, resume_command, run_command
from interp_unlearn.cli._sae import sae_app
from interp_unlearn.cli._sweep import sweep_command

HELP = """Look inside a model while it forgets.

[bold]Start here[/bold]

  interp-unlearn demo                 forget an entity with three methods, compare, open the report

  interp-unlearn models / worlds      what can be opened, and what can be forgotten

[bold]Your own run[/bold]: write a config and run it

  \\[model]                    name = "smollm2-135m"          (or a path, or a hub id)

  \\[world]                    name = "countries"

  \\[target]                   entities = ["Japan"]           relations = ["capital"]

  \\[recipe]                   objective = "npo"

  interp-unlearn run japan.toml --out runs/japan     Ctrl-C stops it, the same command continues it

  interp-unlearn report runs/japan                   rewrites the report from saved files

  interp-unlearn explore runs                        all runs in the browser, on this machine alone

[bold]Unlearned elsewhere[/bold]

  interp-unlearn audit BEFORE AFTER --target Japan   the same report for two checkpoints of other tools

  interp-unlearn evidence runs/japan --level full    adds evidence to a finished run

  interp-unlearn gate runs/japan --require forgotten --max-side-effects 0.05     exit code 0 or 1, for scripts

[bold]Many runs[/bold]

  interp-unlearn sweep grid.toml                     methods × targets × seeds × hyperparameters, resumable

  interp-unlearn compare runs/grid                   means and intervals, relative to the original and to gold
"""

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_show_locals=False)


def _version(show: bool) -> bool:
    if show:
        print(f"interp-unlearn {__version__}")
        raise typer.Exit
    return show


@app.callback()
def main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Global options."""


main.__doc__ = None
app.command("demo")(demo_command)
app.command("run")(run_command)
app.command("resume")(resume_command)
app.command("report")(report_command)
app.command("explore")(explore_command)
app.command("audit")(audit_command)
app.command("evidence")(evidence_command)
app.command("gate")(gate_command)
app.command("sweep")(sweep_command)
app.command("compare")(compare_command)
app.command("capture")(capture_command)
app.add_typer(sae_app, name="sae")
app.add_typer(models_app, name="models")
app.add_typer(worlds_app, name="worlds")
