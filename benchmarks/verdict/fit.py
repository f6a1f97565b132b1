"""Fit the verdict on a collected table, measure it on what it has not seen, and write the numbers into the docs.

    python benchmarks/verdict/fit.py benchmarks/verdict/data/tinyworld.csv
    python benchmarks/verdict/fit.py … --transfer benchmarks/verdict/data/smollm2.csv

writes ``calibration.json`` and ``calibration-quick.json`` (for runs with no more than the evidence level ``quick``)
into ``interp_unlearn/verdict``, and the tables between the markers of ``docs/verdict.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tables import fill, in_short, markdown

import interp_unlearn.runs  # noqa: F401  (registers every part)
from interp_unlearn._core import DataError
from interp_unlearn.probes import LEVELS, PARTS
from interp_unlearn.verdict import FEATURES, Dataset, Evaluation, Feature, FitOptions, evaluate, fit

ROOT = Path(__file__).resolve().parents[2]
LEVEL = "standard"
"""The verdict reads what this evidence level measures; features of dearer parts are compared with it and not used."""
FILES = {LEVEL: ("calibration.json", ("method", "trick")), "quick": ("calibration-quick.json", ("method",))}
"""File of the calibration for each evidence level, and what is left out to test it, beside the target."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="table written by collect.py")
    parser.add_argument(
        "--transfer", type=Path, default=None, help="runs of another model, judged and not learned from"
    )
    parser.add_argument("--where", default="TinyWorld", help="what the data are, for the calibration's provenance")
    parser.add_argument("--out", type=Path, default=ROOT / "interp_unlearn" / "verdict", help="folder")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "verdict.md")
    parser.add_argument("--target-folds", type=int, default=4)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", default="", help="print the tables without features that begin so, e.g. weights.")
    parser.add_argument("--dry-run", action="store_true", help="print the tables and write nothing")
    arguments = parser.parse_args()
    writes = not (arguments.dry_run or arguments.without)
    data = Dataset.load(arguments.data)
    other = None if arguments.transfer is None else Dataset.load(arguments.transfer)
    facts = {"where": arguments.where, "file": arguments.data.name}
    settings = {"target_folds": arguments.target_folds, "draws": arguments.draws}
    options = FitOptions(seed=arguments.seed)
    text = []
    for level, (name, kinds) in FILES.items():
        used = offered(level, arguments.without)
        calibration = fit(data, features=used, options=options, provenance={**facts, "level": level})
        found = tested(data, kinds, features=used, options=options, **settings)
        moved = None if other is None else evaluate(other, calibration=calibration, draws=arguments.draws)
        metrics = {f"left out {kind} and target": e.to_json() for kind, e in found.items()}
        if moved is not None:
            metrics[f"transfer to {arguments.transfer.stem}"] = moved.to_json()
        calibration = replace(calibration, metrics=metrics)
        whole = level == LEVEL
        text.append(markdown(data, calibration, found, moved) if whole else in_short(calibration, found, moved))
        if writes:
            calibration.save(arguments.out / name)
    page = "\n\n".join(text)
    print(page)
    if writes:
        arguments.docs.write_text(fill(arguments.docs.read_text(encoding="utf-8"), page), encoding="utf-8")
        print(f"wrote the calibrations into {arguments.out} and their numbers into {arguments.docs}")
    return 0


def tested(data: Dataset, kinds: Sequence[str], **settings: Any) -> dict[str, Evaluation]:
    """The evaluation with each kind of group, and the target, left out."""
    found: dict[str, Evaluation] = {}
    for kind in kinds:
        try:
            found[kind] = evaluate(data, by=(kind, "target"), **settings)
        except (DataError, KeyError) as error:
            print(f"not tested with {kind} left out: {error}")
    return found


def offered(level: str, without: str = "") -> tuple[Feature, ...]:
    """The features that an evidence level measures, but those whose names begin with ``without``."""
    dear = {name for name in PARTS if LEVELS.index(PARTS[name].level) > LEVELS.index(level)}
    there = [f for f in FEATURES if f.source.partition(".")[0] not in dear]
    return tuple(f for f in there if not (without and f.name.startswith(without)))


if __name__ == "__main__":
    sys.exit(main())
