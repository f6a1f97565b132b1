"""Progress on the terminal, and errors as one clear sentence with exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from interp_unlearn._core import InterpUnlearnError

F = TypeVar("F", bound=Callable[..., Any])
console = Console()
errors = Console(stderr=True)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A live bar; yields the callback that the runs room calls with (what, done, total).

    Where the output is not a terminal, each new stage is printed once as a line.
    """
    if not console.is_terminal:
        last = [""]

        def lines(what: str, _done: int, total: int) -> None:
            if what != last[0]:
                last[0] = what
                print(f"· {what}" + (f" ({total} steps)" if total else ""), flush=True)

        yield lines
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None, count="")

        def update(what: str, done: int, total: int) -> None:
            count = f"{done}/{total}" if total else ""
            bar.update(task, description=what, completed=done, total=total or None, count=count)

        yield update


def friendly(command: F) -> F:
    """Turn expected errors into one sentence on standard error and exit code 2; Ctrl-C into exit code 130."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except InterpUnlearnError as error:
            errors.print(f"[bold red]Error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error
        except OSError as error:
            errors.print(f"[bold red]Error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            errors.print(
                "\nInterrupted; what was done is saved. Continue with: interp-unlearn resume RUN", highlight=False
            )
            raise typer.Exit(130) from error

    return wrapped  # type: ignore[return-value]


def _plain(text: str) -> str:
    """Text with rich markup taken literally."""
    return text.replace("[", "\\[")


def fail(message: str) -> typer.Exit:
    """Print one sentence to standard error; raise what this returns."""
    print(message, file=sys.stderr)
    return typer.Exit(2)
