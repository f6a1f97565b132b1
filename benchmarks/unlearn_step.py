"""What one step of unlearning costs: time and peak memory of our loop, beside open-unlearning's trainers.

    python benchmarks/unlearn_step.py --write-batch batch.json          # the batch that both sides train on
    python benchmarks/unlearn_step.py --out step.json                   # ours
    python benchmarks/unlearn_step.py --peer peer.json --out step.json  # ours beside the peer's

Two groups of cases, each case in a process of its own, in fp32, on the CPU:

- *methods*: GA, GradDiff, NPO and RMU on windows of text, first half prompt, second half answer, the same tokens and
  the same trained parameters for everybody;
- *layer*: GA with its loss at the top against RMU and SAE-guided unlearning with theirs at block l, on questions about
  one country, all training the same blocks behind l. Each with its forget term alone (``… forget``) and whole.

Seconds are of a whole step: tokenising, forward and backward passes, clipping, AdamW. Peak memory is the high-water
mark of the process's resident memory from just before the method is set up (references and second models included);
where the kernel does not let a process reset that mark, it includes opening the model.

The peer's JSON is made in an environment of its own, with the versions that the peer pins:
``benchmarks/unlearn_step_peer.py`` does it, and so may any other program that writes::

    {"what": "open-unlearning", "commit": "…", "versions": {"torch": "…", …}, "threads": 2, "model": "…",
     "trainable": "…", "batch": "<sha256 of batch.json>",
     "cases": {"ga": {"seconds": [one a step], "cpu_seconds": [...], "loaded_mb": 0.0, "peak_mb": 0.0}, "grad_diff": …,
               "npo": …, "rmu": …}}
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

METHODS = ("ga", "grad_diff", "npo", "rmu")
LAYER = ("ga at the top", "rmu forget", "rmu whole", "sae_guided forget", "sae_guided whole")
SAE = "smollm2-135m/l12-topk-4608"


# -- memory ------------------------------------------------------------------------------------------------------------


def resident_mb() -> float:
    """Resident memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def reset_high_water() -> None:
    """Start the high-water mark of resident memory anew, where the kernel allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        print(f"the high-water mark cannot be reset ({error}); it includes opening the model", file=sys.stderr)


def high_water_mb() -> float:
    """Largest resident memory since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


# -- the batch ---------------------------------------------------------------------------------------------------------


def windows(tokenizer: Any, texts: tuple[str, ...], count: int, tokens: int) -> list[tuple[str, str]]:
    """``count`` windows of about ``tokens`` tokens as (prompt, answer) halves, cut between words."""
    words = " ".join(texts).split()
    found: list[tuple[str, str]] = []
    start = 0
    while len(found) < count:
        end = start + 1
        while len(tokenizer(" ".join(words[start : end + 1]))["input_ids"]) <= tokens:
            end += 1
            if end >= len(words):
                raise SystemExit(f"the text gives {len(found)} windows of {tokens} tokens, {count} are needed")
        middle = (start + end) // 2
        found.append((" ".join(words[start:middle]), " ".join(words[middle:end])))
        start = end
    return found


def text_task(model: Any, batch_size: int, tokens: int) -> Any:
    """A task whose forget and retain sets are one batch of text windows each."""
    from interp_unlearn.worlds import load_world, make_task
    from interp_unlearn.worlds._types import Prompt

    world = load_world("countries", tokenizer=model.tokenizer)
    task = make_task(world, ["Japan"], tokenizer=model.tokenizer)
    found = windows(model.tokenizer, (*world.text_train, *world.text_eval), 2 * batch_size, tokens)
    prompts = tuple(Prompt(a, b, f"text{i}", "", "window", (0, 0)) for i, (a, b) in enumerate(found))
    return replace(
        task,
        forget_train=replace(task.forget_train, prompts=prompts[:batch_size]),
        retain_train=replace(task.retain_train, prompts=prompts[batch_size:]),
    )


def batch_json(model: Any, task: Any) -> dict[str, Any]:
    """Token ids, attention and labels (-100 where nothing is asked) of both sets."""
    from interp_unlearn.unlearn.objectives._answers import encode, questions

    sides = {}
    for side, prompts in (("forget", task.forget_train.prompts), ("retain", task.retain_train.prompts)):
        encoded = encode(model, questions(prompts))
        ids, answer = encoded.batch.tokens, encoded.answer
        sides[side] = {
            "input_ids": ids.tolist(),
            "attention_mask": encoded.batch.attended.long().tolist(),
            "labels": ids.masked_fill(~answer, -100).tolist(),
        }
    return sides


def digest(batch: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(batch).encode()).hexdigest()


# -- one case, in its own process --------------------------------------------------------------------------------------


def recipe_of(case: str, model: Any, arguments: argparse.Namespace) -> Any:
    """The recipe of a case; learning rates are tiny so that every step costs what the first one does."""
    from interp_unlearn.unlearn import Recipe, default_recipe

    layer = arguments.layer
    size = arguments.batch_size
    common = {"lr": 1e-7, "steps": 10**6, "batch_size": size, "retain_batch_size": size, "warmup": 0}
    if case in METHODS:
        options = {"layer": layer, "tokens": "answer"} if case == "rmu" else {}
        trainable = {} if arguments.trainable == "all" else {"modules": [arguments.trainable]}
        return Recipe.from_dict({"objective": case, "options": options, "trainable": trainable, **common})
    name = case.split()[0]
    trainable = {"layers": [layer - 4, layer], "modules": ["mlp", "attn"]}
    overrides: dict[str, Any] = {**common, "trainable": trainable, "schedule": "constant"}
    if case.endswith(" forget"):
        overrides["options"] = {"alpha": 0.0}
    return default_recipe(name, model, layer=layer, overrides=overrides)


