"""What tells whether a checkpoint is still the one that was measured, without reading it."""

from __future__ import annotations

from pathlib import Path

from interp_unlearn._core import config_hash
from interp_unlearn.zoo._entries import ZOO

KINDS = (".safetensors", ".json", ".gguf")


def fingerprint(name: str | None) -> str | None:
    """Hash of names, sizes and change times of a local checkpoint's files; None for what is no local path.

    A copy of the same weights has another fingerprint: it is then measured again, which is never wrong.

    Args:
        name: A folder, a file, a zoo name, a hub id, or None.
    """
    if name is None or name in ZOO:
        return None
    path = Path(name).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in KINDS and p.is_file())
    else:
        files = [path] if path.is_file() else []
    if not files:
        return None
    stats = [(p.name, p.stat()) for p in files]
    return config_hash({"files": [[name, s.st_size, s.st_mtime_ns] for name, s in stats]})
