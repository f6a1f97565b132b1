"""`sweep`: many runs from one file, on several workers, with what is going on shown as it goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from interp_unlearn.cli._console import console, friendly, say
from interp_unlearn.cli._paths import check_file

if TYPE_CHECKING:
    from interp_unlearn.runs import Outcome, SweepConfig, SweepRun

WORDS = {
    "done": "finished",
    "skipped": "were finished already",
    "failed": "failed",
    "failed before": "failed before",
    "lost": "lost with their worker",
    "stopped": "stopped",
}


@friendly
def sweep_command(
    config: Path = typer.Argument(help="TOML file: a run's tables, and [sweep] with targets and seeds."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Folder of the sweep; default runs/<config name>."),
    workers: int | None = typer.Option(None, help="Processes; default one for every two cores."),
    threads: int | None = typer.Option(None, help="Threads of each; default what the cores allow (with Ray 1)."),
    ray: bool = typer.Option(False, "--ray", help="Work on a Ray cluster, started here unless an address is given."),
    ray_address: str | None = typer.Option(None, help="A running cluster, e.g. auto, or host:port. Implies --ray."),
    retry_failed: bool = typer.Option(False, "--retry-failed", help="Also continue runs that failed before."),
    only: list[str] = typer.Option([], help="Only this recipe (may be repeated)."),
    seed: list[int] = typer.Option([], help="Only this seed (may be repeated)."),
    show: bool = typer.Option(False, "--list", help="List the runs and what there is of each; run nothing."),
) -> None:
    r"""Run every method on every target with every seed and every value of a grid; a second call goes on.

    On top of a run's config:

        \[sweep]
        targets = \["Japan", "Egypt"]
        seeds = \[0, 1, 2]

        \[\[recipe]]
        objective = "npo"
        \[recipe.grid]
        lr = \[1e-5, 2e-5]

    Each run has its own folder, OUT/<target>-seed<seed>/<recipe>. Finished runs are skipped, interrupted ones
    continued; a worker that is killed loses its own run only. Exit code 1 means that some run is not finished.
    """
    from interp_unlearn.runs import load_sweep, plan, sweep

    check_file(config, "a TOML file with a table [sweep]")
    runs = load_sweep(config).only(only, seed)
    folder = out or Path("runs") / config.stem
    if show:
        _print_plan(runs, plan(runs, folder))
        return
    try:
        with _watching(folder) as watch:
            outcomes = sweep(
                runs,
                folder,
                workers=workers,
                threads=threads,
                ray=ray,
                ray_address=ray_address,
                retry_failed=retry_failed,
                watch=watch,
            )
    except KeyboardInterrupt as error:
        say("Stopped; what was done is saved. The same command continues.")
        raise typer.Exit(130) from error
    _print_outcomes(outcomes)
    say(f"Side by side: interp-unlearn compare {folder}")
    if not all(outcome.good for outcome in outcomes):
        raise typer.Exit(1)


def _print_plan(config: SweepConfig, states: Mapping[str, str]) -> None:
    table = Table("run", "state", box=None)
    for run in config.runs:
        table.add_row(Text(run.name), states[run.name])
    console.print(table)
    counts = Counter(states.values())
    console.print(", ".join(f"{n} {state}" for state, n in counts.items()), highlight=False)


def _print_outcomes(outcomes: Sequence[Outcome]) -> None:
    counts = Counter(outcome.state for outcome in outcomes)
    said = ", ".join(f"{counts[state]} {words}" for state, words in WORDS.items() if counts[state])
    say(f"{len(outcomes)} runs: {said}.")
    for outcome in outcomes:
        if not outcome.good:
            say(f"  {outcome.state}: {outcome.run.name}: {outcome.message}")
    if counts["failed"] or counts["failed before"]:
        say("Try the failed ones again with --retry-failed.")
    if counts["lost"] or counts["stopped"]:
        say("The same command continues what was lost or stopped.")


@contextmanager
def _watching(
    folder: Path,
) -> Iterator[Callable[[Sequence[SweepRun], Outcome | None, int, int], None]]:
    """A live bar with a line for each run in work; where the output is not a terminal, a line when a run ends."""
    from interp_unlearn.runs import progress_of

    def line(outcome: Outcome, done: int, total: int) -> Text:
        words = f"{outcome.state}: {outcome.run.name}, {outcome.seconds:.0f} s"
        return Text(f"[{done}/{total}] {words}" + (f": {outcome.message}" if outcome.message else ""))

    if not console.is_terminal:

        def lines(_active: Sequence[SweepRun], ended: Outcome | None, done: int, total: int) -> None:
            if ended is not None:
                print(line(ended, done, total).plain, flush=True)

        yield lines
        return
    bar = Progress(
        TextColumn("runs"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    task = bar.add_task("runs", total=None)
    with Live(bar, console=console, refresh_per_second=4, transient=True) as live:

        def update(active: Sequence[SweepRun], ended: Outcome | None, done: int, total: int) -> None:
            if ended is not None:
                live.console.print(line(ended, done, total), soft_wrap=True)
            bar.update(task, completed=done, total=total)
            going = [Text(f"  {run.name}: {progress_of(run, folder) or '…'}", style="dim") for run in active]
            live.update(Group(bar, *going))

        yield update
