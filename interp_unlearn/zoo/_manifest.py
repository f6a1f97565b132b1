"""A converted model's folder: written whole or not at all, and described by a manifest with checksums."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interp_unlearn._core import FileFormatError, __version__, read_json, write_json

MANIFEST = "manifest.json"
KIND = "interp-unlearn model"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a model folder, or None where there is no whole one."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = read_json(folder / MANIFEST)
    except FileFormatError:  # cut by a crash: the same as none
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("kind") == KIND else None


def is_valid(folder: Path, *, checksums: bool = False) -> bool:
    """Whether a folder holds every file that its manifest names.

    Args:
        folder: A model folder.
        checksums: Compare contents too (about a second per gigabyte), not sizes only.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != facts["bytes"]:
            return False
        if checksums and sha256_of(path) != facts["sha256"]:
            return False
    return True


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Describe every file of ``folder`` with size and checksum."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != MANIFEST)
    write_json(
        folder / MANIFEST,
        {
            "kind": KIND,
            "version": __version__,
            **facts,
            "files": {p.name: {"bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in files},
        },
    )


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; put it in ``target``'s place when the body succeeds.

    Of two processes that make the same folder at once, the later one wins; both leave a whole folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        yield temporary
        for path in temporary.iterdir():
            path.chmod(0o644)
        temporary.chmod(0o755)
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
        try:
            if target.exists():
                target.replace(old)
            temporary.replace(target)
        finally:
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
