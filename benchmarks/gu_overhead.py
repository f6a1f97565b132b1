"""What GU adds to a step: SmolLM2-135M, `down_proj` of three layers trained, rank 8, against the method it wraps.

    python benchmarks/gu_overhead.py --out gu_overhead.json

One model, one task, one set of parameters. Steps of the wrapped method and of GU around it alternate, and their order
turns round from one repetition to the next; what counts is the median of the ratios inside a repetition. The history
is filled before the first measured step, so every step pays for all eight covectors. Processor time is shown beside
wall time: it does not count the time in which other programs had the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from interp_unlearn.hooked import HookedModel
from interp_unlearn.unlearn import Recipe, Unlearner
from interp_unlearn.worlds import Task, load_world, make_task
from interp_unlearn.zoo import open_model

BASE = "wrapped method"
WAYS: dict[str, dict[str, Any] | None] = {
    BASE: None,
    "GU null": {"name": "gu", "mode": "null"},
    "GU cone": {"name": "gu", "mode": "cone"},
}
CASES = {
    "grad_diff": WAYS,
    "ga": {BASE: None, "GU null": {"name": "gu"}, "GU null, refresh_every 4": {"name": "gu", "refresh_every": 4}},
}


def made(model: HookedModel, task: Task, objective: str, gu: dict[str, Any] | None, args: Any) -> Unlearner:
    first = args.first_layer
    recipe = {
        "objective": objective,
        "trainable": {"layers": [first, first + 2], "modules": ["*.down_proj.weight"]},
        "transforms": [] if gu is None else [{**gu, "rank": args.rank}],
        "batch_size": args.batch_size,
        "retain_batch_size": args.batch_size,
        "lr": 1e-9,  # the weights are shared by all ways; they must not drift
        "steps": 10_000,
    }
    unlearner = Unlearner(model, task, Recipe.from_dict(recipe))
    for transform in unlearner.transforms:
        generator = torch.Generator().manual_seed(0)
        for _ in range(args.rank):
            rows = {n: torch.randn(p.shape, generator=generator) for n, p in unlearner._set.trained.items()}
            transform.covectors.push(rows)  # type: ignore[attr-defined]
    unlearner.step()
    return unlearner


def compare(model: HookedModel, task: Task, objective: str, args: Any, deadline: float) -> dict[str, Any]:
    ways = {name: made(model, task, objective, gu, args) for name, gu in CASES[objective].items()}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(args.repetitions):
        order = list(ways) if repetition % 2 else list(reversed(ways))
        for name in order:
            steps = 4 if "refresh" in name else 1
            start, used = time.perf_counter(), time.process_time()
            for _ in range(steps):
                ways[name].step()
            wall[name].append((time.perf_counter() - start) / steps)
            processor[name].append((time.process_time() - used) / steps)
        if time.perf_counter() > deadline and repetition >= 2:
            break
    out: dict[str, Any] = {}
    for name in ways:
        out[name] = {"repetitions": len(wall[name])}
        for kind, times in (("wall", wall), ("processor", processor)):
            ratios = [a / b for a, b in zip(times[name], times[BASE], strict=True)]
            out[name][f"{kind}_seconds"] = statistics.median(times[name])
            out[name][f"{kind}_ratio"] = statistics.median(ratios)
            out[name][f"{kind}_ratio_range"] = [min(ratios), max(ratios)]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--first-layer", type=int, default=10)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=600.0, help="stop soon after so long (at least 3 repetitions)")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = open_model(args.model)
    task = make_task(load_world("countries", tokenizer=model.tokenizer), ["Japan"], tokenizer=model.tokenizer)
    start = time.perf_counter()
    results = {}
    for i, objective in enumerate(CASES, 1):
        deadline = start + args.seconds * i / len(CASES)
        results[objective] = compare(model, task, objective, args, deadline)
        for name, row in results[objective].items():
            low, high = row["processor_ratio_range"]
            print(
                f"{objective:10} {name:26} {row['wall_seconds']:.3f} s, ratio {row['wall_ratio']:.2f}; "
                f"processor {row['processor_seconds']:.3f} s, ratio {row['processor_ratio']:.2f} ({low:.2f}–{high:.2f})"
            )
    about = {
        "model": args.model,
        "rank": args.rank,
        "batch_size": args.batch_size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.platform(),
    }
    if args.out:
        args.out.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
