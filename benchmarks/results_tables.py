"""The tables and paired differences of docs/results.md, from the numbers of every run.

    interp-unlearn compare runs/results/tinyworld --csv-runs docs/data/results_tinyworld_runs.csv
    python benchmarks/results_tables.py docs/data/results_tinyworld_runs.csv
    python benchmarks/results_tables.py A.csv B.csv --narrow docs/data/results_smollm2_runs.csv   # the published file

A cell is the mean over runs ± their standard deviation. A difference is paired: both methods on the same target with
the same seed; a target's number is its mean over seeds, and the interval (95 %, Student's t) takes the target as the
unit, as `interp-unlearn compare` does. Processor times are compared by their paired ratio.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

RECALL, PROBABILITY = "Target, held out: exact", "Target, held out: prob."
MULTI_HOP, BACKWARDS = "Exact on other sets: multi-hop", "Exact on other sets: backwards"
NEIGHBOURS, SAME = "Exact on other sets: neighbours", "Exact on other sets: same answer"
TEXT, T, ENERGY = "Text: loss change", "Alignment: t", "Two-sample: energy distance"
RELEARNED, NEVER = "Relearned: level", "Relearned: control"
SECONDS, MEMORY = "Cost: train, CPU s", "Cost: train, peak MB"
COLUMNS = {
    RECALL: "recall",
    PROBABILITY: "its probability",
    MULTI_HOP: "multi-hop",
    BACKWARDS: "backwards",
    NEIGHBOURS: "neighbours",
    SAME: "same answer, other entities",
    TEXT: "text loss",
    T: "t without an SAE",
    ENERGY: "energy distance",
    RELEARNED: "relearned",
    NEVER: "never known, relearned",
    SECONDS: "train, CPU s",
    MEMORY: "train, peak MB",
}
LABELS = {
    "original": "original",
    "gold": "gold",
    "ga": "GA",
    "grad_diff": "GradDiff",
    "npo": "NPO",
    "simnpo": "SimNPO",
    "dpo": "DPO",
    "idk": "IDK",
    "altpo": "AltPO",
    "wga": "WGA",
    "satimp": "SatImp",
    "pdu": "PDU",
    "undial": "UNDIAL",
    "ceu": "CE-U",
    "task_vector": "task vector",
    "flat": "FLAT, KL",
    "flat tv": "FLAT, TV",
    "npo without retain": "NPO without retain data",
    "meow": "MEOW",
    "rmu": "RMU",
    "sae_guided": "**SAE-guided**",
    "residual": "the same in residual space",
    "random dictionary": "the same in a random dictionary",
    "pca": "the same in principal components",
    "crisp": "CRISP",
    "sae_clamp": "SAE clamp",
    "dsg": "DSG",
    "klue": "KLUE",
    "klue random neurons": "KLUE, random neurons",
    "ga same weights": "GA, weights and samples of KLUE",
    "ga same weights + gu": "the same + GU",
    "ga harsh": "GA at 3e-4",
    "ga harsh + gu": "GA at 3e-4 + GU",
    "ga harsh + gu cone": "GA at 3e-4 + GU, cone",
    "grad_diff harsh": "GradDiff at 3e-4",
    "grad_diff harsh + gu": "GradDiff at 3e-4 + GU",
    "npo harsh": "NPO at 3e-4",
    "npo harsh + gu": "NPO at 3e-4 + GU",
}
"""Recipes in the order of the table, and what the page calls them."""
CLAIMS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("klue", "ga same weights", (RECALL, SAME, MULTI_HOP, NEIGHBOURS)),
    ("klue", "ga", (RECALL, SAME, MULTI_HOP)),
    ("klue", "npo", (RECALL, SAME, MULTI_HOP)),
    ("klue", "klue random neurons", (RECALL,)),
    ("ga same weights + gu", "ga same weights", (RECALL, PROBABILITY, NEIGHBOURS, SECONDS)),
    ("ga harsh + gu", "ga harsh", (RECALL, SAME, NEIGHBOURS)),
    ("ga harsh + gu cone", "ga harsh", (RECALL, SAME, NEIGHBOURS)),
    ("grad_diff harsh + gu", "grad_diff harsh", (RECALL, SAME, NEIGHBOURS)),
    ("npo harsh + gu", "npo harsh", (RECALL, SAME, NEIGHBOURS)),
    ("flat", "ga", (RECALL, PROBABILITY, SAME, NEIGHBOURS)),
    ("flat", "npo without retain", (RECALL, PROBABILITY, SAME, NEIGHBOURS)),
    ("meow", "original", (NEIGHBOURS, TEXT)),
    ("meow", "ga", (RECALL, NEIGHBOURS)),
    ("crisp", "original", (NEIGHBOURS, ENERGY)),
    ("sae_clamp", "original", (NEIGHBOURS,)),
    ("sae_guided", "original", (T,)),
    ("sae_guided", "npo", (T,)),
    ("sae_guided", "ga", (T,)),
    ("residual", "sae_guided", (RECALL, PROBABILITY, NEIGHBOURS, T, RELEARNED)),
)
"""Pairs behind the claims, and what is compared."""

PUBLISHED = (
    *COLUMNS,
    "Alignment in the SAE: t",
    "Alignment in the second SAE: t",
    "Alignment: unknown",
    "Two-sample: unknown",
)
"""Measures of the published file."""

Runs = dict[tuple[str, str, str, str], float]
"""(method, target, seed, measure) to value."""


def read(paths: Iterable[Path]) -> Runs:
    """Every number of every run; the original's and gold's are those beside each run, which all agree."""
    found: Runs = {}
    for path in paths:
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            where = row["target"], row["seed"], row["measure"]
            for method, field in ((row["method"], "value"), ("original", "original"), ("gold", "gold")):
                if row[field]:
                    found[(method, *where)] = float(row[field])
    return found


def narrow(paths: Iterable[Path], out: Path) -> None:
    """Write the rows of the page's measures, sorted, to six digits, without folders and relations."""
    fields = ("model", "world", "target", "seed", "method", "measure", "value", "original", "gold")
    rows = set()
    for path in paths:
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            if row["measure"] in PUBLISHED and row["value"]:
                numbers = {k: f"{float(row[k]):.6g}" for k in ("value", "original", "gold") if row[k]}
                whole = {**row, **numbers, "target": row["target"].split(" (")[0]}
                rows.add(tuple(whole[field] for field in fields))
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([fields, *sorted(rows)])


