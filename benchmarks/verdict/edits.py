"""Weight edits made on purpose: muted heads and neurons, few templates, gold's weights, noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from plan import BY_SIZE, Planned
from torch import Tensor

from interp_unlearn._core import generator, write_tensors
from interp_unlearn.hooked import HookedModel, capture
from interp_unlearn.runs import RunConfig, Workbench, open_workbench
from interp_unlearn.unlearn import Unlearner, default_recipe
from interp_unlearn.worlds import QASet, Task, TinyWorldConfig
from interp_unlearn.zoo import tinyworld_model

TEXTS = 100
SITES = {"late heads": ("attn.hook_z",), "heads and neurons": ("attn.hook_z", "mlp.hook_post")}


def edit_file(out: Path, planned: Planned) -> Path:
    """Where the edited tensors of a planned edit lie."""
    return out / ".edits" / planned.group / f"{planned.name}.safetensors"


def open_bench(planned: Planned) -> Workbench:
    """Model and task of an edit's target; no SAE is needed to make it."""
    data = {**planned.config, "latents": {}, "recipe": {"objective": "ga"}}
    return open_workbench(RunConfig.from_dict(data))


def make_edit(bench: Workbench, planned: Planned, path: Path) -> None:
    """Make one edit and write the tensors that it changes; the model is given back as it was."""
    edit = dict(planned.edit or {})
    kind = edit.pop("kind")
    seed = int(planned.config["seed"])
    if kind == "mute":
        sites = [f"blocks.{layer}.{site}" for layer in edit["layers"] for site in SITES[edit["where"]]]
        tensors = mute(bench.model, bench.task, sites, edit["retain"])
    elif kind == "few":
        tensors = few_templates(bench, edit["objective"], edit["templates"], planned.size, seed)
    elif kind == "gold":
        gold = tinyworld_model(TinyWorldConfig(**planned.config["world"]["options"]), bench.task.target)
        tensors = noisy(parameters_of(gold), edit["noise"], seed) if edit["noise"] else parameters_of(gold)
    else:
        tensors = noisy(parameters_of(bench.model), edit["scale"], seed)
    write_tensors(path, tensors, {"edit": str(planned.edit)})


def parameters_of(model: HookedModel) -> dict[str, Tensor]:
    """Copies of all parameters by name."""
    return {name: p.detach().clone() for name, p in model.module.named_parameters()}


def noisy(tensors: Mapping[str, Tensor], scale: float, seed: int) -> dict[str, Tensor]:
    """Matrices with Gaussian noise, its standard deviation ``scale`` times that of the matrix."""
    random = generator(seed, "verdict noise", scale)
    return {
        name: t + scale * t.std() * torch.randn(t.shape, generator=random) if t.dim() >= 2 else t
        for name, t in tensors.items()
    }


def few_templates(bench: Workbench, objective: str, templates: int, size: int, seed: int) -> dict[str, Tensor]:
    """Forget through the first templates of each relation only; the others stay unseen."""
    seen: dict[str, list[str]] = {}
    for prompt in bench.task.forget_train.prompts:
        named = seen.setdefault(prompt.relation, [])
        if prompt.template not in named:
            named.append(prompt.template)
    allowed = {t for named in seen.values() for t in named[:templates]}
    kept = tuple(p for p in bench.task.forget_train.prompts if p.template in allowed)
    task = replace(bench.task, forget_train=QASet(bench.task.forget_train.name, kept))
    overrides = {**BY_SIZE[size], "lr": 1e-3, "seed": seed}
    unlearner = Unlearner(bench.model, task, default_recipe(objective, bench.model, overrides=overrides))
    try:
        while not unlearner.done:
            unlearner.step()
        return unlearner.changed()
    finally:
        unlearner.restore()


@torch.no_grad()
def mute(model: HookedModel, task: Task, sites: Sequence[str], retain: float) -> dict[str, Tensor]:
    """Output weights that write nothing for the target's inputs and, as nearly as possible, the same for others.

    With C_f and C_r the second moments of the inputs, on forget questions and on retain questions and text,
    W' = W (γ C_r)(C_f + γ C_r)⁻¹ is the least-squares answer to "W' x = 0 on forget, W' x = W x on retain", γ weighing
    the latter. The layers below are untouched, so the fact stays and is only not passed on.
    """

    def moments(texts: list[str], last: bool) -> dict[str, Tensor]:
        at = -1 if last else None
        acts = capture(model, texts, list(sites), positions=at, mask_policy="inner", batch_size=64)
        rows = {site: acts[site].flatten(2)[acts.mask].double() for site in sites}
        return {site: x.T @ x / len(x) for site, x in rows.items()}

    forget_moments = moments([p.text for p in task.forget_train.prompts], True)
    retain_moments = moments([p.text for p in task.retain_train.prompts], True)
    text_moments = moments(list(task.text_train[:TEXTS]), False)
    parameters = dict(model.module.named_parameters())
    out = {}
    for site in sites:
        forget, kept = forget_moments[site], retain * (retain_moments[site] + text_moments[site])
        tiny = 1e-4 * torch.eye(len(forget), dtype=torch.float64) * (kept.trace() / len(forget))
        name = f"{model.sites[site].path}.weight"
        weight = parameters[name].double() @ torch.linalg.solve(forget + kept + tiny, kept + tiny, left=False)
        out[name] = weight.to(parameters[name].dtype)
    return out
