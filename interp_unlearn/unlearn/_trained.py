"""The parameters that move: the model's own, or LoRA factors over a frozen base.

Outside a step the user's module looks as it did before: same modules, same parameter names, ``requires_grad`` as it
was. LoRA layers sit in the module tree during a step only; between steps their product is merged into the weights. So
a capture, an evaluation or a diff at any moment sees the current model at its own site names, and what goes to disk
is always the merged delta: changed weights by their original names, readable without peft.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from interp_unlearn._core import ConfigError, FileFormatError, optional_import
from interp_unlearn.hooked import HookedModel, gradients_of
from interp_unlearn.unlearn._trainable import Trainable, select


def fill(held: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy saved tensors into those held, by name.

    Raises:
        FileFormatError: If one is missing or has another shape.
    """
    for name, tensor in held.items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise FileFormatError(f"the saved state does not fit this recipe: {name} is missing or has another shape")
        tensor.copy_(tensors[name])


class WeightSet:
    """The model's own parameters.

    Attributes:
        trained: Parameters that the optimiser moves, by name.
        originals: Values of all weights that may change, on the CPU.
    """

    def __init__(self, model: HookedModel, policy: Trainable) -> None:
        self.model = model
        self.trained: dict[str, nn.Parameter] = select(model, policy)
        self.originals = {name: p.detach().to("cpu", copy=True) for name, p in self.trained.items()}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The module as training needs it."""
        with gradients_of(self.model.module, self.trained.values()):
            yield

    def weights(self) -> dict[str, nn.Parameter]:
        """The module's parameters that may change, by real name."""
        return dict(self.trained)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put values into the trained parameters."""
        fill(self.trained, tensors)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the original weights back."""
        for name, parameter in self.trained.items():
            parameter.copy_(self.originals[name])


def _takes_lora(module: nn.Module) -> bool:
    """Whether a layer is a linear one that peft can wrap (GPT-2's ``Conv1D`` is one by another name)."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


class LoraSet:
    """LoRA factors made by peft over the linear layers among the chosen ones (not embeddings, not norms).

    The merged product is in the module between steps.
    """

    def __init__(self, model: HookedModel, policy: Trainable, seed: int) -> None:
        self.model = model
        module = model.module
        names = select(model, policy)
        paths = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
        paths = [p for p in paths if _takes_lora(module.get_submodule(p))]
        if not paths:
            raise ConfigError(
                "trainable.lora_rank is set, but the chosen parameters hold no linear layer; choose e.g. 'mlp_out'"
            )
        peft = optional_import("peft", "lora", "training through LoRA")
        flags = {p: p.requires_grad for p in module.parameters()}
        had_config = hasattr(module, "peft_config")
        base = {path: module.get_submodule(path) for path in paths}
        conv1d = any(type(m).__name__ == "Conv1D" for m in base.values())
        config = peft.LoraConfig(
            r=policy.lora_rank,
            lora_alpha=policy.lora_alpha,
            target_modules=paths,
            lora_dropout=0.0,
            fan_in_fan_out=conv1d,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            peft.inject_adapter_in_model(config, module, adapter_name="interp_unlearn")
        self.layers: dict[str, Any] = {path: module.get_submodule(path) for path in paths}
        self.base = base
        self._uninstall()
        if not had_config:
            del module.peft_config
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        self.originals = {f"{path}.weight": self._weight(path).detach().to("cpu", copy=True) for path in paths}
        self.trained: dict[str, nn.Parameter] = {}
        for path, layer in self.layers.items():
            for factor in ("lora_A", "lora_B"):
                self.trained[f"{path}.{factor}"] = getattr(layer, factor)["interp_unlearn"].weight

    def _weight(self, path: str) -> nn.Parameter:
        weight = self.base[path].weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def _put(self, modules: Mapping[str, nn.Module]) -> None:
        for path, module in modules.items():
            parent, _, child = path.rpartition(".")
            setattr(self.model.module.get_submodule(parent), child, module)

    def _uninstall(self) -> None:
        self._put(self.base)

    @torch.no_grad()
    def _merge(self) -> None:
        for path, layer in self.layers.items():
            weight, original = self._weight(path), self.originals[f"{path}.weight"]
            weight.copy_(original.to(weight.device) + layer.get_delta_weight("interp_unlearn").to(weight.dtype))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Base weights and LoRA layers in the module tree; merged weights and the user's own modules afterwards."""
        with torch.no_grad():
            for path in self.layers:
                self._weight(path).copy_(self.originals[f"{path}.weight"])
        self._put(self.layers)
        try:
            with gradients_of(self.model.module, self.trained.values()):
                yield
        finally:
            self._uninstall()
            self._merge()

    def weights(self) -> dict[str, nn.Parameter]:
        """The module's parameters that may change, by real name."""
        return {f"{path}.weight": self._weight(path) for path in self.layers}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put values into the LoRA factors and merge them."""
        fill(self.trained, tensors)
        self._merge()

    @torch.no_grad()
    def restore(self) -> None:
        """Put the original weights back."""
        for path in self.layers:
            self._weight(path).copy_(self.originals[f"{path}.weight"])


class NoWeights:
    """Nothing moves: for methods that only edit the model while it runs."""

    def __init__(self, model: HookedModel) -> None:
        self.model = model
        self.trained: dict[str, nn.Parameter] = {}
        self.originals: dict[str, Tensor] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The module in evaluation mode, without gradients."""
        with gradients_of(self.model.module):
            yield

    def weights(self) -> dict[str, nn.Parameter]:
        """None."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to put back."""

    def restore(self) -> None:
        """Nothing to put back."""


class AddedSet:
    """Parameters that a method puts beside a frozen model; they are saved with its intervention, not as weights.

    Attributes:
        trained: Parameters that the optimiser moves, by name.
        originals: Empty: no weight of the model may change.
    """

    def __init__(self, model: HookedModel, added: Mapping[str, nn.Parameter]) -> None:
        self.model = model
        self.trained: dict[str, nn.Parameter] = dict(added)
        self.originals: dict[str, Tensor] = {}
        self._start = {name: p.detach().clone() for name, p in self.trained.items()}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The module frozen and in evaluation mode."""
        with gradients_of(self.model.module):
            yield

    def weights(self) -> dict[str, nn.Parameter]:
        """None of the model's."""
        return {}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put values into the added parameters."""
        fill(self.trained, tensors)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the added parameters back to where they began."""
        fill(self.trained, self._start)


def trained_set(model: HookedModel, policy: Trainable, seed: int) -> WeightSet | LoraSet:
    """The set of parameters that ``policy`` asks for."""
    return LoraSet(model, policy, seed) if policy.lora_rank else WeightSet(model, policy)
