"""`audit` and `gate`: judge models unlearned by other tools, and hold runs against demands."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import typer

from interp_unlearn._core import ConfigError
from interp_unlearn.cli._console import friendly, progress_bar, say
from interp_unlearn.cli._paths import check_file
from interp_unlearn.cli._table import print_table, print_verdicts


def world_options(given: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as a table; values are written as in TOML.

    Raises:
        ConfigError: If a text is none.
    """
    try:
        return tomllib.loads("\n".join(given))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--world-option {' '.join(given)} is not KEY=VALUE as in TOML ({error})") from error


def plain_name(checkpoint: str) -> str:
    """A checkpoint's name without the folders around it and the ending of a file, for a folder's name."""
    name = Path(checkpoint).name or Path(checkpoint).resolve().name
    for ending in (".safetensors", ".gguf"):
        name = name.removesuffix(ending)
    return name or "unlearned"


@friendly
def audit_command(
    original: str = typer.Argument(help="The model before: folder, name from `interp-unlearn models`, or hub id."),
    unlearned: str = typer.Argument(
        help="The model after: folder, name, adapter folder over ORIGINAL, or .safetensors delta."
    ),
    target: list[str] = typer.Option([], "--target", "-t", help="What was to be forgotten (may be repeated)."),
    relation: list[str] = typer.Option([], help="Only this relation (may be repeated); default the whole entity."),
    world: str = typer.Option("countries", help="Where facts come from, see `interp-unlearn worlds`."),
    data_dir: Path | None = typer.Option(None, help="Folder with data files, for worlds that need them."),
    world_option: list[str] = typer.Option([], help="Option of the world as KEY=VALUE, e.g. aligned=0.995 (repeat)."),
    questions: Path | None = typer.Option(None, help="Your own questions (.json, .jsonl), instead of a world."),
    gold: str | None = typer.Option(None, help="A model trained without the target, of the same architecture."),
    sae: str | None = typer.Option(None, help="SAE of the original: a shipped name or a SAELens folder."),
    second_sae: str | None = typer.Option(None, help="Another SAE that judges too."),
    level: str = typer.Option("standard", help="Evidence level: quick, standard or full."),
    relearn: bool = typer.Option(True, help="Run the relearning attack."),
    require_known: bool = typer.Option(True, help="Leave out questions that ORIGINAL does not answer word for word."),
    n_known: int = typer.Option(40, help="Known entities beside the target at most."),
    n_unknown: int = typer.Option(40, help="Unknown entities at most."),
    layer_stride: int = typer.Option(3, help="Capture every so many layers."),
    seed: int = typer.Option(0, help="Seed of splits and attacks."),
    name: str | None = typer.Option(None, help="Name in the report; default that of UNLEARNED."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Folder; default runs/audit-<name of UNLEARNED>."),
) -> None:
    """Look inside two checkpoints made by any tool, before and after unlearning, and write the report of a run.

    UNLEARNED is compared with ORIGINAL tensor by tensor and kept as a delta in an ordinary run folder, which report,
    compare, evidence and gate read. A second call with the same arguments continues.

    Exit code 2 means that the checkpoints cannot be audited; the sentence says why.
    """
    from interp_unlearn.report import page_path, write_report
    from interp_unlearn.runs import WorldSpec, audit, chosen_parts

    chosen_parts(level, ())
    if questions is not None:
        check_file(questions, "a file of questions (.json, .jsonl)")
    folder = out or Path("runs") / f"audit-{plain_name(unlearned)}"
    page = page_path(folder / "report.html")
    options = world_options(world_option)
    spec = WorldSpec(world, str(data_dir) if data_dir else None, n_known, n_unknown, options=options)
    with progress_bar() as progress:
        done = audit(
            original,
            unlearned,
            folder,
            target=target,
            relations=relation,
            world=spec,
            questions=questions,
            gold=gold,
            sae=sae,
            second_sae=second_sae,
            level=level,
            relearn=relearn,
            require_known=require_known,
            layer_stride=layer_stride,
            seed=seed,
            name=name,
            progress=progress,
        )
        progress("writing the report", 0, 0)
        report = write_report([done.path], page)
    print_table([done])
    print_verdicts([done])
    say(f"Report: {report}")


@friendly
def gate_command(
    runs: list[Path] = typer.Argument(help="Finished run folders, or folders that hold runs at any depth."),
    require: list[str] = typer.Option([], help="Verdict that passes, e.g. forgotten (may be repeated)."),
    max_side_effects: float | None = typer.Option(
        None, help="Largest side effect that passes, as a share, e.g. 0.05: questions lost, or rise of the text loss."
    ),
    min_probability: float | None = typer.Option(None, help="Least probability of the verdict that passes."),
    min_attacks: int = typer.Option(3, help="So many attacks must have been run before 'forgotten' passes.", min=0),
) -> None:
    """Hold runs against demands, for scripts: exit code 0 if all pass, 1 if one does not, 2 if it cannot be told."""
    from interp_unlearn.report import find_runs, gate, read_run

    limits = {"max_side_effects": max_side_effects, "min_probability": min_probability}
    results = [gate(read_run(folder), require, **limits, min_attacks=min_attacks) for folder in find_runs(runs)]
    for result in results:
        words = "passes" if result.passed else "does not pass: " + "; ".join(result.reasons)
        say(f"{result.run} {words}.")
    if not all(result.passed for result in results):
        raise typer.Exit(1)
