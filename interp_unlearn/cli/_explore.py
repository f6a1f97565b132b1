"""`explore`: look at run folders in a browser, on this machine alone."""

from __future__ import annotations

from pathlib import Path

import typer

from interp_unlearn.cli._console import friendly, say

PACKAGE = Path(__file__).resolve().parents[1]


@friendly
def explore_command(
    runs: Path = typer.Argument(Path("runs"), help="A folder that holds runs at any depth, or one run folder."),
    port: int | None = typer.Option(None, min=1, max=65535, help="Default: the first free one from 8501."),
    browser: bool = typer.Option(True, help="Open a browser; without it, only print the address."),
) -> None:
    """Explore finished and running RUNS in the browser: what moved inside, the evidence, the attacks, a playground.

    It listens on 127.0.0.1 only, needs no network, and reads what runs have saved. Ctrl-C ends it.
    """
    from interp_unlearn._core import optional_import

    check_runs(runs)
    streamlit = optional_import("streamlit.web.cli", "app", "the explorer")
    say("The explorer listens on this machine only. Ctrl-C ends it.")
    streamlit.main(arguments(runs, port=port, browser=browser), prog_name="streamlit")


def check_runs(runs: Path) -> None:
    """Refuse a folder in which there is nothing to explore.

    Raises:
        FileFormatError: With what to do.
    """
    from interp_unlearn._core import FileFormatError
    from interp_unlearn.report import find_runs

    make = "make one with: interp-unlearn demo, or: interp-unlearn run CONFIG --out FOLDER/NAME"
    if not runs.is_dir():
        raise FileFormatError(f"there is no folder {runs}; give the folder that holds your runs, or {make}")
    try:
        find_runs([runs])
    except FileFormatError as error:
        raise FileFormatError(f"{runs} holds no run folder yet; {make}") from error


def explorer_script() -> Path:
    """The script that streamlit runs: in a checkout beside the package, in a wheel inside it.

    Raises:
        FileFormatError: If it is in neither place.
    """
    from interp_unlearn._core import FileFormatError

    for apps in (PACKAGE / "_apps", PACKAGE.parent / "apps"):
        if (apps / "explorer" / "main.py").is_file():
            return apps / "explorer" / "main.py"
    raise FileFormatError(
        f"the explorer is not part of this installation of {PACKAGE}; install interp-unlearn[app] again"
    )


def arguments(runs: Path, *, port: int | None = None, browser: bool = True) -> list[str]:
    """What streamlit is called with to serve ``runs``.

    What keeps it on this machine is given here, where no file of the user's can change it.
    """
    settings = {
        "server.address": "127.0.0.1",
        "browser.gatherUsageStats": "false",
        "server.headless": "false" if browser else "true",
        **({"server.port": str(port)} if port else {}),
    }
    flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
    return ["run", str(explorer_script()), *flags, "--", str(runs.resolve())]