def values(runs: Runs, method: str, measure: str) -> dict[tuple[str, str], float]:
    """Value by (target, seed)."""
    return {(t, s): v for (m, t, s, k), v in runs.items() if (m, k) == (method, measure) and not math.isnan(v)}


def cell(numbers: Iterable[float], measure: str) -> str:
    """Mean ± standard deviation over runs."""
    known = list(numbers)
    if not known:
        return ""
    mean, spread = float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    if measure == TEXT:
        return f"{100 * mean:+.2f} %".replace("-", "−")
    digits = 0 if measure == MEMORY else 1 if measure == SECONDS else 2
    return f"{mean:.{digits}f} ± {spread:.{digits}f}".replace("-", "−")


def table(runs: Runs, methods: Sequence[str], measures: Sequence[str]) -> str:
    """Methods down, measures across."""
    lines = ["| | runs | " + " | ".join(COLUMNS[m] for m in measures) + " |", "|---" * (len(measures) + 2) + "|"]
    for method in methods:
        columns = [values(runs, method, m) for m in measures]
        if any(columns):
            count = max(len(c) for c in columns)
            cells = [cell(c.values(), m) for c, m in zip(columns, measures, strict=True)]
            lines.append(f"| {LABELS.get(method, method)} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(runs: Runs, first: str, second: str, measure: str) -> str | None:
    """One line: the mean paired difference, its interval over targets, and in how many targets it is above 0."""
    one, other = values(runs, first, measure), values(runs, second, measure)
    by_target: dict[str, list[float]] = defaultdict(list)
    for where in one.keys() & other.keys():
        by_target[where[0]].append(one[where] - other[where])
    means = np.array([np.mean(own) for own in by_target.values()])
    if len(means) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means)))
    above, below = int((means > 1e-9).sum()), int((means < -1e-9).sum())
    mean = float(means.mean())
    digits = 4 if measure == TEXT else 3
    interval = f"{mean - half:+.{digits}f} to {mean + half:+.{digits}f}"
    counts = f"{above} above, {below} below of {len(means)}"
    return f"| {first} − {second} | {COLUMNS[measure]} | {mean:+.{digits}f} | {interval} | {counts} |"


def ratio(runs: Runs, first: str, second: str, measure: str) -> str | None:
    """One line: the mean ratio over pairs of runs, and the least and the largest."""
    one, other = values(runs, first, measure), values(runs, second, measure)
    found = [one[where] / other[where] for where in sorted(one.keys() & other.keys())]
    if not found:
        return None
    between = f"{min(found):.1f}× to {max(found):.1f}×"
    return f"| {first} / {second} | {COLUMNS[measure]} | {np.mean(found):.1f}× | {between} | {len(found)} runs |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="CSV files of `interp-unlearn compare … --csv-runs`")
    parser.add_argument("--measure", nargs="+", default=list(COLUMNS), choices=list(COLUMNS), help="columns")
    parser.add_argument("--narrow", type=Path, metavar="OUT", help="write the published file of these runs, and stop")
    args = parser.parse_args()
    if args.narrow:
        narrow(args.runs, args.narrow)
        return
    runs = read(args.runs)
    known = {method for method, *_ in runs}
    methods = [m for m in LABELS if m in known] + sorted(known - LABELS.keys())
    measures = [m for m in args.measure if any(values(runs, method, m) for method in methods)]
    print(table(runs, methods, measures))
    print("\n| difference | measure | mean | 95 % interval | targets |\n|---|---|---|---|---|")
    for first, second, compared in CLAIMS:
        for measure in compared:
            line = (ratio if measure == SECONDS else difference)(runs, first, second, measure)
            if line:
                print(line)


if __name__ == "__main__":
    main()
