"""`models` and `worlds`: what can be opened and what can be forgotten."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from interp_unlearn._core import ConfigError
from interp_unlearn.cli._console import console, friendly, say

models_app = typer.Typer(help="List models, or fetch one into the cache.", invoke_without_command=True)
worlds_app = typer.Typer(help="List worlds, or show one's entities and relations.", invoke_without_command=True)


@models_app.callback()
@friendly
def list_models_command(ctx: typer.Context) -> None:
    """List the models that can be opened by name; paths and hub ids work everywhere too."""
    if ctx.invoked_subcommand:
        return
    from interp_unlearn.zoo import IMAGE_MODELS, list_models

    table = Table("name", "in the cache", "licence", "about")
    for row in list_models():
        table.add_row(row["name"], "yes" if row["ready"] else "no", row["licence"], row["summary"])
    for name, about in IMAGE_MODELS.items():
        table.add_row(name, "one for each image set", "Apache-2.0", f"image classifier: {about}")
    console.print(table)
    say("Fetch one with: interp-unlearn models fetch NAME")


@models_app.command("fetch")
@friendly
def fetch_command(name: str = typer.Argument(help="A name from `interp-unlearn models`.")) -> None:
    """Download and convert a model once; it is kept as safetensors in the cache."""
    from interp_unlearn.zoo import IMAGE_MODELS, fetch_model

    if name in IMAGE_MODELS:
        say(f"{name} is trained by the first run that needs it, and then kept; there is nothing to fetch")
        return
    path = fetch_model(name)
    say(f"{name} is ready in {path}")


@worlds_app.callback()
@friendly
def list_worlds_command(ctx: typer.Context) -> None:
    """List the worlds: facts with ground truth, from which questions are made, graphs and images."""
    if ctx.invoked_subcommand:
        return
    from interp_unlearn.benchmarks import GRAPHS, IMAGE_SETS
    from interp_unlearn.worlds import list_worlds

    table = Table("name", "needs a data folder", "about")
    for row in list_worlds():
        table.add_row(row["name"], "yes" if row["needs_data"] else "no", row["summary"])
    for name, summary in GRAPHS.items():
        table.add_row(name, "no" if name in ("citations", "karate") else "yes", f"graph: {summary}")
    for name, about in IMAGE_SETS.items():
        table.add_row(name, "yes" if "needs data_dir" in about else "no", f"images: {about}")
    console.print(table)
    say("Look into one with: interp-unlearn worlds show NAME")


@worlds_app.command("show")
@friendly
def show_world_command(
    name: str = typer.Argument(help="A name from `interp-unlearn worlds`."),
    data_dir: Path | None = typer.Option(None, help="Folder with data files, for worlds that need them."),
    entity: str | None = typer.Option(None, help="Show the facts of one entity."),
) -> None:
    """Show a world's entities and relations, or what can be forgotten of a graph or of images."""
    from interp_unlearn.benchmarks import GRAPHS, IMAGE_SETS
    from interp_unlearn.worlds import load_world

    if name in GRAPHS or name in IMAGE_SETS:
        if entity is not None:
            raise ConfigError(f"--entity {entity} asks for facts, and {name} has none; leave it out")
        _show_graph(name, data_dir) if name in GRAPHS else _show_images(name, data_dir)
        return
    world = load_world(name, data_dir=data_dir)
    if entity is not None:
        found = world.entity(entity)
        table = Table("relation", "answer", title=found.name)
        for fact in world.facts_of(found.id):
            table.add_row(fact.relation, ", ".join((fact.answer, *fact.also)))
        console.print(table)
        return
    table = Table("type", "entities", "relations", "for example")
    for kind in world.types:
        members = world.of_type(kind)
        table.add_row(kind, str(len(members)), ", ".join(world.relations(kind)), ", ".join(e.name for e in members[:6]))
    console.print(table)


def _show_graph(name: str, data_dir: Path | None) -> None:
    from interp_unlearn.benchmarks import load_graph

    graph = load_graph(name, data_dir=data_dir)
    table = Table("class", "nodes")
    for index, label in enumerate(graph.classes):
        table.add_row(label, str(int((graph.labels == index).sum())))
    console.print(table)
    say(f"{graph.n_nodes} nodes, {graph.edges.shape[1]} edges. A run forgets edges, nodes or a class: docs/graphs.md")


def _show_images(name: str, data_dir: Path | None) -> None:
    from interp_unlearn.benchmarks import load_images

    images = load_images(name, data_dir)
    table = Table("class", "training images", "of them in another setting", "evaluation images")
    for index, label in enumerate(images.classes):
        mine = images.labels == index
        train = mine & images.train
        counts = (train, train & ~images.aligned, mine & ~images.train)
        table.add_row(label, *(str(int(count.sum())) for count in counts))
    console.print(table)
    say("A run forgets one class: docs/images.md")
