"""`wrap`: give a module named sites. Names, paths and hub ids are resolved one room higher, in `zoo.open_model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from interp_unlearn._core import ModelError
from interp_unlearn.hooked._discover import discover
from interp_unlearn.hooked._model import HookedModel
from interp_unlearn.hooked._sites import SiteMap


def _looks_like_language_model(module: nn.Module) -> bool:
    return hasattr(module, "get_output_embeddings") and getattr(module, "get_output_embeddings")() is not None  # noqa: B009


def wrap(
    module: nn.Module,
    tokenizer: Any = None,
    *,
    name: str | None = None,
    language: bool | None = None,
    overrides: Mapping[str, str] | None = None,
    source: Mapping[str, Any] | None = None,
) -> HookedModel:
    """Open a module in place: nothing is copied, nothing touches the network.

    Args:
        module: Any module. Decoder language models get TransformerLens site names.
        tokenizer: Needed for text inputs only.
        name: Shown in reports; default the class name.
        language: Force (True) or forbid (False) language-model names; default decided by structure.
        overrides: See `discover`.
        source: Provenance written into run folders.

    Raises:
        ModelError: If a language model's parts cannot be found (the message says which override helps), or it is no
            decoder.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"expected an nn.Module, got {type(module).__name__}")
    name = name or type(module).__name__
    as_language = language if language is not None else bool(overrides) or _looks_like_language_model(module)
    if not as_language:
        return HookedModel(module, SiteMap(module, {}), name=name, tokenizer=tokenizer, source=source)
    if getattr(getattr(module, "config", None), "is_encoder_decoder", False):
        raise ModelError(
            f"{name} has an encoder and a decoder; only decoders get site names: open it with language=False"
        )
    shape, sites = discover(module, overrides)
    return HookedModel(module, sites, name=name, shape=shape, tokenizer=tokenizer, source=source)
