"""What looking inside costs: one mid-layer site of SmolLM2-135M, our capture against its peers, in one run.

    python benchmarks/capture.py --out capture.json

Every way gives the same tensor (checked first). Repetitions are interleaved and their order rotates, so that noise
of the machine hits all of them alike; what counts are the ratios inside one run. Processor time is shown beside wall
time: it does not count the time in which other programs had the processor.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch import Tensor
from tqdm import tqdm

from interp_unlearn.hooked import HookedModel, capture, wrap, write_store
from interp_unlearn.hooked._adapters import twin

Way = Callable[[Tensor], Any]
OURS, RAW = "interp_unlearn.capture", "raw hook, stopped by an exception"


class Stop(Exception):
    """Ends the raw hook's forward pass."""


def raw_hook(module: torch.nn.Module, path: str) -> Way:
    """What a careful person writes by hand: hook, copy, stop, unhook."""
    target = module.get_submodule(path)

    def run(ids: Tensor) -> Tensor:
        kept = []

        def hook(_module: Any, _args: Any, output: Any) -> None:
            kept.append((output[0] if isinstance(output, tuple) else output).detach().clone())
            raise Stop

        handle = target.register_forward_hook(hook)
        try:
            with torch.no_grad():
                module(input_ids=ids, use_cache=False)
        except Stop:
            pass
        finally:
            handle.remove()
        return kept[0]

    return run


def transformer_lens_ways(model: HookedModel, site: str, layer: int) -> Iterator[tuple[str, Way]]:
    bridge = model.bridge

    def whole(ids: Tensor) -> Tensor:
        with torch.no_grad():
            return bridge.run_with_cache(ids, names_filter=site)[1][site]

    def stopped(ids: Tensor) -> Tensor:
        with torch.no_grad():
            return bridge.run_with_cache(ids, names_filter=site, stop_at_layer=layer + 1)[1][site]

    yield "TransformerLens run_with_cache", whole
    yield "TransformerLens run_with_cache, stop_at_layer", stopped


def nnsight_ways(model: HookedModel, path: str) -> Iterator[tuple[str, Way]]:
    sight = model.nnsight

    def whole(ids: Tensor) -> Tensor:
        with torch.no_grad(), sight.trace(ids):
            hidden = sight.get(path).output.save()
        return hidden[0] if isinstance(hidden, tuple) else hidden

    def stopped(ids: Tensor) -> Tensor:
        with torch.no_grad(), sight.trace(ids) as tracer:
            hidden = sight.get(path).output.save()
            tracer.stop()
        return hidden[0] if isinstance(hidden, tuple) else hidden

    yield "nnsight trace", whole
    yield "nnsight trace, tracer.stop()", stopped


