r"""Methods of class unlearning on biased images, over seeds: who forgets, in which setting, and at what price.

    python benchmarks/image_unlearn.py --seeds 0 1 2 --targets circle square
    python benchmarks/image_unlearn.py --world bar --data-dir ../shared/data/bar64 --model efficientnet-lite0 \
        --size 64 --epochs 3 --targets climbing --seeds 0

Each method is trained step by step and asked every few steps. Two states of each run are kept: the *last*, and the
*matched* one, the last state before accuracy on other classes (evaluation images) first fell more than ``--price``
below the original's. Methods are compared at the matched state, since any of them forgets everything if it may break
everything; a run that lost three times the price ends. Matching looks at evaluation images: it serves the comparison
and is no stopping rule.

Rows are kept in ``<out>/rows.jsonl`` as they come; a second call with the same arguments goes on. At the end
``docs/data/images_<world>_<aligned>.csv`` is written, and tables are printed as Markdown: each class, all classes (a
seed's number is then its mean over classes), and the paired differences behind the claims of ``docs/images.md``.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from scipy import stats

from interp_unlearn._core import append_jsonl, config_hash, read_jsonl
from interp_unlearn.benchmarks import ImageTask, image_task, load_images
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics import bias_table
from interp_unlearn.probes import labels_of_probes, score_linear_probe
from interp_unlearn.unlearn import Recipe, Unlearner
from interp_unlearn.zoo import ImageTraining, default_training, image_model, preprocess_of

ASCENT = {"objective": "ga", "optimizer": "sgd", "lr": 0.01, "steps": 32}


def cupid(**options: Any) -> dict[str, Any]:
    return {**ASCENT, "transforms": [{"name": "cupid", **options}]}


METHODS: dict[str, dict[str, Any]] = {
    "NegGrad": ASCENT,
    "CUPID": cupid(),
    "partition": cupid(pathway="none", project=False),
    "partition + pathway": cupid(project=False),
    "CUPID, random partition": cupid(partition="random"),
    "CUPID, random pathway": cupid(pathway="random"),
    "CUPID, loss partition": cupid(partition="loss"),
    "DELETE": {"objective": "delete", "lr": 1e-4, "steps": 16},
    "SalUn": {
        "objective": "random_labels",
        "lr": 5e-4,
        "steps": 16,
        "transforms": [{"name": "saliency_mask"}],
    },
    "Bad Teaching": {"objective": "bad_teaching", "lr": 5e-4, "steps": 16},
    "Bad Teaching, no retained data": {"objective": "bad_teaching", "lr": 1e-4, "steps": 16, "options": {"alpha": 0.0}},
    "SCRUB": {"objective": "scrub", "lr": 5e-4, "steps": 24, "options": {"max_steps": 16}},
}
COMMON = {"sampler": "random", "batch_size": 64, "retain_batch_size": 64}
ASKED = ("forget_train", "forget_heldout", "neighbours")
PROBES = ("class_probe", "bias_probe")
EVERY = 2
BROKEN = 3
"""Prices from which on a run is not followed further."""
CLAIMS = (
    ("NegGrad", "original", "fa_test_conflicting"),
    ("NegGrad", "original", "fa_test_aligned"),
    ("NegGrad", "original", "bias_probe"),
    ("CUPID", "NegGrad", "fa_train"),
    ("CUPID", "NegGrad", "gap_test"),
    ("partition", "NegGrad", "fa_train"),
    ("partition + pathway", "partition", "fa_train"),
    ("CUPID", "partition + pathway", "fa_train"),
    ("CUPID", "CUPID, random partition", "fa_train"),
    ("CUPID", "CUPID, random pathway", "fa_train"),
    ("CUPID", "CUPID, loss partition", "fa_train"),
)
"""Pairs of methods, and the quantity that a claim is about."""
FIELDS = (
    *("world", "aligned", "model", "target", "seed", "method", "state", "step"),
    *("fa_train", "fa_train_aligned", "fa_train_conflicting"),
    *("fa_test", "fa_test_aligned", "fa_test_conflicting", "gap_test", "worst_test", "kept_test"),
    *("rise_conflicting", *PROBES, "cpu_seconds"),
)


@torch.no_grad()
def right(model: HookedModel, task: ImageTask, sets: tuple[str, ...] = ASKED) -> dict[str, np.ndarray]:
    found = {}
    for name in sets:
        items = getattr(task, name)
        logits = torch.cat([task.logits(model, ids) for ids in items.ids.split(256)])
        found[name] = (logits.argmax(1) == items.labels).double().numpy()
    return found


def numbers(correct: dict[str, np.ndarray], task: ImageTask) -> dict[str, float]:
    table = bias_table(correct, task, "now")

    def at(split: str, quantity: str) -> float:
        return float(table.at(split=split, quantity=quantity))

    return {
        "fa_train": at("train", "forget"),
        "fa_train_aligned": at("train", "forget aligned"),
        "fa_train_conflicting": at("train", "forget conflicting"),
        "fa_test": at("test", "forget"),
        "fa_test_aligned": at("test", "forget aligned"),
        "fa_test_conflicting": at("test", "forget conflicting"),
        "gap_test": at("test", "gap"),
        "worst_test": at("test", "worst group"),
        "kept_test": at("test", "kept"),
    }


def probes(model: HookedModel, task: ImageTask) -> dict[str, float]:
    """Balanced accuracy of linear probes of class and setting on the features that the head reads."""
    labels, _, counts = labels_of_probes(task)
    site = task.main_site(model)
    x = task.rows(model, [site])[site].double().numpy()[counts]
    if not np.isfinite(x).all():
        return dict.fromkeys(PROBES, float("nan"))
    entity = np.array([str(i) for i in range(len(x))])
    scores = {name: score_linear_probe(x, own[counts], entity, controls=1, folds=4) for name, own in labels.items()}
    return {f"{name}_probe": score.accuracy for name, score in scores.items()}


def rows_of(task: ImageTask, model: HookedModel, method: str, price: float, seed: int) -> Iterator[dict[str, Any]]:
    """The matched and the last state of one method."""
    before = numbers(right(model, task), task)
    cpu = time.process_time()
    unlearner = Unlearner(model, task, Recipe.from_dict({**COMMON, "seed": seed, **METHODS[method]}))
    spent = time.process_time() - cpu
    matched: tuple[int, dict[str, float], dict[str, torch.Tensor], float] | None = None
    kept = True
    now: dict[str, float] = before
    while not unlearner.done:
        cpu = time.process_time()
        unlearner.step()
        spent += time.process_time() - cpu
        if unlearner.step_index % EVERY == 0 or unlearner.done:
            now = numbers(right(model, task), task)
            kept = kept and now["kept_test"] >= before["kept_test"] - price
            if kept:
                matched = (unlearner.step_index, now, unlearner.changed(), spent)
            if now["kept_test"] < before["kept_test"] - BROKEN * price:
                break
    last = (unlearner.step_index, now, unlearner.changed(), spent)
    states = {"matched": matched or (0, before, unlearner.originals, 0.0), "last": last}
    for state, (step, found, weights, seconds) in states.items():
        with torch.no_grad():
            for name, value in weights.items():
                model.tensors()[name].copy_(value)
        rise = found["fa_test_conflicting"] - before["fa_test_conflicting"]
        more = {"step": step, "rise_conflicting": rise, "cpu_seconds": round(seconds, 2)}
        unread = dict.fromkeys(PROBES, float("nan"))
        read: dict[str, float] = probes(model, task) if state == "matched" else unread
        yield {"state": state, **found, **more, **read}
    unlearner.restore()


def reference(task: ImageTask, model: HookedModel, before: dict[str, float] | None) -> dict[str, Any]:
    found = numbers(right(model, task), task)
    rise = 0.0 if before is None else found["fa_test_conflicting"] - before["fa_test_conflicting"]
    return {"state": "last", "step": 0, **found, "rise_conflicting": rise, "cpu_seconds": 0.0, **probes(model, task)}


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    file = args.out / "rows.jsonl"
    rows = read_jsonl(file)
    for seed, target in itertools.product(args.seeds, args.targets):
        options = {"seed": seed, "aligned": args.aligned}
        data = load_images(args.world, args.data_dir, **options)
        settings = {} if args.size is None else {"size": args.size}
        settings |= {} if args.epochs is None else {"epochs": args.epochs}
        training = ImageTraining(**{**vars(default_training(args.model)), "seed": seed, **settings})
        task = image_task(data, target, preprocess_of(args.model, training), seed=seed)
        facts = {"world": args.world, "aligned": args.aligned, "model": args.model, "target": target, "seed": seed}
        model = image_model(args.model, task, training)
        before = None
        for method in ("original", "Retrain", *args.methods):
            key = config_hash({**facts, "method": method, "recipe": METHODS.get(method), "price": args.price})
            if any(row["key"] == key for row in rows):
                before = before or next((r for r in rows if r["key"] == key and method == "original"), None)
                continue
            if method == "original":
                before = reference(task, model, None)
                found = [before]
            elif method == "Retrain":
                found = [reference(task, image_model(args.model, task, training, exclude=True), before)]
            else:
                found = list(rows_of(task, model, method, args.price, seed))
            for row in found:
                rows.append({"key": key, **facts, "method": method, **row})
                append_jsonl(file, rows[-1])
            where = f"seed {seed}, {target}, {method}"
            print(f"{where}: {found[0]['fa_test']:.2f} forget, {found[0]['kept_test']:.2f} kept", flush=True)
    return rows


def chosen(rows: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    """The rows of a method that are compared: references as they are, methods at the matched state."""
    state = "last" if method in ("original", "Retrain") else "matched"
    return [r for r in rows if r["method"] == method and r["state"] == state]


def by_seed(rows: list[dict[str, Any]], method: str, quantity: str) -> dict[int, float]:
    """A seed's number: its mean over classes, without those where the quantity is not defined."""
    values: dict[int, list[float]] = {}
    for row in chosen(rows, method):
        if row[quantity] == row[quantity]:
            values.setdefault(row["seed"], []).append(float(row[quantity]))
    return {seed: float(np.mean(own)) for seed, own in values.items()}


