"""Lay an edit over a base model: a PEFT adapter, or a delta (tensors that replace the base's)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from interp_unlearn._core import ModelError, nearest, optional_import, read_tensors
from interp_unlearn.zoo._load import check_safetensors, quiet_transformers


@torch.no_grad()
def apply_delta(module: nn.Module, path: str | Path) -> list[str]:
    """Replace tensors of ``module`` by those of a safetensors file, exactly and in place.

    All names and shapes are checked before the first tensor is written.

    Args:
        module: The base model.
        path: File written as a run's ``delta.safetensors``; names as in ``module.state_dict()``.

    Returns:
        The names replaced, sorted.

    Raises:
        ModelError: If a tensor does not exist in the base or has another shape.
        FileFormatError: If the file is missing, truncated, or a pickle.
    """
    tensors = read_tensors(path)
    own = dict(module.state_dict(keep_vars=True))
    if not tensors:
        raise ModelError(f"{path} holds no tensors; it is not the delta of a model that changed")
    for name, tensor in tensors.items():
        if name not in own:
            raise ModelError(
                f"{path} changes {name!r}, which the base model does not have{nearest(name, own, n=2)}; "
                "was it made from another base?"
            )
        if own[name].shape != tensor.shape:
            raise ModelError(
                f"{path} changes {name!r} with shape {tuple(tensor.shape)}, but the base has {tuple(own[name].shape)}; "
                "was it made from another base?"
            )
    for name, tensor in tensors.items():
        own[name].copy_(tensor)
    return sorted(tensors)


def apply_adapter(module: nn.Module, folder: str | Path) -> nn.Module:
    """Merge a PEFT adapter (LoRA and relatives) into the base's weights.

    Args:
        module: The base model; it is changed in place.
        folder: Folder with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Returns:
        The base model with the adapter merged, so that its sites are the base's.

    Raises:
        ModelError: If the folder holds no adapter, a pickled one, or one for another base.
        FileFormatError: If its weights are truncated.
    """
    folder = Path(folder).expanduser()
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder} has no adapter_config.json, so it is not an adapter folder")
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = "only a pickled adapter, which is refused; convert it to safetensors" if pickled else "no adapter weights"
        raise ModelError(f"{folder} holds {why}")
    check_safetensors(weights)
    peft = optional_import("peft", "lora", "opening an adapter")
    expected = {name.replace("base_model.model.", "", 1) for name in read_tensors(weights)}
    targets = {name.split(".lora_")[0] for name in expected if ".lora_" in name}
    missing = sorted(t for t in targets if t not in dict(module.named_modules()))
    if missing:
        raise ModelError(f"the adapter in {folder} is for another base: the model has no module {missing[0]!r}")
    try:
        with quiet_transformers():
            merged = peft.PeftModel.from_pretrained(module, str(folder), local_files_only=True).merge_and_unload()
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        raise ModelError(f"the adapter in {folder} does not fit the base model ({error})") from error
    return merged.eval()
