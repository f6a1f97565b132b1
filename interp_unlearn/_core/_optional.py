"""Import an optional package, or say in one sentence how to install it."""

from importlib import import_module
from typing import Any

from interp_unlearn._core._errors import MissingPackageError


def optional_import(module: str, extra: str, purpose: str) -> Any:
    """Import ``module`` now.

    Args:
        module: Import name, e.g. ``"sae_lens"``.
        extra: Extra of this project that installs it, e.g. ``"sae"``.
        purpose: What the user was about to do, e.g. ``"training an SAE"``.

    Raises:
        MissingPackageError: If the package is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{purpose} needs the package {module!r}, which cannot be imported ({error}); "
            f"install it with: pip install 'interp-unlearn[{extra}]'"
        ) from error
