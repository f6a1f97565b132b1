"""A LoRA beside chosen weights for a while: afterwards the modules are the very objects that they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from interp_unlearn._core import ConfigError, generator, optional_import
from interp_unlearn.attacks._guard import select_weights, weights_kept
from interp_unlearn.hooked import HookedModel

ADAPTABLE = ("Linear", "Conv1D")


@contextmanager
def lora_added(model: HookedModel, which: str, rank: int, seed: int) -> Iterator[dict[str, nn.Parameter]]:
    """Put LoRAs beside the matrices that ``which`` chooses; yield their parameters; take them away again.

    The model's own weights ask for no gradient inside and never change. Hooks on an adapted module see its output
    without the LoRA's part.

    Args:
        model: The model.
        which: Weights, see `select_weights`; those that are no matrix of a linear layer are passed over.
        rank: Of the LoRA; its scale is 2.
        seed: Of its initial values.

    Raises:
        ConfigError: If no linear layer is chosen.
        MissingPackageError: If peft is not installed.
    """
    peft: Any = optional_import("peft", "lora", "relearning through a LoRA")
    paths = [name.removesuffix(".weight") for name in select_weights(model, which) if name.endswith(".weight")]
    kinds = {path: type(model.submodule(path)).__name__ for path in paths}
    chosen = {path: model.submodule(path) for path in paths if kinds[path] in ADAPTABLE}
    if not chosen:
        raise ConfigError(f"trainable {which!r} chooses no linear layer that a LoRA could stand beside; use 'upper'")
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(chosen),
        lora_dropout=0.0,
        bias="none",
        fan_in_fan_out=all(kinds[path] == "Conv1D" for path in chosen),
    )
    attributes = set(vars(model.module))
    with weights_kept(model, {}):
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator(seed, "lora").initial_seed())
                peft.inject_adapter_in_model(settings, model.module)
            model.module.eval()
            yield {name: p for name, p in model.module.named_parameters() if "lora_" in name}
        finally:
            for path, module in chosen.items():
                parent, _, name = path.rpartition(".")
                setattr(model.module.get_submodule(parent), name, module)
            for name in set(vars(model.module)) - attributes:
                delattr(model.module, name)
