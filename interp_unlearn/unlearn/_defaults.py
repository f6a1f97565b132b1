"""Tuned recipes, one per objective.

Searched on SmolLM2-135M and in TinyWorld, with targets that no reported result uses; layers and learning rates are
given relative to the model's depth and width so that other models work too. ``docs/defaults.md`` tells how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    separate = all(p.rpartition(".")[0] != b for p, b in zip(shape.mlp_out, shape.blocks, strict=True) if p is not None)
    return _within(shape, max(0, layer - BEHIND), layer, ["mlp" if separate else "mlp_out", "attn"])


def _within(shape: LanguageShape, first: int, last: int, modules: list[str]) -> dict[str, Any]:
    """These modules of some blocks; the whole blocks where one has no projection from neurons (mixture of experts)."""
    has_mlp = all(path is not None for path in shape.mlp_out)
    return {"layers": [first, last], "modules": modules if has_mlp else []}


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
        "lr": _local_rate(shape, 2e-4),
        "warmup": 5,
        "schedule": "linear",
        "batch_size": 8,
        "retain_batch_size": 16,
    }


def _rmu(shape: LanguageShape, layer: int) -> dict[str, Any]:
    options = {"layer": layer, "coefficient": 2.0, "scale": "norm", "alpha": 10.0, "text_windows": 48}
    sizes = {"batch_size": 8, "retain_batch_size": 16}
    trainable = _within(shape, max(0, layer - 2), layer, ["mlp_out"])
    return {
        "options": options,
        "trainable": trainable,
        "steps": 80,
        "lr": _local_rate(shape, 2e-4, power=0.5),
        "warmup": 5,
        **sizes,
    }


def _local_rate(shape: LanguageShape, rate: float, power: float = 1.0) -> float:
    """A rate found with a few blocks of SmolLM2-135M (width 576), for blocks of another width."""
    return float(f"{min(1e-3, rate * (576 / shape.d_model) ** power):.3g}")


def _full_rate(shape: LanguageShape, rate: float, power: float = 2 / 3) -> float:
    """A rate found with all weights of SmolLM2-135M (30 blocks of width 576), for a model of another size.

    AdamW moves every weight by about the rate, so the residual stream moves in proportion to width × depth. That
    product is 34 times smaller in TinyWorld, where the search found rates ten times larger for most methods: hence the
    default power. Other powers join what was found for a method in both models.
    """
    return float(f"{min(1e-3, rate * (30 * 576 / (shape.n_layers * shape.d_model)) ** power):.3g}")


def _against_retain(
    shape: LanguageShape, rate: float = 1e-5, steps: int = 24, power: float = 2 / 3, **options: Any
) -> dict[str, Any]:
    """Few forget items against many retained ones, whose loss weighs five times: neighbours then survive."""
    sizes = {"batch_size": 4, "retain_batch_size": 12, "lr": _full_rate(shape, rate, power)}
    return {"options": {"alpha": 5.0, **options}, "steps": steps, "schedule": "linear", "warmup": 5, **sizes}


def _alone(shape: LanguageShape, steps: int, rate: float, power: float = 2 / 3, **options: Any) -> dict[str, Any]:
    """Forget items with nothing, or little, against them."""
    sizes = {"batch_size": 8, "retain_batch_size": 8}
    return {"options": options, "steps": steps, "lr": _full_rate(shape, rate, power), "warmup": 5, **sizes}


def _crisp(shape: LanguageShape, layer: int) -> dict[str, Any]:
    """As published (LoRA of rank 4 and scale 2), on the blocks up to the SAE."""
    trainable = {**_within(shape, max(0, layer - BEHIND), layer, ["mlp_out", "attn_out"]), "lora_rank": 4}
    sizes = {"batch_size": 8, "retain_batch_size": 16}
    return {
        "trainable": {**trainable, "lora_alpha": 8.0},
        "sampler_options": {"by_kind": True},
        "steps": 80,
        "lr": _local_rate(shape, 8e-4),
        "warmup": 5,
        **sizes,
    }


Table = Callable[[LanguageShape, int], dict[str, Any]]
"""Fields of a recipe, for a model and the block that representation objectives read."""

_SEARCHED: dict[str, Table] = {
    "ga": lambda shape, _: {"steps": 10, "lr": _full_rate(shape, 6e-6), "warmup": 5, "batch_size": 8},
    "grad_diff": lambda shape, _: _against_retain(shape),
    "npo": lambda shape, _: _against_retain(shape, beta=0.1),
    "sae_guided": _sae_guided,
    "dpo": lambda shape, _: _against_retain(shape, beta=0.1),
    "undial": lambda shape, _: _alone(shape, 40, 3e-6, beta=10.0, alpha=0.0),
    "wga": lambda shape, _: _against_retain(shape, 2e-5, beta=1.0),
    "rmu": _rmu,
    "simnpo": lambda shape, _: _against_retain(shape, 4e-5, power=0.5, beta=4.5, delta=0.0, gamma=4.0),
    "idk": lambda shape, _: _against_retain(shape, 2e-5, 48),
    "altpo": lambda shape, _: _against_retain(shape, beta=0.1, per_question=5),
    "satimp": lambda shape, _: _against_retain(shape, 2e-5, power=0.5, beta1=5.0, beta2=1.0, gamma=30.0, alpha=1.0),
    "pdu": lambda shape, _: _against_retain(shape, 3e-5, power=0.5, alpha=100.0, dual_step=5.0),
    "meow": lambda shape, _: _alone(shape, 40, 3e-6, memo={"length": "label"}, per="fact"),
    "crisp": _crisp,
    "flat": lambda shape, _: _alone(shape, 24, 1.2e-6, 1.0, divergence="kl"),
    "ceu": lambda shape, _: _alone(shape, 24, 1.5e-6, 1.0, skip_first=1),
    "task_vector": lambda shape, _: _alone(shape, 20, 5e-6, 1.0, scale=1.0),
    "sae_clamp": lambda *_: {"options": {"unit": "activation", "value": 1.0, "threshold": 0.05}},
    "dsg": lambda *_: {"options": {"unit": "activation", "value": 4.0, "gate_percentile": 80.0}},
}


def default_recipe(
    objective: str,
    model: HookedModel | LanguageShape,
    *,
    layer: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe for a model of this size, with values that were searched in TinyWorld and on SmolLM2-135M.

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
    make = _SEARCHED.get(objective)
    table, given = make(shape, layer) if make else {}, overrides or {}
    if given.get("sampler", Recipe.sampler) != table.get("sampler", Recipe.sampler):
        table.pop("sampler_options", None)  # they belong to the sampler of the table
    return Recipe.from_dict({"objective": objective, **merge_recipes(table, given)})


def merge_recipes(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the fields of ``over``; tables are merged, everything else is replaced."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge_recipes(out[key], value) if both else value
    return out
