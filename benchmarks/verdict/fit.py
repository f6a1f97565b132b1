"""Fit the verdict on a collected table, measure it on what it has not seen, and write the numbers into the docs.

    python benchmarks/verdict/fit.py benchmarks/verdict/data/tinyworld.csv
    python benchmarks/verdict/fit.py … --transfer benchmarks/verdict/data/smollm2.csv

writes ``interp_unlearn/verdict/calibration.json`` and the tables between the markers of ``docs/verdict.md``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from tables import fill, markdown

import interp_unlearn.attacks  # noqa: F401  (registers its parts)
from interp_unlearn._core import DataError
from interp_unlearn.probes import LEVELS, PARTS
from interp_unlearn.verdict import FEATURES, Dataset, Evaluation, Feature, FitOptions, evaluate, fit

ROOT = Path(__file__).resolve().parents[2]
LEVEL = "standard"
"""The verdict reads what this evidence level measures; features of dearer parts are compared with it and not used."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="table written by collect.py")
    parser.add_argument(
        "--transfer", type=Path, default=None, help="runs of another model, judged and not learned from"
    )
    parser.add_argument("--where", default="TinyWorld", help="what the data are, for the calibration's provenance")
    parser.add_argument("--calibration", type=Path, default=ROOT / "interp_unlearn" / "verdict" / "calibration.json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "verdict.md")
    parser.add_argument("--target-folds", type=int, default=4)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="print the tables and write nothing")
    arguments = parser.parse_args()
    data, options, used = Dataset.load(arguments.data), FitOptions(seed=arguments.seed), offered(LEVEL)
    facts = {"where": arguments.where, "file": arguments.data.name, "level": LEVEL}
    calibration = fit(data, features=used, options=options, provenance=facts)
    found: dict[str, Evaluation] = {}
    for kind in ("method", "trick"):
        try:
            found[kind] = evaluate(
                data,
                by=(kind, "target"),
                features=used,
                options=options,
                target_folds=arguments.target_folds,
                draws=arguments.draws,
            )
        except (DataError, KeyError) as error:
            print(f"not tested with {kind} left out: {error}")
    transfer = None
    if arguments.transfer is not None:
        transfer = evaluate(Dataset.load(arguments.transfer), calibration=calibration, draws=arguments.draws)
    metrics = {f"left out {kind} and target": e.to_json() for kind, e in found.items()}
    if transfer is not None:
        metrics[f"transfer to {arguments.transfer.stem}"] = transfer.to_json()
    calibration = replace(calibration, metrics=metrics)
    text = markdown(data, calibration, found, transfer)
    print(text)
    if not arguments.dry_run:
        calibration.save(arguments.calibration)
        arguments.docs.write_text(fill(arguments.docs.read_text(encoding="utf-8"), text), encoding="utf-8")
        print(f"wrote {arguments.calibration} and {arguments.docs}")
    return 0


def offered(level: str) -> tuple[Feature, ...]:
    """The features that an evidence level measures."""
    dear = {name for name in PARTS if LEVELS.index(PARTS[name].level) > LEVELS.index(level)}
    return tuple(f for f in FEATURES if f.source.partition(".")[0] not in dear)


if __name__ == "__main__":
    sys.exit(main())
