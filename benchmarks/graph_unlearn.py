"""D2DGN against GNNDelete, the cheap controls and Retrain, over data sets, architectures, deletions and seeds.

    python benchmarks/graph_unlearn.py --out docs/data/graph_unlearn.csv --minutes 60
    python benchmarks/graph_unlearn.py --out docs/data/graph_unlearn.csv --table docs/data/graph_unlearn.md --minutes 0

Every row of the CSV is one method on one seed. Rows that are there are not measured again, so the same command goes on
where it was stopped. Time is processor time (one thread), which other programs on the machine lengthen little; wall
time is beside it.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from interp_unlearn.benchmarks import load_graph
from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.metrics import graph_scores
from interp_unlearn.unlearn import Recipe, Unlearner
from interp_unlearn.worlds import GraphTask, graph_task, without_deleted
from interp_unlearn.zoo import GNNShape, GNNTraining, seeded_gnn, train_gnn

SEEDS = (42, 21, 13, 87, 100)
DELETIONS = ("edges 5% in", "edges 5% out", "nodes 5%")
TRAINING = GNNTraining(epochs=60)
METHODS: dict[str, dict[str, Any]] = {
    "utu": {"objective": "utu"},
    "gradient ascent": {"objective": "ga", "lr": 1e-3, "steps": 10},
    "descent-to-delete": {"objective": "descent_to_delete", "lr": 1e-3, "steps": 10},
    "d2dgn": {"objective": "d2dgn", "lr": 5e-3, "steps": 50},
    "d2dgn response": {"objective": "d2dgn", "lr": 5e-3, "steps": 50, "options": {"beta": 1.0}},
    "d2dgn feature": {"objective": "d2dgn", "lr": 5e-3, "steps": 50, "options": {"beta": 0.0}},
    "gnndelete": {"objective": "gnndelete", "lr": 1e-2, "steps": 250},
}
FIELDS = (
    "data",
    "architecture",
    "deletion",
    "seed",
    "method",
    "utility",
    "deleted_auc",
    "membership",
    "p_deleted",
    "p_retained",
    "mi_ratio",
    "verification",
    "cpu_seconds",
    "wall_seconds",
    "flops",
)


def rows(data: str, architecture: str, deletion: str, seed: int, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Original, Retrain and every method on one deletion."""
    task = graph_task(load_graph(data), [deletion], seed=seed)
    shape = GNNShape(architecture, task.graph.features.shape[1], task.d_out or TRAINING.d_out)  # type: ignore[arg-type]
    model, gold = (wrap(seeded_gnn(shape, seed), name=name) for name in ("original", "retrain"))
    costs = {}
    for network, is_gold in ((model, False), (gold, True)):
        clock = time.process_time(), time.perf_counter()
        train_gnn(network, task, TRAINING, gold=is_gold)
        costs[is_gold] = time.process_time() - clock[0], time.perf_counter() - clock[1]
    reference = {name: p.detach().clone() for name, p in gold.module.named_parameters()}
    where = {"data": data, "architecture": architecture, "deletion": deletion, "seed": seed}
    before = graph_scores(model, task).sets["deleted"].mean()
    yield {**where, "method": "original", **_measured(model, task, reference, before), **_cost(costs[False])}
    with without_deleted(task, gold):
        yield {**where, "method": "retrain", **_measured(gold, task, reference, before), **_cost(costs[True])}
    sizes = {
        "batch_size": len(task.forget_train),
        "retain_batch_size": len(task.retain_train),
        "clip": 0.0,
        "seed": seed,
    }
    for name in methods:
        settings = METHODS[name]
        clock = time.process_time(), time.perf_counter()
        unlearner = Unlearner(model, task, Recipe.from_dict({**sizes, **settings}))
        while not unlearner.done:
            unlearner.step()
        spent = time.process_time() - clock[0], time.perf_counter() - clock[1]
        with unlearner.edited():
            found = _measured(model, task, reference, before)
        unlearner.restore()
        yield {**where, "method": name, **found, **_cost(spent)}


