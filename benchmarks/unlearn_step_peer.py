r"""Time open-unlearning's own trainers on the batch of `unlearn_step.py`; runs in *their* environment, not in ours.

    git clone https://github.com/locuslab/open-unlearning && python -m venv peer
    peer/bin/pip install torch==2.4.1 transformers==4.45.1 accelerate==0.34.2 huggingface-hub==0.29.1 \
        hydra-core==1.3 datasets==3.0.1 numpy==2.2.3
    peer/bin/python benchmarks/unlearn_step_peer.py --source open-unlearning/src --model FOLDER --batch batch.json \
        --out peer.json

It imports nothing of interp-unlearn. Each method runs in a process of its own: their trainer class, AdamW of torch,
fp32, on the CPU, the same batch at every step, no evaluation, nothing saved. A step is timed from the trainer's
``on_step_begin`` to its ``on_step_end``: forward and backward passes, clipping, AdamW, and no data loading. DeepSpeed,
which one of their modules imports and nothing here runs through, is replaced by an empty stand-in unless installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import types
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

CASES = {"ga": "GradAscent", "grad_diff": "GradDiff", "npo": "NPO", "rmu": "RMU"}


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def high_water_mb() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM"))


def method_arguments(case: str, layer: int, pattern: str) -> dict[str, Any]:
    """Their published settings; RMU at ``layer`` and with the same trained parameters."""
    if case == "ga":
        return {}
    weights = {"gamma": 1.0, "alpha": 1.0}
    if case == "grad_diff":
        return {**weights, "retain_loss_type": "NLL"}
    if case == "npo":
        return {**weights, "retain_loss_type": "NLL", "beta": 0.1}
    place = {"module_regex": rf"model\.layers\.{layer}", "trainable_params_regex": [pattern]}
    return {**weights, "retain_loss_type": "EMBED_DIFF", "steering_coeff": 2, **place}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of every step and memory of one method, in this process."""
    if importlib.util.find_spec("deepspeed") is None:
        stand_in = types.ModuleType("deepspeed")
        stand_in.DeepSpeedEngine = type("DeepSpeedEngine", (), {})  # type: ignore[attr-defined]
        stand_in.__spec__ = importlib.machinery.ModuleSpec("deepspeed", None)  # looked for, and found not installed
    else:
        stand_in = None
    import torch
    from transformers import AutoModelForCausalLM, TrainerCallback, TrainingArguments

    if stand_in is not None:
        sys.modules["deepspeed"] = stand_in
    sys.path.insert(0, str(arguments.source))
    import trainer as theirs

    torch.set_num_threads(arguments.threads)
    batch = json.loads(arguments.batch.read_text(encoding="utf-8"))
    tensors = {side: {k: torch.tensor(v) for k, v in rows.items()} for side, rows in batch.items()}
    size = len(tensors["forget"]["input_ids"])
    model = AutoModelForCausalLM.from_pretrained(arguments.model, torch_dtype=torch.float32)
    kinds = {"all": "*", "mlp_out": "*.mlp.down_proj.weight"}
    pattern = kinds.get(arguments.trainable, arguments.trainable)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(fnmatchcase(name, pattern))
    loaded = resident_mb()
    Path("/proc/self/clear_refs").write_text("5")
    seconds: list[float] = []
    processor: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begin, self.began = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.begin)
            processor.append(time.process_time() - self.began)

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return size

        def __getitem__(self, i: int) -> int:
            return i

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=arguments.warmup + arguments.repeats,
            per_device_train_batch_size=size,
            learning_rate=1e-7,
            optim="adamw_torch",
            lr_scheduler_type="constant",
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        trainer = getattr(theirs, CASES[arguments.case])(
            model=model,
            args=settings,
            train_dataset=Rows(),
            data_collator=lambda _rows: tensors,
            callbacks=[Clock()],
            **method_arguments(arguments.case, arguments.layer, re.sub(r"\*", ".*", pattern.replace(".", r"\."))),
        )
        trainer.train()
    return {
        "seconds": seconds[arguments.warmup :],
        "cpu_seconds": processor[arguments.warmup :],
        "loaded_mb": loaded,
        "peak_mb": high_water_mb(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="the folder src of a checkout of open-unlearning")
    parser.add_argument("--model", required=True, help="folder with config.json and safetensors")
    parser.add_argument("--batch", type=Path, required=True, help="written by unlearn_step.py --write-batch")
    parser.add_argument("--trainable", default="all", help="as for unlearn_step.py: all, mlp_out or a name pattern")
    parser.add_argument("--layer", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--commit", default="", help="of the checkout, for the record")
    parser.add_argument("--out", type=Path, default=Path("peer.json"))
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments)))
        return
    found: dict[str, Any] = {}
    for case in CASES:
        done = subprocess.run([sys.executable, *sys.argv, "--case", case], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{case} failed:\n{done.stderr}")
        found[case] = json.loads(done.stdout.strip().splitlines()[-1])
        print(f"{case:12}{sorted(found[case]['seconds'])[arguments.repeats // 2] * 1e3:9.0f} ms", flush=True)
    text = json.dumps(json.loads(arguments.batch.read_text(encoding="utf-8")))
    packages = ("torch", "transformers", "accelerate")
    report = {
        "what": "open-unlearning",
        "commit": arguments.commit,
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "threads": arguments.threads,
        "model": arguments.model,
        "trainable": arguments.trainable,
        "layer": arguments.layer,
        "batch": hashlib.sha256(text.encode()).hexdigest(),
        "cases": found,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
