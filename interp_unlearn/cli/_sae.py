"""`sae train|eval|scores`."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from interp_unlearn.cli._console import console, friendly, progress_bar

sae_app = typer.Typer(help="Train, evaluate and read sparse autoencoders.", no_args_is_help=True)
