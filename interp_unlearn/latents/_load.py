"""`load_sae`: a shipped SAE by name, a SAELens folder, or a SAELens release from the hub."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from interp_unlearn._core import ConfigError, FileFormatError, nearest, optional_import
from interp_unlearn.latents._format import WEIGHTS, read_sae, sae_from_parts
from interp_unlearn.latents._sae import SAE

DEFAULT = "default.txt"  # in a model's folder of shipped SAEs: the id meant by the model's name alone


def shipped_folder() -> Path | None:
    """Where the SAEs that come with the package are: inside the wheel, or ``saes/`` of the checkout."""
    package = Path(str(files("interp_unlearn")))
    for folder in (package / "_saes", package.parent / "saes"):
        if folder.is_dir():
            return folder
    return None


def list_saes() -> tuple[str, ...]:
    """Names of the shipped SAEs, such as ``"smollm2-135m/l12-topk-4608"``."""
    root = shipped_folder()
    if root is None:
        return ()
    return tuple(sorted(f"{p.parent.parent.name}/{p.parent.name}" for p in root.glob(f"*/*/{WEIGHTS}")))


def load_sae(x: str | Path | SAE, sae_id: str | None = None) -> SAE:
    """Open an SAE.

    Args:
        x: A shipped name (``"smollm2-135m"`` for the default of that model, or ``"smollm2-135m/<id>"``, see
            `list_saes`), a folder in SAELens format, or, with ``sae_id``, a SAELens release. An `SAE` is returned.
        sae_id: Id within a SAELens release; this fetches from the hub through sae-lens.

    Raises:
        ConfigError: If the name is unknown (the nearest are shown).
        FileFormatError: If the folder is not a whole SAELens SAE.
    """
    if isinstance(x, SAE):
        return x
    if sae_id is not None:
        return _from_release(str(x), sae_id)
    path = Path(x).expanduser()
    if path.is_dir():
        return read_sae(path)
    if path.is_file():
        if path.name == WEIGHTS:
            return read_sae(path.parent, path.parent.name)
        raise FileFormatError(f"{path} is a file; give the SAELens folder that holds cfg.json and {WEIGHTS}")
    name = str(x)
    root, names = shipped_folder(), list_saes()
    if root is not None and name in names:
        return read_sae(root / name, name)
    if root is not None and (root / name / DEFAULT).is_file():
        name = f"{name}/{(root / name / DEFAULT).read_text(encoding='utf-8').strip()}"
        if name in names:
            return read_sae(root / name, name)
    raise ConfigError(
        f"unknown SAE {str(x)!r}{nearest(str(x), names)}; give a shipped name "
        f"({', '.join(names) or 'none installed'}), a SAELens folder, or a SAELens release with sae_id"
    )


def _from_release(release: str, sae_id: str) -> SAE:
    lens = optional_import("sae_lens", "sae", "loading a SAELens release")
    try:
        found = lens.SAE.from_pretrained(release, sae_id)
    except (ValueError, OSError) as error:
        raise ConfigError(f"SAELens could not load {release!r} / {sae_id!r}: {error}") from error
    return sae_from_parts(found.cfg.to_dict(), dict(found.state_dict()), f"{release}/{sae_id}")
