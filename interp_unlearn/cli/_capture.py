"""`capture`: activations of a text file at chosen sites, streamed to disk."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import typer

from interp_unlearn.cli._console import friendly, say
from interp_unlearn.cli._paths import documents


@friendly
def capture_command(
    model: str = typer.Argument(help="Zoo name, path or hub id."),
    text: Path = typer.Argument(help="Text file; documents are separated by blank lines."),
    site: str = typer.Option(..., "--site", "-s", help="For example blocks.12.hook_resid_post."),
    out: Path = typer.Option(
        ..., "--out", "-o", help="Folder of the store; a second call continues an unfinished one."
    ),
    length: int = typer.Option(128, help="Tokens per sequence.", min=2),
    batch_size: int = typer.Option(16, help="Sequences per forward pass.", min=1),
    mask_policy: str = typer.Option("inner", help="all, content or inner (see the documentation of token masks)."),
) -> None:
    """Write the activations of TEXT at one site into an on-disk store that resumes after a kill."""
    from interp_unlearn._core import DataError
    from interp_unlearn.hooked import MASK_POLICIES, MaskPolicy, write_store
    from interp_unlearn.latents import token_rows
    from interp_unlearn.zoo import open_model

    texts = documents(text)
    policy = next((p for p in get_args(MaskPolicy) if p == mask_policy), None)
    if policy is None:
        raise DataError(f"--mask-policy {mask_policy} is not one of {', '.join(MASK_POLICIES)}")
    opened = open_model(model)
    rows = token_rows(opened, texts, length)
    store = write_store(opened, rows, site, out, batch_size=batch_size, mask_policy=policy)
    say(f"{len(store)} rows of {site} in {out}")
