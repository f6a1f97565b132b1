"""What attributing an answer to neurons costs: ours against the package ``knowledge_neurons``, in one run.

    PYTHONPATH=/path/to/knowledge-neurons python benchmarks/attribution.py --out attribution.json

Both get the same GPT-2-shaped random model, the same prompts with one-token answers and the same number of steps ``m``.
It is checked that, asked for the same quantity (pre-activations at the last token, both end points with weight 1/m),
the two give the same numbers. Repetitions are interleaved. Beside each time stands the cost model: F is one forward
pass of one prompt. Processor time counts; wall time is shown too. Without the package, only ours is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from interp_unlearn._core import numpy_rng
from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.neurons import Attribution, AttributionConfig, attribute

PEER = "knowledge_neurons get_scores"
SAME = "per layer, same quantity as the package"
PRE = "transformer.h.{layer}.mlp.c_fc.output"
LAST: dict[str, Any] = {"tokens": "last", "aggregate": "last"}


def make_model(layers: int, width: int, vocabulary: int) -> HookedModel:
    """A random GPT-2 with one token per word."""
    words = {"<unk>": 0, "<pad>": 1} | {f"w{i}": i for i in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")
    config = transformers.GPT2Config(
        vocab_size=vocabulary,
        n_embd=width,
        n_layer=layers,
        n_head=max(1, width // 64),
        n_positions=128,
        initializer_range=1.5 / width**0.5,  # activations of a trained model's size: the integrand is not flat
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    return wrap(transformers.GPT2LMHeadModel(config).eval(), fast, name="random GPT-2")


def make_prompts(model: HookedModel, lengths: list[int]) -> tuple[list[str], list[str]]:
    """Random words; the answer is the model's fifth most likely next word."""
    rng = numpy_rng(0, "benchmark prompts")
    prompts = [" ".join(f"w{i}" for i in rng.integers(2, model.lm.d_vocab, n)) for n in lengths]
    with torch.no_grad():
        answers = [f"w{int(model(p)[0, -1].topk(5).indices[-1])}" for p in prompts]
    return prompts, answers


def peer_way(model: HookedModel, prompts: list[str], answers: list[str], steps: int) -> Callable[[], Any] | None:
    """The package's own scores, (prompt, layer, neuron); None where it is not installed."""
    try:
        from knowledge_neurons import KnowledgeNeurons
    except ImportError:
        return None
    found = KnowledgeNeurons(model.module, model.tokenizer, model_type="gpt2", device="cpu")

    def run() -> torch.Tensor:
        rows = [
            found.get_scores(p, a, batch_size=steps, steps=steps, pbar=False)
            for p, a in zip(prompts, answers, strict=True)
        ]
        return torch.stack(rows).detach()

    return run


def cost(name: str, layers: int, steps: int, length: float, head: float) -> float:
    """Multiplications in units of one forward pass of one prompt, F.

    Args:
        name: The way.
        layers: L.
        steps: m.
        length: Prompt tokens T.
        head: Multiplications of the output head over those of all blocks, per token.
    """
    blocks = 1 / (length * (1 + head))  # all blocks, one token
    if name == PEER:  # per layer: one prompt, then m of them forward, and on average half way back
        return layers * (1 + steps * (1 + (length / 2 + head) * blocks))
    start = 1.0  # the prompt itself
    row = (1 + 2 * head) * blocks  # one token from block l up and back down to it: on average half of the blocks, twice
    check = layers * (0.5 + head) * blocks  # completeness: each layer at its baseline, forward
    if name.startswith("gradient"):
        return start + 2 * (1 + head) * blocks + check
    if name.startswith("joint"):
        return start + 2 * (steps + 1) * (1 + head) * blocks
    if name == SAME:  # the clean end is one row for all layers, the other end is the baseline
        return start + (steps - 1) * layers * row
    return start + steps * layers * row + check


def measure(ways: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Median seconds of each way, and what it returned; repetitions interleaved, their order rotating."""
    found: dict[str, Any] = {}
    names = list(ways)
    wall: dict[str, list[float]] = {name: [] for name in names}
    busy: dict[str, list[float]] = {name: [] for name in names}
    for r in range(repeats):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            w, c = time.perf_counter(), time.process_time()
            found[name] = ways[name]()
            wall[name].append(time.perf_counter() - w)
            busy[name].append(time.process_time() - c)
    return {n: {"wall_s": statistics.median(wall[n]), "cpu_s": statistics.median(busy[n])} for n in names}, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8, 10, 12, 14, 16, 18, 20, 24], help="prompt tokens")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file for all numbers")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = make_model(arguments.layers, arguments.width, arguments.vocabulary)
    prompts, answers = make_prompts(model, arguments.lengths)
    m, length = arguments.steps, statistics.mean(arguments.lengths)

    def ours(**options: Any) -> Callable[[], Attribution]:
        config = AttributionConfig(**{"max_tokens": arguments.max_tokens, **LAST, **options})
        return lambda: attribute(model, prompts, answers, config)

    integrated: dict[str, Any] = {"method": "integrated_gradients"}
    ways: dict[str, Callable[[], Any]] = {
        SAME: ours(**integrated, site=PRE, rule="ends", steps=m),
        "per layer, midpoint": ours(**integrated, steps=m),
        "per layer, midpoint, m = 5": ours(**integrated, steps=5),
        "per layer, Gauss, m = 3": ours(**integrated, rule="gauss", steps=3),
        "joint over layers, midpoint": ours(**integrated, layers="joint", steps=m),
        "gradient × activation": ours(completeness_prompts=len(prompts)),
    }
    peer = peer_way(model, prompts, answers, m)
    if peer is not None:
        ways = {PEER: peer, **ways}
    report: dict[str, Any] = {**vars(arguments), "out": None, "machine": platform.machine(), "load": os.getloadavg()}

    def forwards() -> None:
        with torch.no_grad():
            for prompt in prompts:
                model(prompt)

    times, found = measure({**ways, "forward": forwards}, arguments.repeats)
    gaps = {name: one.gap for name, one in found.items() if isinstance(one, Attribution)}
    if peer is not None:
        mine, theirs = found[SAME], found[PEER].numpy()
        report["largest_difference"] = float(
            np.abs(mine.scores.values - theirs).max() / np.abs(mine.scores.values).max()
        )
        removed = mine.completeness.at(quantity="removed")
        gaps[PEER] = float(np.abs(theirs.sum(-1) - removed).sum() / np.abs(removed).sum())
        print(f"same quantity: scores differ by {report['largest_difference']:.1e} of the largest")
    unit = times.pop("forward")["cpu_s"] / len(prompts)
    head = arguments.vocabulary / (12 * arguments.layers * arguments.width)
    print(f"{len(prompts)} prompts of {length:g} tokens on average, m = {m}, F = {unit * 1e3:.1f} ms of processor time")
    print(f"{'':42}{'CPU s':>9}{'wall s':>9}{'F':>9}{'model F':>9}{'gap':>10}{'faster':>9}")
    for name, row in times.items():
        steps = int(name[-1]) if "m = " in name else m
        row["measured_F"] = row["cpu_s"] / len(prompts) / unit
        row["model_F"] = cost(name, arguments.layers, steps, length, head)
        row["gap"] = gaps[name]
        row["faster"] = times[PEER]["cpu_s"] / row["cpu_s"] if PEER in times else float("nan")
        values = f"{row['cpu_s']:9.2f}{row['wall_s']:9.2f}{row['measured_F']:9.1f}{row['model_F']:9.1f}"
        print(f"{name:42}{values}{row['gap']:10.2%}{row['faster']:8.1f}×")
    report["results"] = times
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
