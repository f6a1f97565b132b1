"""Which parameters a recipe may move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from interp_unlearn._core import ConfigError, nearest
from interp_unlearn.hooked import HookedModel
from interp_unlearn.unlearn._fields import require

TRAINABLE_KINDS = {
    "mlp_out": "weights from the neurons to the residual stream (down_proj, c_proj, fc2 …)",
    "attn_out": "weights from the heads to the residual stream (o_proj, c_proj, out_proj …)",
    "mlp": "all weights of the MLPs",
    "attn": "all weights of the attention",
    "embed": "the token embedding",
}


@dataclass(frozen=True)
class Trainable:
    """A choice of parameters: blocks × kinds, as they are or through LoRA.

    Attributes:
        layers: First and last block (both included), or None for the whole model, embeddings and norms included.
        modules: Structural kinds (see `TRAINABLE_KINDS`) or `fnmatch` patterns on real parameter names, e.g.
            ``"*.down_proj.weight"``; empty means everything in ``layers``.
        lora_rank: 0 trains the weights themselves; above 0 the base is frozen and a LoRA of this rank is trained
            (peft).
        lora_alpha: LoRA scale is ``lora_alpha / lora_rank``.
    """

    layers: tuple[int, int] | None = None
    modules: tuple[str, ...] = ()
    lora_rank: int = 0
    lora_alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.layers is not None:
            first, last = self.layers
            require(
                0 <= first <= last,
                f"trainable.layers is [{first}, {last}]; give the first and the last block, counted from 0",
            )
        require(self.lora_rank >= 0, f"trainable.lora_rank is {self.lora_rank}; use 0 for no LoRA, or a rank such as 8")
        require(self.lora_alpha > 0, f"trainable.lora_alpha is {self.lora_alpha}; use a positive number such as 16")


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _roots(model: HookedModel, kind: str) -> Iterator[tuple[int | None, str]]:
    """Block index and parameter-name prefix of each module of ``kind``."""
    shape = model.lm
    if kind == "embed":
        yield None, f"{shape.embed}."
        return
    for layer, block in enumerate(shape.blocks):
        if kind.startswith("mlp"):
            path = shape.mlp_out[layer]
        else:
            name = f"blocks.{layer}.attn.hook_z"
            path = model.sites[name].path if name in model.sites else None
        if path is not None and not kind.endswith("_out"):
            path = None if _parent(path) == block else _parent(path)
        if path is None:
            raise ConfigError(
                f"trainable.modules: block {layer} of {model.name} has no separate {kind!r}; name its parameters by "
                "a pattern "
                "such as '*.fc1.*' instead"
            )
        yield layer, f"{path}."


def select(model: HookedModel, policy: Trainable) -> dict[str, nn.Parameter]:
    """Parameters that ``policy`` chooses, by real name, in the module's order.

    Raises:
        ConfigError: If a layer does not exist or nothing matches (the nearest names are shown).
    """
    parameters = {name: p for name, p in model.module.named_parameters() if p.is_floating_point()}
    layers = policy.layers
    kinds = [module for module in policy.modules if module in TRAINABLE_KINDS]
    if model.shape is None and (layers is not None or kinds):
        field = f"trainable.modules = {kinds}" if kinds else f"trainable.layers = {list(layers or ())}"
        raise ConfigError(
            f"{field} chooses blocks of a decoder language model, which {model.name} is not; choose by patterns on "
            f"parameter names, e.g. trainable.modules = ['{next(iter(parameters))}']"
        )
    allowed = set(parameters)
    if layers is not None:
        if layers[1] >= model.lm.n_layers:
            raise ConfigError(
                f"trainable.layers ends at {layers[1]}, but {model.name} has {model.lm.n_layers} blocks "
                f"(0…{model.lm.n_layers - 1})"
            )
        allowed = {name for name, _ in model.layer_parameters(range(layers[0], layers[1] + 1))}
    if not policy.modules:
        return {name: p for name, p in parameters.items() if name in allowed}
    chosen: set[str] = set()
    for module in policy.modules:
        if module in TRAINABLE_KINDS:
            prefixes = tuple(prefix for _, prefix in _roots(model, module))
            scope = set(parameters) if module == "embed" else allowed
            found = {name for name in scope if name.startswith(prefixes)}
        else:
            found = {name for name in allowed if fnmatchcase(name, module)}
        if not found:
            hint = nearest(module, [*TRAINABLE_KINDS, *parameters])
            raise ConfigError(
                f"trainable.modules: {module!r} matches no parameter{hint}; use one of "
                f"{', '.join(TRAINABLE_KINDS)}, or a pattern on parameter names such as '*.down_proj.weight'"
            )
        chosen |= found
    return {name: p for name, p in parameters.items() if name in chosen}