def measure(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of every step and memory of one case, in this process."""
    import torch

    from interp_unlearn.latents import load_sae
    from interp_unlearn.unlearn import Unlearner
    from interp_unlearn.worlds import load_world, make_task
    from interp_unlearn.zoo import open_model

    torch.set_num_threads(arguments.threads)
    model = open_model(arguments.model)
    if case in METHODS:
        task = text_task(model, arguments.batch_size, arguments.tokens)
    else:
        world = load_world("countries", tokenizer=model.tokenizer)
        task = make_task(world, ["Japan"], tokenizer=model.tokenizer)
    sae = load_sae(SAE) if case.startswith("sae_guided") else None
    recipe = recipe_of(case, model, arguments)
    loaded = resident_mb()
    reset_high_water()
    begin = time.perf_counter()
    unlearner = Unlearner(model, task, recipe, sae)
    prepared = time.perf_counter() - begin
    seconds, processor = [], []
    for repeat in range(arguments.warmup + arguments.repeats):
        begin, began = time.perf_counter(), time.process_time()
        unlearner.step()
        if repeat >= arguments.warmup:
            seconds.append(time.perf_counter() - begin)
            processor.append(time.process_time() - began)
    moved = sum(p.numel() for p in unlearner._set.trained.values())
    return {
        "seconds": seconds,
        "cpu_seconds": processor,
        "prepare_s": prepared,
        "loaded_mb": loaded,
        "peak_mb": high_water_mb(),
        "trained_parameters": moved,
    }


def in_child(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one case in a fresh process."""
    flags = ("model", "batch_size", "tokens", "repeats", "warmup", "threads", "layer", "trainable")
    command = [sys.executable, str(Path(__file__).resolve()), "--case", case]
    for flag in flags:
        command += [f"--{flag.replace('_', '-')}", str(getattr(arguments, flag))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


# -- tables ------------------------------------------------------------------------------------------------------------


def show(title: str, cases: dict[str, Any], peer: dict[str, Any] | None, yardstick: str) -> None:
    """One line per case: against the yardstick case, and against the peer where it has the case."""
    print(f"\n{title}\n{'':22}{'ms':>9}{'CPU ms':>9}{'× ' + yardstick:>18}{'peak MB':>10}", end="")
    print(f"{'peer ms':>10}{'CPU ms':>9}{'faster':>9}{'CPU':>8}{'peak MB':>10}{'memory':>9}" if peer else "")
    median = lambda rows, key: statistics.median(rows[key])  # noqa: E731
    for name, row in cases.items():
        ratio = median(row, "cpu_seconds") / median(cases[yardstick], "cpu_seconds")
        wall, processor = median(row, "seconds") * 1e3, median(row, "cpu_seconds") * 1e3
        print(f"{name:22}{wall:9.0f}{processor:9.0f}{ratio:17.2f}×{row['peak_mb']:10.0f}", end="")
        theirs = (peer or {}).get(name)
        if theirs:
            their_wall, their_cpu = median(theirs, "seconds") * 1e3, median(theirs, "cpu_seconds") * 1e3
            print(f"{their_wall:10.0f}{their_cpu:9.0f}{their_wall / wall:8.2f}×{their_cpu / processor:7.2f}×", end="")
            print(f"{theirs['peak_mb']:10.0f}{row['peak_mb'] / theirs['peak_mb']:8.2f}×", end="")
        print(flush=True)


def read_peer(path: Path, expected: str) -> dict[str, Any]:
    """The peer's numbers, refused if they are of another batch."""
    peer = json.loads(path.read_text(encoding="utf-8"))
    if peer.get("batch") != expected:
        raise SystemExit(f"{path} was measured on another batch; write it with --write-batch and the same sizes")
    return peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="zoo name, path or hub id")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64, help="per window, prompt and answer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layer", type=int, default=12, help="block of RMU's and SAE-guided unlearning's loss")
    parser.add_argument("--trainable", default="all", help="'all', a kind such as mlp_out, or a parameter pattern")
    parser.add_argument("--groups", nargs="*", default=["methods", "layer"], choices=["methods", "layer"])
    parser.add_argument("--write-batch", type=Path, help="write the batch of the methods group as JSON, and stop")
    parser.add_argument("--peer", type=Path, help="JSON of the peer's timings")
    parser.add_argument("--out", type=Path, help="JSON file for all numbers")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments)))
        return

    from interp_unlearn.zoo import open_model

    model = open_model(arguments.model)
    batch = batch_json(model, text_task(model, arguments.batch_size, arguments.tokens))
    del model
    if arguments.write_batch:
        arguments.write_batch.write_text(json.dumps(batch), encoding="utf-8")
        print(f"{arguments.write_batch}: {len(batch['forget']['input_ids'])} × {len(batch['forget']['input_ids'][0])}")
        return
    peer = read_peer(arguments.peer, digest(batch)) if arguments.peer else None
    report: dict[str, Any] = {
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items()},
        "batch": digest(batch),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "load_before": os.getloadavg(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        "peer": peer,
    }
    for group, cases in (("methods", METHODS), ("layer", LAYER)):
        if group not in arguments.groups:
            continue
        report[group] = {}
        for case in cases:  # each case is safe on disk once it is done
            report[group][case] = in_child(case, arguments)
            report["load_after"] = os.getloadavg()
            print(f"{case:22}{statistics.median(report[group][case]['cpu_seconds']) * 1e3:9.0f} CPU ms", flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        theirs = peer["cases"] if peer and group == "methods" else None
        title = "methods" if group == "methods" else f"loss at block {arguments.layer}"
        show(title, report[group], theirs, "grad_diff" if group == "methods" else cases[0])


if __name__ == "__main__":
    main()
