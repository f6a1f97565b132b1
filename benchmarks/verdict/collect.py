"""Run folders → one table of evidence, labels and groups, and one long table of every measurement.

    python benchmarks/verdict/collect.py runs/verdict --out benchmarks/verdict/data/tinyworld

writes ``<out>.csv`` (a row per run, read by `fit.py` and by `verdict.Dataset`; rows of an earlier table stay, so that
runs can be made on many machines), the same as ``<out>.parquet`` where pyarrow is there, and
``<out>-measurements.csv.gz`` (a row per run and evidence), from which other features can be made without running
anything again. Groups come from ``plan.json`` of `make_runs.py`; for other sweeps from each run's config.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from interp_unlearn._core import InterpUnlearnError, read_json
from interp_unlearn.verdict import Dataset, Findings, dataset, label, read_findings

COLUMNS = ("run", "evidence", "value", "low", "high", "control", "control_name", "before", "n", "reason")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of sweeps")
    parser.add_argument("--out", type=Path, required=True, help="path of the tables, without suffix")
    parser.add_argument("--fresh", action="store_true", help="forget the rows that the tables hold already")
    arguments = parser.parse_args()
    found, skipped = [], []
    for root in arguments.runs:
        for name, facts, folder in runs_of(root):
            try:
                if read_json(folder / "status.json").get("state") != "done":
                    skipped.append(f"{name}: not finished")
                    continue
                found.append((name, read_findings(folder), facts))
            except InterpUnlearnError as error:
                skipped.append(f"{name}: {error}")
    if not found:
        print("no finished run was found; make them with make_runs.py")
        return 1
    data = dataset(found)
    out = arguments.out
    table, long = out.with_name(f"{out.name}.csv"), out.with_name(f"{out.name}-measurements.csv.gz")
    if table.exists() and not arguments.fresh:
        data = Dataset.load(table).joined(data)
    data.save(table)
    if find_spec("pyarrow") is not None:
        write_parquet(out.with_name(f"{out.name}.parquet"), data.to_rows())
    measurements(long, [(n, f) for n, f, _ in found], keep=not arguments.fresh)
    print(f"{len(data)} runs, {len(data.features)} features → {out}.csv")
    print(f"  labels: {dict(Counter(data.labels))}; second stage: {int(data.silent.sum())}")
    by_trick = Counter(zip(data.groups["trick"], data.groups["made_as"], data.labels, strict=True))
    for (trick, made_as, name), count in sorted(by_trick.items()):
        print(f"  {trick:14s} made as {made_as or '-':10s} labelled {name or '(none)':16s} {count}")
    for name, item, _ in found:
        said = label(item)
        if not said.name:
            print(f"  no label for {name}: {said.reason}")
    for line in skipped:
        print(f"  left out: {line}")
    return 0


def runs_of(root: Path) -> Iterator[tuple[str, dict[str, str], Path]]:
    """Name, groups and folder of each run below ``root``."""
    plan = read_json(root / "plan.json") if (root / "plan.json").exists() else {}
    for config in sorted(root.glob("*/*/config.json")):
        folder = config.parent
        if folder.name.startswith(".") or folder.parent.name.startswith("."):
            continue
        name = f"{folder.parent.name}/{folder.name}"
        facts = plan.get(name) or facts_of(read_json(config))
        yield name, {k: str(v) for k, v in facts.items()}, folder


def facts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Groups of a run that no plan knows."""
    _, _, trick = str(config.get("name", "")).partition("@")
    target = config["target"]
    return {
        "method": config["recipe"].get("objective", "edited elsewhere"),
        "trick": trick.split(" ")[0] or "plain",
        "made_as": "",
        "target": " ".join([*target["entities"], *target.get("relations", []), f"seed {config.get('seed', 0)}"]),
        "size": len(target["entities"]),
        "world": config["world"]["name"],
    }


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([dict(r) for r in rows]), path)


def measurements(path: Path, runs: Sequence[tuple[str, Findings]], keep: bool) -> None:
    """Every evidence of every run, one line each; with ``keep`` also those of other runs that the file holds."""
    rows: list[Sequence[Any]] = []
    if keep and path.exists():
        names = {name for name, _ in runs}
        held = list(csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode(), newline="")))
        rows += [row for row in held[1:] if row[0] not in names]
    for name, findings in runs:
        for item in findings.evidence.values():
            low, high = item.interval or ("", "")
            before = item.config.get("before", "")
            value = "" if math.isnan(item.value) else f"{item.value:.6g}"
            control = "" if item.control is None else f"{item.control:.6g}"
            rows.append((name, item.name, value, low, high, control, item.control_name, before, item.n, item.reason))
    text = io.StringIO(newline="")
    csv.writer(text).writerows([COLUMNS, *rows])
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


if __name__ == "__main__":
    sys.exit(main())
