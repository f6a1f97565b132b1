"""What every room shares: errors, seeds, atomic files, registries and labelled results. Imports nothing of the package.

The names that need torch are imported when they are first asked for, so that views of saved results start without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interp_unlearn._core._errors import ConfigError as ConfigError
from interp_unlearn._core._errors import DataError as DataError
from interp_unlearn._core._errors import FileFormatError as FileFormatError
from interp_unlearn._core._errors import InterpUnlearnError as InterpUnlearnError
from interp_unlearn._core._errors import MissingPackageError as MissingPackageError
from interp_unlearn._core._errors import ModelError as ModelError
from interp_unlearn._core._errors import NothingToForgetError as NothingToForgetError
from interp_unlearn._core._errors import RunsFailedError as RunsFailedError
from interp_unlearn._core._errors import SiteError as SiteError
from interp_unlearn._core._errors import TrainingDivergedError as TrainingDivergedError
from interp_unlearn._core._errors import nearest as nearest
from interp_unlearn._core._io import append_jsonl as append_jsonl
from interp_unlearn._core._io import atomic as atomic
from interp_unlearn._core._io import cache_dir as cache_dir
from interp_unlearn._core._io import read_json as read_json
from interp_unlearn._core._io import read_jsonl as read_jsonl
from interp_unlearn._core._io import write_json as write_json
from interp_unlearn._core._io import write_jsonl as write_jsonl
from interp_unlearn._core._locks import locked as locked
from interp_unlearn._core._memory import give_back_memory as give_back_memory
from interp_unlearn._core._optional import optional_import as optional_import
from interp_unlearn._core._registry import Registry as Registry
from interp_unlearn._core._registry import check_choice as check_choice
from interp_unlearn._core._results import Axis as Axis
from interp_unlearn._core._results import Evidence as Evidence
from interp_unlearn._core._results import Labelled as Labelled
from interp_unlearn._core._run_folders import run_folders as run_folders
from interp_unlearn._core._seeds import config_hash as config_hash
from interp_unlearn._core._seeds import numpy_rng as numpy_rng
from interp_unlearn._core._serve import find_work as find_work
from interp_unlearn._core._serve import serve as serve
from interp_unlearn._core._version import __version__ as __version__

if TYPE_CHECKING:
    from interp_unlearn._core._optim import adamw as adamw
    from interp_unlearn._core._optim import values_before_adamw as values_before_adamw
    from interp_unlearn._core._tensors import read_tensors as read_tensors
    from interp_unlearn._core._tensors import write_tensors as write_tensors
    from interp_unlearn._core._torch_seeds import generator as generator
    from interp_unlearn._core._torch_seeds import seed_everything as seed_everything

_NEED_TORCH = {
    "adamw": "_optim",
    "values_before_adamw": "_optim",
    "read_tensors": "_tensors",
    "write_tensors": "_tensors",
    "generator": "_torch_seeds",
    "seed_everything": "_torch_seeds",
}


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)
    globals()[name] = value
    return value