def _cost(spent: tuple[float, float]) -> dict[str, float]:
    return {"cpu_seconds": round(spent[0], 3), "wall_seconds": round(spent[1], 3)}


def _measured(
    model: HookedModel, task: GraphTask, reference: dict[str, torch.Tensor], before: float
) -> dict[str, float]:
    scores = graph_scores(model, task)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        dense = task.inputs(model)[0].to_dense(), task.inputs(model)[1]
        model.module(*dense)
    own = dict(model.module.named_parameters())
    return {
        "utility": scores.utility(),
        "deleted_auc": scores.deleted_auc(0, 100),
        "membership": scores.membership(),
        "p_deleted": float(scores.sets["deleted"].mean()),
        "p_retained": float(scores.sets["retained"].mean()),
        "mi_ratio": float(before / scores.sets["deleted"].mean()),
        "verification": sum(float((own[name].detach() - p).norm()) for name, p in reference.items()),
        "flops": counter.get_total_flops(),
    }


def measure(out: Path, plan: Iterable[tuple[str, str, int, str]], methods: Sequence[str], minutes: float) -> None:
    """Append what is missing until the time is up."""
    end = time.monotonic() + 60 * minutes
    done = {tuple(row[f] for f in FIELDS[:5]) for row in read(out)}
    for name, architecture, seed, deletion in plan:
        if time.monotonic() > end:
            return
        if all(
            (name, architecture, deletion, str(seed), method) in done for method in ("original", "retrain", *methods)
        ):
            continue
        found = list(rows(name, architecture, deletion, seed, methods))
        new = not out.exists()
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS)
            if new:
                writer.writeheader()
            writer.writerows(
                {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()}
                for row in found
                if tuple(str(row[f]) for f in FIELDS[:5]) not in done
            )
        print(name, architecture, deletion, seed, flush=True)


