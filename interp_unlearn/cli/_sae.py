"""`sae train|eval|scores`."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import get_args

import typer
from rich.table import Table

from interp_unlearn.cli._console import console, friendly, progress_bar, say
from interp_unlearn.cli._paths import check_file, documents

sae_app = typer.Typer(help="Train, evaluate and read sparse autoencoders (SAEs).", no_args_is_help=True)


@sae_app.command("train")
@friendly
def train_command(
    recipe: Path = typer.Argument(help="TOML recipe, see saes/ for the shipped ones."),
    out: Path = typer.Option(
        ..., "--out", "-o", help="Folder of the SAE; a second call continues an interrupted training."
    ),
) -> None:
    """Collect activations of the recipe's texts, then train an SAE through sae-lens and save it in SAELens format."""
    from interp_unlearn._core import ConfigError
    from interp_unlearn.hooked import MaskPolicy, write_store
    from interp_unlearn.latents import SAETrainConfig, token_rows, train_sae
    from interp_unlearn.zoo import open_model

    check_file(recipe, "a TOML recipe, such as saes/smollm2-135m-l12.toml")
    config = SAETrainConfig.from_toml(recipe)
    here = recipe.parent
    names = (n for p in config.texts for n in glob(p, root_dir=here, recursive=True))  # noqa: PTH207 (absolute ones too)
    found = {here / name for name in names}
    files = sorted(file for file in found if file.is_file())
    if not files:
        raise ConfigError(
            f"texts of {recipe} match no file; name text files relative to the recipe, e.g. ['corpus/*.txt']"
        )
    texts = [document for file in files for document in documents(file)]
    with progress_bar() as progress:
        progress("opening the model", 0, 0)
        model = open_model(config.model)
        rows = token_rows(model, texts, config.context)[: max(1, config.max_tokens // config.context)]
        progress(f"collecting activations of {len(rows)} rows", 0, 0)
    policy = next(p for p in get_args(MaskPolicy) if p == config.mask_policy)
    store = write_store(model, rows, config.site, out / "activations", mask_policy=policy)
    train_sae(config, out, data=store)
    say(f"SAE: {out}")


@sae_app.command("eval")
@friendly
def eval_command(
    sae: str = typer.Argument(help="Shipped name or SAELens folder."),
    text: Path = typer.Argument(help="Held-out text file."),
    model: str = typer.Option("smollm2-135m", help="The model that the SAE was trained on."),
    max_tokens: int = typer.Option(20_000, help="Use so many tokens at most.", min=1),
    length: int = typer.Option(128, help="Tokens per sequence.", min=2),
) -> None:
    """Explained variance, L0, dead latents and recovered loss of an SAE on TEXT."""
    from interp_unlearn.latents import evaluate_sae, load_sae
    from interp_unlearn.zoo import open_model

    texts = documents(text)
    opened = open_model(model)
    loaded = load_sae(sae)
    loaded.check_fits(opened)
    report = evaluate_sae(loaded, opened, texts, max_tokens=max_tokens, context=length)
    table = Table("measure", "value", title=f"{sae} on {text.name}")
    for name, value in report.to_dict().items():
        if isinstance(value, (int, float)):
            table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value))
    console.print(table)


@sae_app.command("scores")
@friendly
def scores_command(
    sae: str = typer.Argument(help="Shipped name or SAELens folder."),
    model: str = typer.Option("smollm2-135m", help="The model that the SAE was trained on."),
    world: list[str] = typer.Option(
        ["countries", "people"], help="Worlds whose entities are compared with invented ones."
    ),
    top: int = typer.Option(10, help="Show so many latents a side.", min=1),
) -> None:
    """Latents that tell known entities from invented ones (Ferrando et al., arXiv 2411.14257)."""
    import torch

    from interp_unlearn.hooked import capture, span_last_token
    from interp_unlearn.latents import generic_rate, load_sae, separation_scores
    from interp_unlearn.worlds import fill_mention, load_world
    from interp_unlearn.zoo import open_model

    opened = open_model(model)
    loaded = load_sae(sae)
    loaded.check_fits(opened)
    latents: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    types: dict[bool, list[str]] = {True: [], False: []}
    texts: list[str] = []
    for name in world:
        found = load_world(name, tokenizer=opened.tokenizer)
        texts += found.text_train
        templates = [t for t in found.templates if not t.relation and t.split == "train"]
        for known, entities in ((True, found.entities), (False, found.unknown)):
            mentions = [fill_mention(t, e) for e in entities for t in templates if t.type == e.type]
            batch = opened.batch([m.text for m in mentions])
            columns = span_last_token(batch, [m.name_span for m in mentions])
            rows = capture(opened, batch, [loaded.site], positions=columns, batch_size=64)[loaded.site][:, 0]
            latents[known].append(loaded.encode(rows))
            types[known] += [t.type for e in entities for t in templates if t.type == e.type]
    generic = generic_rate(loaded, opened, texts)
    scores = separation_scores(
        torch.cat(latents[True]), torch.cat(latents[False]), types[True], types[False], generic=generic
    )
    table = Table("side", "latent", "general score", title=f"{sae}: known against unknown entities")
    for side, chosen, score in (
        ("known", scores.top_known(top), scores.general_known),
        ("unknown", scores.top_unknown(top), scores.general_unknown),
    ):
        for latent in chosen:
            table.add_row(side, str(latent), f"{float(score[latent]):.3f}")
    console.print(table)
