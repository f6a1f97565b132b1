"""`demo`: the whole flow on a real model, then on a small world whose truth we own."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import typer

from interp_unlearn._core import ConfigError
from interp_unlearn.cli._console import console, friendly, progress_bar
from interp_unlearn.cli._table import print_partitions, print_table, print_verdicts


def demo_config(name: str, entity: str | None, seed: int) -> dict[str, Any]:
    """A demo's config, with another target or seed where given."""
    text = (files("interp_unlearn.cli") / "configs" / f"demo-{name}.toml").read_text(encoding="utf-8")
    config = tomllib.loads(text)
    config["seed"] = seed
    if entity is not None:
        config["target"]["entities"] = [entity]
    return config


@friendly
def demo_command(
    out: Path = typer.Option(Path("runs/demo"), "--out", "-o", help="Folder of the runs and the report."),
    target: str | None = typer.Option(None, help="Country to forget on the real model; default Japan."),
    seed: int = typer.Option(0, help="Seed of splits, training and attacks."),
    tinyworld: bool = typer.Option(True, help="Also run the small world with its gold model."),
    vision: bool = typer.Option(False, "--vision", help="Instead, an image classifier forgets a class (one minute)."),
    graph: bool = typer.Option(False, "--graph", help="Instead, a graph network forgets edges (half a minute)."),
    data: Path | None = typer.Option(None, help="With --graph: a graph's .npz, instead of a generated graph."),
) -> None:
    """Forget one entity with three methods, look inside before and after, attack, and write a report.

    First SmolLM2-135M forgets a capital city by gradient ascent (GA), negative preference optimisation (NPO) and the
    SAE-guided objective. Then a small model trained here does the same, and is compared with its gold model, retrained
    without the target. About ten minutes on two quiet cores; Ctrl-C stops, the same command continues.

    With --vision, a small image classifier that learned a shortcut is trained here and forgets a class. With --graph, a
    graph network that predicts citations is trained here and forgets 5 % of them.
    """
    from interp_unlearn.report import write_report
    from interp_unlearn.runs import configs_from_dict, run_many

    if data is not None and not graph:
        raise ConfigError("--data is a graph's file; add --graph, or leave it out")
    names = ["smollm2", "tinyworld"] if tinyworld else ["smollm2"]
    if vision or graph:
        names = ["vision"] * vision + ["graph"] * graph
    finished = []
    with progress_bar() as progress:
        for name in names:
            given = demo_config(name, target if name != "tinyworld" else None, seed)
            if name == "graph" and data is not None:
                given["world"] = {"name": "graph", "options": {"path": str(data.resolve())}}
            configs = configs_from_dict(given)
            finished.append(run_many(configs, out / name, progress=progress))
        progress("writing the report", 0, 0)
        report = write_report([folder.path for group in finished for folder in group], out / "report.html")
    for group in finished:
        print_table(group)
        print_verdicts(group)
        print_partitions(group)
    console.print(f"Report (opens offline): {report}", highlight=False, soft_wrap=True)