def read(out: Path) -> list[dict[str, str]]:
    """Rows that are there."""
    if not out.exists():
        return []
    with out.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(found: Sequence[dict[str, str]], deletion: str) -> list[str]:
    """A Markdown table of one deletion: mean over data sets' seeds and the 95 % interval of that mean (Student's t)."""
    lines = [
        "| data | GNN | method | n | AUC_t / accuracy | AUC_d | membership | p deleted | p retained | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in found:
        if row["deletion"] == deletion:
            groups.setdefault((row["data"], row["architecture"], row["method"]), []).append(row)
    for (data, architecture, method), members in groups.items():
        cells = [
            interval([float(r[field]) for r in members])
            for field in ("utility", "deleted_auc", "membership", "p_deleted", "p_retained")
        ]
        seconds = np.mean([float(r["cpu_seconds"]) for r in members])
        lines.append(f"| {data} | {architecture} | {method} | {len(members)} | {' | '.join(cells)} | {seconds:.1f} |")
    return lines


def interval(values: Sequence[float]) -> str:
    """``mean ± half width`` of the 95 % interval of the mean."""
    values = [v for v in values if not math.isnan(v)]
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "–"
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {half:.3f}"


def paired(found: Sequence[dict[str, str]], deletion: str, field: str, one: str, other: str) -> list[float]:
    """Differences of one method and another on the same data set, architecture and seed."""
    values = {
        (r["data"], r["architecture"], r["seed"], r["method"]): float(r[field])
        for r in found
        if r["deletion"] == deletion
    }
    keys = {key[:3] for key in values}
    return [values[*k, one] - values[*k, other] for k in sorted(keys) if (*k, one) in values and (*k, other) in values]


def by_cell(found: Sequence[dict[str, str]], deletion: str, field: str, one: str, other: str) -> list[float]:
    """The same, a mean for each data set and architecture: seeds of one cell share much, cells are what varies."""
    cells: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in found:
        cells.setdefault((row["data"], row["architecture"]), []).append(row)
    means = (paired(rows, deletion, field, one, other) for rows in cells.values())
    return [float(np.mean(values)) for values in means if values]


def claims(found: Sequence[dict[str, str]]) -> list[str]:
    """The paper's claims against GNNDelete, as paired differences over everything that was measured."""
    lines = [
        "| deletion | n | utility, D2DGN − GNNDelete | the same, over cells | "
        "distance to Retrain's p on deleted: D2DGN | GNNDelete | "
        "MI ratio, D2DGN − GNNDelete | MI ratio of Retrain | FLOPs of a pass, GNNDelete − D2DGN | "
        "CPU time, GNNDelete / D2DGN |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for deletion in dict.fromkeys(row["deletion"] for row in found):
        utility = paired(found, deletion, "utility", "d2dgn", "gnndelete")
        mine, theirs = (
            [abs(v) for v in paired(found, deletion, "p_deleted", method, "retrain")]
            for method in ("d2dgn", "gnndelete")
        )
        mi = paired(found, deletion, "mi_ratio", "d2dgn", "gnndelete")
        gold = [float(r["mi_ratio"]) for r in found if r["deletion"] == deletion and r["method"] == "retrain"]
        flops = paired(found, deletion, "flops", "gnndelete", "d2dgn")
        cpu = {
            m: [float(r["cpu_seconds"]) for r in found if r["deletion"] == deletion and r["method"] == m]
            for m in ("gnndelete", "d2dgn")
        }
        ratio = [a / b for a, b in zip(cpu["gnndelete"], cpu["d2dgn"], strict=True)]
        wide = by_cell(found, deletion, "utility", "d2dgn", "gnndelete")
        cells = [
            interval(utility),
            f"{interval(wide)} ({len(wide)})",
            interval(mine),
            interval(theirs),
            interval(mi),
            interval(gold),
        ]
        lines.append(
            f"| {deletion} | {len(utility)} | {' | '.join(cells)} | {np.mean(flops) / 1e6:.1f}e6 | {interval(ratio)} |"
        )
    return lines


def nearness(found: Sequence[dict[str, str]]) -> list[str]:
    """How far each method is from Retrain on the same graph, network and seed: in deleted items' p, and in utility."""
    lines = ["| deletion | method | distance of p on deleted | utility − Retrain's |", "|---|---|---|---|"]
    for deletion in dict.fromkeys(row["deletion"] for row in found):
        for method in METHODS:
            far = [abs(v) for v in paired(found, deletion, "p_deleted", method, "retrain")]
            if far:
                utility = interval(paired(found, deletion, "utility", method, "retrain"))
                lines.append(f"| {deletion} | {method} | {interval(far)} | {utility} |")
    return lines


def ahead(found: Sequence[dict[str, str]]) -> list[str]:
    """Utility, D2DGN − GNNDelete, in each graph and network."""
    lines = ["| deletion | data | GNN | n | utility, D2DGN − GNNDelete |", "|---|---|---|---|---|"]
    for deletion in dict.fromkeys(row["deletion"] for row in found):
        for data, architecture in dict.fromkeys((r["data"], r["architecture"]) for r in found):
            own = [r for r in found if (r["data"], r["architecture"]) == (data, architecture)]
            values = paired(own, deletion, "utility", "d2dgn", "gnndelete")
            if values:
                lines.append(f"| {deletion} | {data} | {architecture} | {len(values)} | {interval(values)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/data/graph_unlearn.csv"))
    parser.add_argument("--table", type=Path, help="write Markdown tables of all rows here")
    parser.add_argument("--data", nargs="+", default=["cora", "citeseer"])
    parser.add_argument("--architectures", nargs="+", default=["gcn", "gat", "gin"])
    parser.add_argument("--deletions", nargs="+", default=list(DELETIONS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--minutes", type=float, default=60.0, help="start nothing new after so many minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = itertools.product(arguments.data, arguments.architectures, arguments.seeds, arguments.deletions)
    measure(arguments.out, plan, arguments.methods, arguments.minutes)
    found = read(arguments.out)
    if arguments.table and found:
        parts = ["# Graph unlearning, every table", "", "## Claims", "", *claims(found)]
        parts += ["", "## Cell by cell", "", *ahead(found), "", "## Beside Retrain", "", *nearness(found)]
        for deletion in dict.fromkeys(row["deletion"] for row in found):
            parts += ["", f"## {deletion}", "", *table(found, deletion)]
        arguments.table.write_text("\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
