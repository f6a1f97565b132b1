"""Arrays of an ``.npz`` file, never a pickle."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from interp_unlearn._core import DataError, FileFormatError


def read_arrays(path: Path, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays by name.

    Args:
        path: The file.
        only: Names to read; None reads all. A name that the file lacks is left out.

    Raises:
        DataError: If the file does not exist.
        FileFormatError: If it is no ``.npz``, damaged, or an array that is asked for holds pickled objects.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the path of the file, or of the folder that holds it")
    with path.open("rb") as raw:
        if raw.read(2) != b"PK":  # an .npz is a zip archive
            raise FileFormatError(
                f"{path} is no .npz file, whatever its name says; make it with numpy.savez or fetch it again"
            )
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if only is None or name in only}
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise FileFormatError(f"{path} is not a whole .npz file ({error}); copy or make it again") from error
        raise FileFormatError(
            f"{path} holds pickled objects, which can run code when loaded and are refused; save plain arrays with "
            "numpy.savez"
        ) from error
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise FileFormatError(f"{path} is not a whole .npz file ({error}); copy or make it again") from error
