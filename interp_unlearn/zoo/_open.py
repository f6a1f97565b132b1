"""`open_model`: one way in for every kind of model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp_unlearn._core import ModelError
from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.worlds import TinyWorldConfig
from interp_unlearn.zoo._changes import apply_adapter, apply_delta
from interp_unlearn.zoo._entries import ZOO, entry_of, model_folder
from interp_unlearn.zoo._fetch import converted_gguf, fetch_from_hub, fetch_model
from interp_unlearn.zoo._load import as_dtype, load_folder, load_tokenizer
from interp_unlearn.zoo._manifest import is_valid, read_manifest, sha256_of
from interp_unlearn.zoo._tinyworld import TINYWORLD, tinyworld_folder, tinyworld_source

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def open_model(
    x: str | Path | nn.Module,
    *,
    tokenizer: Any = None,
    adapter: str | Path | None = None,
    delta: str | Path | None = None,
    language: bool | None = None,
    overrides: Mapping[str, str] | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
) -> HookedModel:
    """Open a model and give it named sites.

    A path or a module never touches the network. A zoo name is fetched at first use only; a hub id is asked of the hub.

    Args:
        x: Zoo name (see `list_models`; a folder of that name is written ``./name``), folder with ``config.json`` and
            safetensors, ``.gguf`` file, hub id (``owner/name``), or any ``nn.Module`` (shared, not copied).
        tokenizer: Fast tokenizer, or a folder with one; default: the one that lies with the weights. Without a padding
            token, its end-of-text token becomes one.
        adapter: Folder of a PEFT adapter, merged into the weights.
        delta: Safetensors file whose tensors replace the base's exactly, as a run's ``delta.safetensors``.
        language: Force (True) or forbid (False) language-model site names; default decided by structure.
        overrides: Module paths of parts that are not found by structure, see `interp_unlearn.hooked.wrap`.
        dtype: Dtype of the weights; default float32, and for a module its own.
        device: Where to put the model; default: a loaded one on the CPU, a module where it is.

    Returns:
        The model in eval mode (a module keeps its mode).

    Raises:
        ModelError: If ``x`` is none of these, there is no such model, it is pickled, or an adapter or delta does not
            fit.
        FileFormatError: If a file is truncated or foreign.

    Example:
        >>> model = open_model("smollm2-135m")
        >>> edited = open_model("smollm2-135m", delta="runs/japan/delta.safetensors")
    """
    if not isinstance(x, (str, Path, nn.Module)) or x == "":
        got = "an empty name" if x == "" else type(x).__name__
        raise ModelError(f"open_model takes a model's name, a folder, a hub id or an nn.Module, not {got}")
    if isinstance(x, nn.Module):
        module, name, source = x, type(x).__name__, {"kind": "module", "model": type(x).__name__}
        tokenizer = load_tokenizer(tokenizer) if tokenizer is not None else None
        if dtype is not None:
            module = module.to(as_dtype(dtype))
    elif isinstance(x, str) and x == TINYWORLD:
        name, source = x, tinyworld_source(TinyWorldConfig())
        module, tokenizer = load_folder(tinyworld_folder(), as_dtype(dtype), tokenizer)
        if as_dtype(dtype) is not torch.float32:  # a run's cache knows the plain model by its source
            source["dtype"] = str(as_dtype(dtype)).removeprefix("torch.")
    else:
        folder, name, source = _resolve(x)
        module, tokenizer = load_folder(folder, as_dtype(dtype), tokenizer)
        source |= {"dtype": str(as_dtype(dtype)).removeprefix("torch."), **_checksum(folder)}
    if adapter is not None:
        module = apply_adapter(module, adapter)
        source["adapter"] = str(adapter)
    if delta is not None:
        apply_delta(module, delta)
        source |= {"delta": str(delta), "delta_sha256": sha256_of(Path(delta))}
    if device is not None:
        module = module.to(device)
    return wrap(module, tokenizer, name=name, language=language, overrides=overrides, source=source)


def _resolve(x: str | Path) -> tuple[Path, str, dict[str, Any]]:
    """Folder with safetensors, display name and provenance of whatever ``x`` names."""
    text = str(x)
    path = Path(x).expanduser()
    if isinstance(x, str) and x in ZOO:
        return _ready(x), x, {"kind": "zoo", "model": x}
    if path.is_dir():
        return path, path.name or text, {"kind": "path", "model": str(path.resolve())}
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(
                f"{path} is a file but not a .gguf; give the folder that holds config.json and the weights"
            )
        return converted_gguf(path), path.stem, {"kind": "gguf", "model": str(path.resolve())}
    if (
        isinstance(x, Path)
        or text.startswith(("/", "./", "../", "~"))
        or path.suffix.lower() in (".gguf", ".safetensors")
    ):
        raise ModelError(f"{text} does not exist")
    if HUB_ID.fullmatch(text):
        return fetch_from_hub(text), text, {"kind": "hub", "model": text}
    return _ready(text), text, {"kind": "zoo", "model": text}


def _ready(name: str) -> Path:
    """Folder of a zoo model, fetched if need be."""
    entry, folder = entry_of(name), model_folder(name)
    return folder if entry.package is not None and is_valid(folder) else fetch_model(name)


def _checksum(folder: Path) -> dict[str, Any]:
    """Checksum of the weights where a manifest states it (nothing is hashed at opening)."""
    manifest = read_manifest(folder)
    if manifest is None:
        return {}
    weights = {n: f["sha256"] for n, f in manifest["files"].items() if n.endswith(".safetensors")}
    return {"weights_sha256": next(iter(weights.values())) if len(weights) == 1 else weights}
