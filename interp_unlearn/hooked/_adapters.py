"""Adapters of other libraries over the same parameters: TransformerLens' bridge and nnsight.

Both libraries put their own modules or wrappers into the tree they are given, which would rename parameters and move
module paths. So they get a *twin*: a second tree of modules that holds the very same parameters and buffers. Weights
exist once, training is seen by both trees, and the user's module stays as it is.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn

from interp_unlearn._core import ModelError, optional_import
from interp_unlearn.hooked._model import HookedModel


@dataclass(frozen=True)
class SharedBridge:
    """A bridge with what is needed to tell whether it still shows the model.

    Attributes:
        bridge: The `TransformerBridge`.
        identity: Identity of each of the model's parameters when it was made.
        versions: Their change counters, where the bridge holds copies of some (a split query–key–value matrix), else
            None.
    """

    bridge: Any
    identity: tuple[int, ...]
    versions: tuple[int, ...] | None


def twin(module: nn.Module) -> nn.Module:
    """A second tree of modules around the same parameters and buffers.

    Raises:
        ModelError: If hooks of this package are on the module (they would stay on the twin), or it cannot be copied.
    """
    for child in module.modules():
        for hook in chain(child._forward_hooks.values(), child._forward_pre_hooks.values()):
            function = hook.func if isinstance(hook, partial) else hook
            if getattr(function, "__module__", "").startswith("interp_unlearn."):
                raise ModelError("an edit or tap is active; leave its with block before taking .bridge or .nnsight")
    shared = {id(t): t for t in chain(module.parameters(), module.buffers())}
    try:
        return copy.deepcopy(module, memo=dict(shared))
    except (TypeError, RuntimeError, AttributeError) as error:
        raise ModelError(f"{type(module).__name__} cannot be mirrored for another library: {error}") from error


def current_bridge(model: HookedModel, known: SharedBridge | None) -> SharedBridge:
    """``known`` if it still shows the model's parameters, else a new bridge."""
    parameters = list(model.module.parameters())
    identity = tuple(id(p) for p in parameters)
    versions = tuple(p._version for p in parameters)
    if known is not None and known.identity == identity and known.versions in (None, versions):
        return known
    bridge = make_bridge(model)
    return SharedBridge(bridge, identity, versions if _copied(bridge, model.module) else None)


def _copied(bridge: nn.Module, module: nn.Module) -> bool:
    """Whether the bridge computes with copies of weights (a bias of zeros that it adds does not count)."""
    mine = {p.untyped_storage().data_ptr() for p in module.parameters()}
    return any(p.untyped_storage().data_ptr() not in mine and bool(p.any()) for p in bridge.parameters())


@torch.no_grad()
def make_bridge(model: HookedModel) -> Any:
    """TransformerLens `TransformerBridge` over the parameters of ``model``.

    Attention runs step by step there (so that scores and patterns exist), which changes logits by rounding only.

    Raises:
        ModelError: If TransformerLens has no adapter for this architecture, or its logits disagree with the model's.
        MissingPackageError: If transformer-lens is not installed.
    """
    shape = model.lm
    sources = optional_import("transformer_lens.model_bridge.sources", "tl", "a TransformerLens bridge")
    inner: Any = model.module.get_base_model() if hasattr(model.module, "get_base_model") else model.module  # type: ignore[operator]
    mirrored: Any = twin(inner)
    if not hasattr(mirrored, "config"):
        raise ModelError(f"{model.name} has no Hugging Face config, which TransformerLens needs for a bridge")
    try:
        bridge = sources.build_bridge_from_module(
            mirrored,
            type(inner).__name__,
            hf_config=mirrored.config,
            device=model.device,
            model_name=model.name,
        )
    except (ValueError, KeyError, AttributeError, NotImplementedError) as error:
        raise ModelError(f"TransformerLens cannot bridge {type(inner).__name__}: {error}") from error
    tokens = (torch.arange(4, device=model.device)[None] + 1) % shape.d_vocab
    if model.tokenizer is not None:
        _give_tokenizer(bridge, model.tokenizer, sources)
    mine, theirs = model.forward(tokens).float(), bridge(tokens).float()
    gap = float((mine - theirs).abs().max() / mine.abs().max().clamp(min=1e-6))
    if not gap <= (0.1 if model.dtype in (torch.float16, torch.bfloat16) else 1e-3):
        raise ModelError(
            f"TransformerLens' bridge disagrees with {model.name}: logits differ by {gap:.1%} of the largest"
        )
    return bridge


def _give_tokenizer(bridge: Any, tokenizer: Any, sources: Any) -> None:
    """Set a copy of the tokenizer, so that the same text gives the same tokens here and there.

    Building the bridge with a tokenizer would load it anew by its name, perhaps over the network, and add a BOS token.
    """
    mine = copy.deepcopy(tokenizer)
    if mine.pad_token is None:
        mine.pad_token = mine.eos_token or mine.convert_ids_to_tokens(0)
    bridge.tokenizer = mine
    prepends, appends = sources.detect_tokenizer_bos_eos(mine)
    bridge.cfg.tokenizer_prepends_bos, bridge.cfg.tokenizer_appends_eos = prepends, appends
    bridge.cfg.default_prepend_bos = prepends


def make_nnsight(model: HookedModel) -> Any:
    """An nnsight model over the parameters of ``model``, for tracing.

    Raises:
        MissingPackageError: If nnsight is not installed.
    """
    nnsight = optional_import("nnsight", "nnsight", "an nnsight model")
    mirrored = twin(model.module)
    if not model.is_language_model or model.tokenizer is None:
        return nnsight.NNsight(mirrored)
    modeling = optional_import("nnsight.modeling.transformers", "nnsight", "an nnsight model")
    return modeling.TransformersModel(mirrored, task="text-generation", tokenizer=copy.deepcopy(model.tokenizer))
