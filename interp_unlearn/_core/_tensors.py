"""Tensor files: safetensors only, written atomically, read with errors that name the fix."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from interp_unlearn._core._errors import FileFormatError
from interp_unlearn._core._io import atomic

PICKLE_SUFFIXES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib"}


def write_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors, atomically.

    Args:
        path: Target file, ending in ``.safetensors``.
        tensors: Name to tensor. What is contiguous, on the CPU and shares no memory with another is written as it is,
            without a copy.
        metadata: Strings kept in the header.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    flat: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        flat[name] = value.clone() if place in places else value  # the format refuses memory that is shared
        places.add(place)
    with atomic(Path(path)) as temporary:
        try:
            save_file(flat, temporary, metadata=dict(metadata or {}))
        except SafetensorError as error:  # it wraps what the system said, a full disk above all
            raise OSError(f"{path} cannot be written ({error})") from error


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        FileFormatError: If it is missing, a pickle, truncated, or not safetensors.
    """
    path = Path(path)
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise FileFormatError(
            f"{path} looks like a pickle, which can run code when loaded; convert it to .safetensors first"
        )
    if not path.exists():
        raise FileFormatError(f"{path} does not exist")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise FileFormatError(
            f"{path} is not a whole safetensors file ({error}); it may be truncated: make or copy it again"
        ) from error