def mean_and_spread(values: Iterable[float]) -> str:
    known = list(values)
    if not known:
        return "–"
    spread = f" ± {np.std(known, ddof=1):.2f}" if len(known) > 1 else ""
    return f"{np.mean(known):.2f}{spread}"


def markdown(rows: list[dict[str, Any]], methods: tuple[str, ...]) -> str:
    """Mean ± standard deviation over seeds."""
    shown = ("fa_train", "fa_test_aligned", "fa_test_conflicting", "gap_test", "worst_test", "kept_test")
    shown = (*shown, "rise_conflicting", *PROBES, "cpu_seconds")
    lines = ["| method | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for method in ("original", "Retrain", *methods):
        if chosen(rows, method):
            cells = [mean_and_spread(by_seed(rows, method, q).values()) for q in shown]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(rows: list[dict[str, Any]]) -> str:
    """Paired differences between two methods of a seed, with the 95 % t-interval over seeds."""
    lines = ["| difference | quantity | mean | 95 % interval | seeds where below 0 |", "|---" * 5 + "|"]
    for first, second, quantity in CLAIMS:
        one, other = by_seed(rows, first, quantity), by_seed(rows, second, quantity)
        paired = np.array([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())])
        if len(paired) < 2:
            continue
        half = float(stats.t.ppf(0.975, len(paired) - 1) * paired.std(ddof=1) / np.sqrt(len(paired)))
        mean, below = float(paired.mean()), int((paired < 0).sum())
        interval = f"{mean - half:+.3f} to {mean + half:+.3f}"
        lines.append(f"| {first} − {second} | {quantity} | {mean:+.3f} | {interval} | {below} of {len(paired)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Methods of class unlearning on biased images, over seeds.")
    parser.add_argument("--world", default="coloured-shapes")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--model", default="small-resnet")
    parser.add_argument("--size", type=int, help="pixels that EfficientNet-Lite0 reads")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--aligned", type=float, default=0.95)
    parser.add_argument("--targets", nargs="+", default=["circle"], help="classes, forgotten one at a time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--price", type=float, default=0.02, help="accuracy on other classes that may be lost")
    parser.add_argument("--out", type=Path, default=Path("runs/image_unlearn"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = run(args)
    own = (args.world, args.aligned, args.model)
    mine = [r for r in rows if (r["world"], r["aligned"], r["model"]) == own and r["target"] in args.targets]
    name = f"images_{args.world}_{round(1000 * args.aligned)}.csv".replace("+", "p")
    path = Path(__file__).resolve().parents[1] / "docs" / "data" / name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in mine:
            writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    for target in args.targets if len(args.targets) > 1 else ():
        one = [r for r in mine if r["target"] == target]
        print(f"\n**{target}**\n\n{markdown(one, tuple(args.methods))}\n\n{differences(one)}")
    print(f"\n**{', '.join(args.targets)}**\n\n{markdown(mine, tuple(args.methods))}\n\n{differences(mine)}")


if __name__ == "__main__":
    main()