def sae_lens_ways(model: HookedModel, path: str, layer: int, d: int) -> Iterator[tuple[str, Way]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from datasets import Dataset
        from sae_lens.load_model import HookedProxyLM
        from sae_lens.training.activations_store import ActivationsStore

    proxy = HookedProxyLM(twin(model.module), model.tokenizer, hook_names=[path])
    store = ActivationsStore(
        model=proxy,
        dataset=Dataset.from_dict({"tokens": [[1] * 64]}),  # never read: we hand the ids over ourselves
        streaming=False,
        hook_name=path,
        hook_head_index=None,
        context_size=64,
        d_in=d,
        n_batches_in_buffer=2,
        total_training_tokens=1,
        store_batch_size_prompts=16,
        train_batch_size_tokens=64,
        prepend_bos=False,
        normalize_activations="none",
        device=torch.device("cpu"),
        dtype="float32",
    )

    def stored(ids: Tensor) -> Tensor:
        with torch.no_grad():
            return store.get_activations(ids)

    def stopped(ids: Tensor) -> Tensor:
        with torch.no_grad():
            return proxy.run_with_cache(ids, names_filter=[path], stop_at_layer=layer + 1)[1][path]

    yield "SAELens ActivationsStore.get_activations", stored
    yield "SAELens HookedProxyLM, stop_at_layer", stopped


def all_ways(model: HookedModel, site: str) -> dict[str, Way]:
    place = model.sites[site]
    layer, path = place.layer or 0, place.path
    ways: dict[str, Way] = {
        OURS: lambda ids: capture(model, ids, [site])[site],
        RAW: raw_hook(model.module, path),
    }
    ways.update(transformer_lens_ways(model, site, layer))
    ways.update(nnsight_ways(model, path))
    ways.update(sae_lens_ways(model, path, layer, model.lm.d_model))
    return ways


def compare(model: HookedModel, site: str, batch: int, length: int, repeats: int) -> dict[str, Any]:
    """Wall and processor seconds per call of every way on one shape."""
    ids = torch.randint(100, model.lm.d_vocab, (batch, length), generator=torch.Generator().manual_seed(0))
    ways = all_ways(model, site)
    want = capture(model, ids, [site])[site]
    for name, way in ways.items():  # warm up, and check that all do the same thing
        gap = float((way(ids) - want).abs().max() / want.abs().max())
        if gap > 1e-4:
            raise SystemExit(f"{name} returns something else: off by {gap:.1e}")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for repeat in tqdm(range(repeats), desc=f"{batch} × {length}"):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            begin, began = time.perf_counter(), time.process_time()
            ways[name](ids)
            seconds[name].append(time.perf_counter() - begin)
            processor[name].append(time.process_time() - began)

    def ratio(times: dict[str, list[float]], name: str) -> float:
        """Median over repetitions of their own ratio: slow drifts of the machine cancel."""
        return statistics.median(theirs / ours for theirs, ours in zip(times[name], times[OURS], strict=True))

    return {
        name: {
            "median_s": statistics.median(times),
            "tokens_per_s": batch * length / statistics.median(times),
            "ours_over_this": ratio(seconds, name),
            "median_cpu_s": statistics.median(processor[name]),
            "ours_over_this_cpu": ratio(processor, name),
            "seconds": times,
            "cpu_seconds": processor[name],
        }
        for name, times in seconds.items()
    }


def resident() -> float:
    """Resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def stream(n_tokens: int, folder: Path) -> dict[str, Any]:
    """Memory while ``n_tokens`` stream through a tiny model into a store."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = wrap(LlamaForCausalLM(config).eval(), name="tiny")
    length = 128

    def data() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(-(-n_tokens // length)):
            yield torch.randint(0, 1000, (length,), generator=generator)

    marks: list[tuple[int, float]] = []

    def watch(_what: str, done: int, _total: int) -> None:
        marks.append((done * length, resident()))

    begin = time.perf_counter()
    store = write_store(
        model, data(), "blocks.0.hook_resid_post", folder, batch_size=64, mask_policy="all", progress=watch
    )
    seconds = time.perf_counter() - begin
    warm = [mb for tokens, mb in marks if tokens >= 0.1 * n_tokens]
    return {
        "tokens": len(store),
        "bytes_on_disk": sum(p.stat().st_size for p in folder.iterdir()),
        "seconds": seconds,
        "tokens_per_s": len(store) / seconds,
        "resident_mb": [(tokens, round(mb, 1)) for tokens, mb in marks[:: max(1, len(marks) // 10)]],
        "growth_mb_after_first_tenth": round(max(warm) - warm[0], 1),
    }


@contextmanager
def loaded(model: str) -> Iterator[HookedModel]:
    from interp_unlearn.zoo import open_model

    yield open_model(model)


def table(shape: str, results: dict[str, Any]) -> None:
    print(f"\n{shape}\n{'':48}{'ms':>9}{'tokens/s':>11}{'ours is':>10}{'CPU ms':>10}{'ours is':>10}")
    for name, row in results.items():
        wall = f"{row['median_s'] * 1e3:9.1f}{row['tokens_per_s']:11.0f}{row['ours_over_this']:9.2f}×"
        print(f"{name:48}{wall}{row['median_cpu_s'] * 1e3:10.1f}{row['ours_over_this_cpu']:9.2f}×", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="zoo name, path or hub id")
    parser.add_argument("--site", default="blocks.12.hook_resid_post")
    parser.add_argument("--repeats", type=int, default=15, help="of 16 × 64 tokens; 1 × 16 gets four times as many")
    parser.add_argument("--shapes", nargs="*", default=["16x64", "1x16"], help="batch x length")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1_000_000, help="streamed to the store; 0 leaves that part out")
    parser.add_argument("--out", type=Path, help="JSON file for all numbers")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    packages = ("torch", "transformers", "transformer-lens", "nnsight", "sae-lens")
    report: dict[str, Any] = {
        "site": arguments.site,
        "model": arguments.model,
        "threads": arguments.threads,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "load_before": os.getloadavg(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    with loaded(arguments.model) as model:
        for shape in arguments.shapes:
            batch, length = (int(n) for n in shape.split("x"))
            repeats = arguments.repeats * (4 if batch * length < 256 else 1)
            report[shape] = compare(model, arguments.site, batch, length, repeats)
            table(shape, report[shape])
    if arguments.tokens:
        with tempfile.TemporaryDirectory() as folder:
            report["stream"] = stream(arguments.tokens, Path(folder) / "store")
        print(f"\nstore: {report['stream']['tokens']} tokens at {report['stream']['tokens_per_s']:.0f} tokens/s")
        for tokens, mb in report["stream"]["resident_mb"]:
            print(f"  after {tokens:>9} tokens  {mb:8.1f} MB resident")
        print(f"  growth after the first tenth: {report['stream']['growth_mb_after_first_tenth']} MB")
    report["load_after"] = os.getloadavg()
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
