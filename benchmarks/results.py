"""Runs behind docs/results.md: methods × targets × seeds, as ordinary run folders, and tables made from them.

python benchmarks/results.py run smollm2 --out runs/results        # resumable; finished runs are skipped
python benchmarks/results.py table smollm2 --out runs/results      # Markdown: mean and standard deviation by method
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp_unlearn.report import compare, headline, read_run
from interp_unlearn.runs import configs_from_dict, run_many

SAE = "sae_guided"
AFTER = {"positions": "name_and_after"}  # a TinyWorld model reads the syllables of a name again after the name
GRIDS: dict[str, dict[str, Any]] = {
    "smollm2": {
        "base": {
            "model": {"name": "smollm2-135m"},
            "world": {"name": "countries"},
            "latents": {"sae": "smollm2-135m/l12-topk-4608", "second": "smollm2-135m/l12-topk-2304"},
        },
        "targets": [{"entities": [name], "relations": ["capital"]} for name in ("Japan", "Egypt", "Brazil")],
        "seeds": (0, 1, 2),
        "recipes": [
            {"name": "ga", "objective": "ga"},
            {"name": "grad_diff", "objective": "grad_diff"},
            {"name": "npo", "objective": "npo"},
            {"name": "rmu", "objective": "rmu"},
            {"name": "sae_guided", "objective": SAE},
            {"name": "residual", "objective": SAE, "options": {"basis": "residual"}},
            {"name": "random dictionary", "objective": SAE, "options": {"basis": "random"}},
            {"name": "pca", "objective": SAE, "options": {"basis": "pca"}},
        ],
    },
    "tinyworld": {
        "base": {
            "model": {"name": "tinyworld"},
            "world": {"name": "tinyworld"},
            "latents": {"sae": "train", "second": "train"},
            "evidence": {"layer_stride": 1},
        },
        "targets": [{"entities": [f"person-{i}"]} for i in (0, 1, 2)],
        "seeds": (0, 1, 2),
        "recipes": [
            {"name": "ga", "objective": "ga"},
            {"name": "grad_diff", "objective": "grad_diff"},
            {"name": "npo", "objective": "npo"},
            {"name": "rmu", "objective": "rmu"},
            {"name": "sae_guided", "objective": SAE, "options": AFTER},
            {"name": "residual", "objective": SAE, "options": {"basis": "residual", **AFTER}},
        ],
    },
}


def folder_of(out: Path, grid: str, target: Mapping[str, Any], seed: int) -> Path:
    return out / grid / f"{'-'.join(target['entities']).replace(':', '')}-seed{seed}"


def run(grid: str, out: Path, only: list[str], seeds: list[int]) -> None:
    spec = GRIDS[grid]
    recipes = [r for r in spec["recipes"] if not only or r["name"] in only]
    for seed in seeds or spec["seeds"]:
        for target in spec["targets"]:
            configs = configs_from_dict({**spec["base"], "seed": seed, "target": target, "recipe": recipes})
            last = [""]

            def show(what: str, _done: int, _total: int, last: list[str] = last) -> None:
                if what != last[0]:
                    last[0] = what
                    print(f"  {what}", flush=True)

            print(f"{target['entities']} seed {seed}", flush=True)
            run_many(configs, folder_of(out, grid, target, seed), progress=show)


def table(grid: str, out: Path) -> str:
    """Markdown: one row per model, mean ± standard deviation over targets and seeds."""
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    columns: tuple[Any, ...] = ()
    for folder in sorted((out / grid).iterdir()):
        runs = [read_run(p.parent) for p in sorted(folder.glob("*/config.json")) if not p.parent.name.startswith(".")]
        for comparison in compare(run for run in runs if run.done):
            head = headline(comparison)
            columns = head.columns
            for row in head.rows:
                for i, cell in enumerate(row.cells):
                    if not cell.missing and not math.isnan(cell.value):
                        values[row.name][i].append(cell.value)
    shown = [i for i in range(len(columns)) if any(i in v for v in values.values())]
    lines = ["| model | runs | " + " | ".join(f"{columns[i].group}: {columns[i].label}" for i in shown) + " |"]
    lines.append("|---" * (len(shown) + 2) + "|")
    for name, by_column in values.items():
        cells = []
        for i in shown:
            found = by_column.get(i, [])
            spread = statistics.stdev(found) if len(found) > 1 else math.nan
            cells.append("–" if not found else f"{statistics.mean(found):.3f} ± {spread:.3f}")
        count = max(len(v) for v in by_column.values())
        lines.append(f"| {name} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("grid", choices=sorted(GRIDS))
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    parser.add_argument("--only", action="append", default=[], help="only this recipe (may be repeated)")
    parser.add_argument("--seed", action="append", type=int, default=[], help="only this seed (may be repeated)")
    args = parser.parse_args()
    if args.what == "run":
        run(args.grid, args.out, args.only, args.seed)
    else:
        print(table(args.grid, args.out))


if __name__ == "__main__":
    main()
