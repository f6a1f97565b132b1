"""Load a causal language model and its tokenizer from a local folder, with every likely damage named."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from interp_unlearn._core import FileFormatError, ModelError, read_json

with warnings.catch_warnings():
    # transformers imports it, and it warns in a notebook without ipywidgets; progress bars are then plain text.
    warnings.filterwarnings("ignore", "IProgress not found")
    import tqdm.auto  # noqa: F401

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no advice from transformers inside the block; errors still show."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """A torch dtype from its name; float32 when None.

    Raises:
        ModelError: If it is not a floating-point dtype.
    """
    if dtype is None:
        return torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"dtype {dtype!r} is not known; use float32, bfloat16 or float16")
    return found


def check_safetensors(path: Path) -> None:
    """Compare a safetensors file's length with what its header promises, without reading the tensors.

    Raises:
        FileFormatError: If it is truncated, or not safetensors.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        end = max((facts["data_offsets"][1] for name, facts in header.items() if name != "__metadata__"), default=0)
    except (struct.error, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not a safetensors file ({error}); copy or fetch it again") from error
    if size != 8 + length + end:
        raise FileFormatError(f"{path} is truncated ({size:,} of {8 + length + end:,} bytes); copy or fetch it again")


def check_folder(folder: Path) -> None:
    """See that a folder holds a config and whole safetensors weights.

    Raises:
        ModelError: If the config or the weights are missing, or only pickled weights are there.
        FileFormatError: If a weights file is truncated or missing from its index.
    """
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds an adapter only; open its base model and pass adapter={str(folder)!r}")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json, so it is not a model folder")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
        if pickles:
            raise ModelError(
                f"{folder} has pickled weights only ({pickles[0]}), which can run code when loaded and are refused; "
                "convert them to safetensors first"
            )
        raise ModelError(f"{folder} has no .safetensors weights")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = {folder / name for name in set(read_json(index)["weight_map"].values())}
        missing = sorted(p.name for p in named if not p.is_file())
        if missing:
            raise FileFormatError(f"{folder} lacks {missing[0]}, which {index.name} names; copy the folder again")
        weights = sorted(named)
    for path in weights:
        check_safetensors(path)


def load_tokenizer(source: Any) -> Any:
    """A fast tokenizer with a padding token, from a tokenizer, a folder, or a folder's path as text.

    Raises:
        ModelError: If it cannot be loaded or gives no character offsets.
    """
    from transformers import AutoTokenizer

    tokenizer = source
    if isinstance(source, (str, Path)):
        if not Path(source).expanduser().is_dir():
            raise ModelError(f"the tokenizer folder {source} does not exist")
        try:
            with quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(str(Path(source).expanduser()), local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"the tokenizer in {source} cannot be loaded ({error})") from error
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{type(tokenizer).__name__} gives no character offsets; a fast tokenizer is needed")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def load_folder(folder: Path, dtype: torch.dtype, tokenizer: Any = None) -> tuple[Any, Any]:
    """The model (in eval mode, on CPU) and its tokenizer (None if the folder has none); never touches the network.

    Raises:
        ModelError: If files are missing or do not fit the config.
        FileFormatError: If a file is damaged.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    check_folder(folder)
    if tokenizer is None and any((folder / name).is_file() for name in TOKENIZER_FILES):
        tokenizer = folder
    tokenizer = load_tokenizer(tokenizer) if tokenizer is not None else None
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, **options)
    except SafetensorError as error:
        raise FileFormatError(f"the weights in {folder} are damaged ({error}); copy or fetch them again") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be opened as a causal language model ({error})") from error
    model, info = loaded
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} tensors that its config asks for (first: {missing[0]}); "
            "weights and config.json do not belong together"
        )
    return model.eval(), tokenizer
