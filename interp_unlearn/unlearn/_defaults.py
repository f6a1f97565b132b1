"""Tuned recipes, one per objective.

Tuned on SmolLM2-135M with countries that are not among the reported targets; layers and learning rates are given
relative to the model's depth and width so that small worlds work too. How they were found is told in ``docs/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import HookedModel, LanguageShape
from interp_unlearn.unlearn._protocols import OBJECTIVES
from interp_unlearn.unlearn._recipe import Recipe

MIDDLE = 0.4  # of the depth: block 12 of 30, where known and unknown entities separate best in SmolLM2-135M
BEHIND = 4  # trained blocks below the read one


def default_layer(shape: LanguageShape) -> int:
    """The block whose output representation objectives read when nothing else says so."""
    return min(shape.n_layers - 1, max(0, round(MIDDLE * shape.n_layers)))


def _blocks_behind(shape: LanguageShape, layer: int) -> dict[str, Any]:
    """All of MLP and attention in the blocks behind the read one (MLP output weights where the MLP is no module)."""
    separate = all(
        p is not None and p.rpartition(".")[0] != b for p, b in zip(shape.mlp_out, shape.blocks, strict=True)
    )
    return {"layers": [max(0, layer - BEHIND), layer], "modules": ["mlp" if separate else "mlp_out", "attn"]}


def _sae_guided(shape: LanguageShape, layer: int) -> dict[str, Any]:
    options = {
        "target": "sampled",
        "pairing": "entity",
        "per_template": True,
        "gradient": "straight_through",
        "lambda_": 0.5,
        "alpha": 300.0,
        "retain_space": "residual",
        "retain_positions": "all",
        "text_windows": 48,
    }
    return {
        "options": options,
        "trainable": _blocks_behind(shape, layer),
        "sampler_options": {"by_kind": True},
        "steps": 80,
        "lr": 2e-4,
        "warmup": 5,
        "schedule": "linear",
        "batch_size": 8,
        "retain_batch_size": 16,
    }


def _rmu(layer: int) -> dict[str, Any]:
    options = {"layer": layer, "coefficient": 2.0, "scale": "norm", "alpha": 10.0, "text_windows": 48}
    sizes = {"batch_size": 8, "retain_batch_size": 16}
    trainable = {"layers": [max(0, layer - 2), layer], "modules": ["mlp_out"]}
    return {"options": options, "trainable": trainable, "steps": 80, "lr": 2e-4, "warmup": 5, **sizes}


def _crisp(layer: int) -> dict[str, Any]:
    """As published (LoRA of rank 4 and scale 2), on the blocks up to the SAE; not tuned here."""
    trainable = {"layers": [max(0, layer - BEHIND), layer], "modules": ["mlp_out", "attn_out"], "lora_rank": 4}
    sizes = {"batch_size": 8, "retain_batch_size": 16}
    return {
        "trainable": {**trainable, "lora_alpha": 8.0},
        "sampler_options": {"by_kind": True},
        "steps": 80,
        "lr": 1e-4,
        "warmup": 5,
        **sizes,
    }


def _output(steps: int, lr: float, **options: Any) -> dict[str, Any]:
    return {"options": options, "steps": steps, "lr": lr, "warmup": 5, "batch_size": 8, "retain_batch_size": 8}


def default_recipe(
    objective: str,
    model: HookedModel | LanguageShape,
    *,
    layer: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe that is known to work, for a model of this size.

    Args:
        objective: Name of an objective.
        model: The model, or its sizes.
        layer: Block that representation objectives read; give the layer of the SAE. Default 0.4 of the depth.
        overrides: Fields of `Recipe` as in a config file; tables (``options``, ``trainable`` …) are merged field by
            field.

    Raises:
        ConfigError: If the objective or a field is unknown, or the layer does not exist.
    """
    OBJECTIVES[objective]
    shape = model.lm if isinstance(model, HookedModel) else model
    layer = default_layer(shape) if layer is None else layer
    if not 0 <= layer < shape.n_layers:
        raise ConfigError(f"layer is {layer}, but the model has blocks 0…{shape.n_layers - 1}")
    tables: dict[str, dict[str, Any]] = {
        "ga": _output(10, 1e-5),
        "grad_diff": _output(40, 2e-5),
        "npo": _output(60, 2e-5, beta=0.1, text_windows=32),
        "meow": _output(40, 2e-5, memo={"length": "label"}, per="fact"),
        "sae_clamp": {"options": {"unit": "activation", "value": 4.0}},
        "dsg": {"options": {"unit": "activation", "value": 4.0}},
        "crisp": _crisp(layer),
    }
    if objective == "sae_guided":
        table = _sae_guided(shape, layer)
    elif objective == "rmu":
        table = _rmu(layer)
    else:
        table = tables.get(objective, {})
    return Recipe.from_dict({"objective": objective, **merge(table, overrides or {})})


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the fields of ``over``; tables are merged, everything else is replaced."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if both else value
    return out
