"""Which entries of which weights a neuron is: its column of the projection out, its rows of the projections in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from interp_unlearn._core import ConfigError, ModelError, check_choice
from interp_unlearn.hooked import HookedModel
from interp_unlearn.neurons._select import NeuronSet

NeuronWeights = Literal["down", "up", "full", "rows"]
NEURON_WEIGHTS = {
    "down": "the value vector: the neuron's column of down_proj (c_proj, fc2 …)",
    "up": "the key side: its rows of up_proj and gate_proj (c_fc, fc1 …), with their biases",
    "full": "both",
    "rows": "its row, and bias, of the linear layer whose output is the scored site",
}


def _inputs_last(layer: nn.Module) -> bool:
    """Whether the weight is (out, in), as in nn.Linear; GPT-2's Conv1D has (in, out)."""
    return not type(layer).__name__.startswith("Conv1D")


def _linear(layer: nn.Module) -> bool:
    weight = getattr(layer, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 2 and not isinstance(layer, nn.Embedding)


def _sizes(layer: nn.Module) -> tuple[int, int]:
    """(in, out)."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    rows, columns = weight.shape
    return (columns, rows) if _inputs_last(layer) else (rows, columns)


def _into(model: HookedModel, layer: int) -> list[str]:
    """Module paths of the projections into the neurons: linear siblings of the one out, with one output per neuron."""
    out = model.lm.mlp_out[layer]
    if out is None:
        raise ModelError(f"block {layer} of {model.name} has no projection from neurons to the residual stream")
    parent = out.rpartition(".")[0]
    width = _sizes(model.submodule(out))[0]
    found = []
    for name, child in model.submodule(parent).named_children():
        path = f"{parent}.{name}"
        if path != out and _linear(child) and _sizes(child)[1] == width:
            found.append(path)
    if not found:
        raise ModelError(
            f"block {layer} of {model.name} has no separate projection into its {width} neurons (it may be fused); "
            "use weights='down'"
        )
    return found


def _entries(model: HookedModel, weights: NeuronWeights, site: str, layer: int) -> Iterator[tuple[str, nn.Module, str]]:
    """Module path, module, and whether a neuron is one of its inputs or outputs."""
    if weights in ("down", "full"):
        out = model.lm.mlp_out[layer]
        if out is None:
            raise ModelError(f"block {layer} of {model.name} has no projection from neurons to the residual stream")
        yield out, model.submodule(out), "in"
    if weights in ("up", "full"):
        for path in _into(model, layer):
            yield path, model.submodule(path), "out"
    if weights == "rows":
        place = model.sites[site]
        module = model.sites.module_of(place)
        if place.kind != "output" or not _linear(module):
            raise ConfigError(
                f"weights='rows' needs a site that is the output of a linear layer, and {site!r} is not; use 'down'"
            )
        yield place.path, module, "out"


def _file(masks: dict[str, Tensor], path: str, layer: nn.Module, side: str, neurons: Sequence[int], width: int) -> None:
    size = _sizes(layer)[0 if side == "in" else 1]
    if size != width:
        raise ModelError(
            f"{path} has {size} {side}puts but {width} neurons were scored; choose weights that fit the site"
        )
    weight, bias = layer.weight, getattr(layer, "bias", None)
    assert isinstance(weight, Tensor)
    mask = masks.setdefault(f"{path}.weight", torch.zeros_like(weight, dtype=torch.bool))
    if (side == "in") == _inputs_last(layer):
        mask[:, list(neurons)] = True
    else:
        mask[list(neurons)] = True
    if side == "out" and isinstance(bias, Tensor):
        masks.setdefault(f"{path}.bias", torch.zeros_like(bias, dtype=torch.bool))[list(neurons)] = True


def neuron_masks(
    model: HookedModel,
    neurons: NeuronSet,
    weights: NeuronWeights = "down",
) -> dict[str, Tensor]:
    """True at the entries that belong to ``neurons``, by real parameter name; other parameters are left out.

    The bias of the projection out belongs to no neuron and is never included.

    Args:
        model: The opened model.
        neurons: Which neurons.
        weights: Which of their weights, see `NEURON_WEIGHTS`.

    Raises:
        ConfigError: If ``weights`` is unknown or does not fit the scored site.
        ModelError: If a block has no such weights, or they do not match the neurons.
    """
    check_choice("weights", weights, NeuronWeights)
    masks: dict[str, Tensor] = {}
    for layer, mine in neurons.by_layer.items():
        for path, module, side in _entries(model, weights, neurons.sites[layer], layer):
            _file(masks, path, module, side, mine, neurons.width)
    return masks


def weight_names(model: HookedModel, sites: Sequence[str], weights: NeuronWeights, layer: int) -> list[str]:
    """Names of the weights (not biases) that hold the neurons of one layer."""
    return [f"{path}.weight" for path, _, _ in _entries(model, weights, sites[layer], layer)]
