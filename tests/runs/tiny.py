"""A TinyWorld model of one training step, so that whole runs take a second; and parts of the evidence for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from interp_unlearn._core import Axis, DataError, Evidence, Labelled
from interp_unlearn.probes import Found, Part
from interp_unlearn.runs import EvidenceSpec, RunConfig, Workbench, configs_from_dict
from interp_unlearn.worlds import TinyWorldConfig, make_task, tinyworld
from interp_unlearn.zoo import open_model, tinyworld_model

OPTIONS = {"n_known": 20, "n_unknown": 24, "n_layers": 2, "d_model": 32, "steps": 1, "batch_size": 8}
BARE = EvidenceSpec(layer_stride=1, lens=False, relearn=False, gold=False, require_known=False, level="quick")


def tiny_bench(path: Path | None = None) -> Workbench:
    """With the model from a folder it is any model; else it is TinyWorld's, which has a gold one."""
    settings = TinyWorldConfig(**OPTIONS)
    model = tinyworld_model(settings, progress=lambda *_: None) if path is None else open_model(path)
    world = tinyworld(settings)
    task = make_task(world, ["person-0"], tokenizer=model.tokenizer, n_known=8, n_unknown=20, max_prompts=8)
    return Workbench(model, dataclasses.replace(task, text_eval=task.text_eval[:4]), world)


def tiny_run_config(name: str = "ga", **evidence: object) -> RunConfig:
    data = {
        "model": {"name": "tinyworld"},
        "world": {"name": "tinyworld", "options": OPTIONS, "n_known": 8, "n_unknown": 20},
        "target": {"entities": ["person-0"]},
        "recipe": {"objective": "ga", "steps": 2, "lr": 1e-3},
    }
    return dataclasses.replace(configs_from_dict(data, name)[0], evidence=dataclasses.replace(BARE, **evidence))


def embedding(model) -> dict[str, torch.Tensor]:
    first = next(iter(model.module.parameters()))
    return {"sum": first.detach().double().sum().reshape(1), "first": first.detach()[:3].clone()}


class Counting:
    """A part that measures every phase once, and counts how often it really did."""

    def __init__(self, name: str, kind: str = "probe", level: str = "quick", fails: int = 0) -> None:
        self.name, self.kind, self.level = name, kind, level
        self.fails, self.looked, self.measured = fails, 0, []

    def part(self) -> Part:
        return Part(self.name, f"counts as {self.name}", self.kind, self.level, self.look)  # type: ignore[arg-type]

    def look(self, phases, progress) -> Found:
        self.looked += 1
        if self.looked <= self.fails:
            raise DataError("no such thing here; make one")

        def measure(model):
            self.measured.append(model.name)
            return embedding(model)

        sums = {phase: phases.once(phase, f"{self.name}/sum", measure)["sum"].item() for phase in phases.names}
        table = Labelled(
            "sum", np.array(list(sums.values())), (Axis("phase", tuple(sums)),), n=1, mask_policy="-", seed=phases.seed
        )
        found = Evidence(
            name=f"{self.name}.sum/embed",
            question="What is the sum?",
            value=sums["after"],
            direction="near control",
            n=1,
            mask_policy="-",
            does_not_show="anything",
            control=sums["before"],
            control_name="original",
            details={"sums": table},
        )
        return Found((found,), {f"{self.name}.sums": table})
