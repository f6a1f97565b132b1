"""Progress on the terminal, and errors as one clear sentence with exit code 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from interp_unlearn._core import InterpUnlearnError

F = TypeVar("F", bound=Callable[..., Any])
# Names and paths may hold square brackets and colons: they are printed as they are, never as markup.
console = Console(markup=False, emoji=False)
errors = Console(stderr=True, markup=False, emoji=False)
INTERRUPTED = "Interrupted; what was done is saved. The same command goes on."


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
        TextColumn("{task.description}", markup=False),
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
        except (InterpUnlearnError, OSError) as error:
            print_error(str(error))
            raise typer.Exit(2) from error
        except UnicodeDecodeError as error:
            print_error(f"a file is not UTF-8 text ({error}); save it as UTF-8")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            errors.print(f"\n{INTERRUPTED}", highlight=False)
            raise typer.Exit(130) from error

    return wrapped  # type: ignore[return-value]


def print_error(text: str) -> None:
    """Print one sentence to standard error."""
    errors.print(Text.assemble(("Error: ", "bold red"), text), soft_wrap=True)


def say(text: str) -> None:
    """Print one line as it is, however long."""
    console.print(text, highlight=False, soft_wrap=True)
