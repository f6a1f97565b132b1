"""Turn what users have (text, ids, a tokenizer's output, a batch) into a checked `Batch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked._batch import Batch, batch_from_ids, tokenize

if TYPE_CHECKING:
    from interp_unlearn.hooked._model import HookedModel

WANTED = "give a text, a non-empty list of texts, token ids, a mapping with 'input_ids', or a Batch"


def make_batch(model: HookedModel, inputs: Any) -> Batch:
    """A `Batch` on the model's device.

    Args:
        model: A language model.
        inputs: A text, a sequence of texts, a (batch, position) or (position,) tensor or array of ids, a list of ids,
            a list of id lists, a mapping with ``input_ids`` and perhaps ``attention_mask``, or a `Batch`.

    Raises:
        DataError: If the inputs are of another kind, empty, longer than the context, or not ids of this model.
    """
    if isinstance(inputs, Batch):
        return check_batch(model, inputs).to(model.device)
    if isinstance(inputs, str) or _is_list_of(inputs, str):
        if model.tokenizer is None:
            raise DataError("this model was opened without a tokenizer; pass token ids, or open_model(…, tokenizer=…)")
        if "" in ([inputs] if isinstance(inputs, str) else inputs):  # some tokenizers give it a BOS token
            raise DataError("a prompt has no tokens; give a non-empty text")
        return check_batch(model, tokenize(model.tokenizer, inputs, max_length=model.lm.n_ctx)).to(model.device)
    special = list(model.tokenizer.all_special_ids) if model.tokenizer is not None else []
    attended = None
    if isinstance(inputs, Mapping):
        if "input_ids" not in inputs:
            raise DataError(f"a mapping of inputs needs 'input_ids'; it has {', '.join(map(str, inputs)) or 'nothing'}")
        attended = inputs.get("attention_mask")
        inputs = inputs["input_ids"]
    if not isinstance(inputs, (Tensor, np.ndarray)):
        rows = _id_lists(inputs)
        if attended is None:
            return check_batch(model, batch_from_ids(rows, special_ids=special)).to(model.device)
        inputs = torch.tensor(rows) if len({len(row) for row in rows}) == 1 else None
        if inputs is None:
            raise DataError("rows of 'input_ids' differ in length; pad them, or leave 'attention_mask' out")
    tokens = _matrix(inputs)
    if tokens.is_floating_point() or tokens.dtype == torch.bool or tokens.dim() != 2 or tokens.numel() == 0:
        raise DataError(f"token ids must be integers of shape (batch, position), got {_describe(inputs)}")
    mask = torch.ones_like(tokens, dtype=torch.bool) if attended is None else _matrix(attended).bool()
    if mask.shape != tokens.shape:
        raise DataError(f"attention_mask {tuple(mask.shape)} and input_ids {tuple(tokens.shape)} differ in shape")
    mask = mask.to(tokens.device)
    marked = torch.isin(tokens, torch.tensor(special, dtype=tokens.dtype, device=tokens.device)) & mask
    return check_batch(model, Batch(tokens.long(), mask, marked)).to(model.device)


def check_batch(model: HookedModel, batch: Batch) -> Batch:
    """The batch itself, if it fits the model.

    Raises:
        DataError: If a row is empty or longer than the context, or an id is outside the vocabulary.
    """
    lengths = batch.lengths()
    if batch.tokens.numel() == 0 or int(lengths.min()) == 0:
        raise DataError("a prompt has no tokens; give a non-empty text")
    n_ctx = model.lm.n_ctx
    if n_ctx is not None and batch.tokens.shape[1] > n_ctx and int(lengths.max()) > n_ctx:
        raise DataError(
            f"a prompt of {int(lengths.max())} tokens is longer than the model's context of {n_ctx}; shorten it"
        )
    low, high = (int(v) for v in batch.tokens.aminmax())
    if high >= model.lm.d_vocab or low < 0:
        raise DataError(
            f"token id {high if low >= 0 else low} is not in the vocabulary 0…{model.lm.d_vocab - 1}; "
            "were the ids made by another tokenizer?"
        )
    return batch


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, Sequence) and len(value) > 0 and all(isinstance(v, kind) for v in value)


def _matrix(value: Any) -> Tensor:
    tensor = torch.as_tensor(value)
    return tensor[None] if tensor.dim() == 1 else tensor


def _id_lists(value: Any) -> list[list[int]]:
    """Rows of ids from a list of ids, a list of lists, or a list of 1-D tensors or arrays."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) == 0:
        raise DataError(f"{WANTED}; got {_describe(value)}")
    rows = [value] if all(isinstance(v, (int, np.integer)) for v in value) else value
    plain = [row.tolist() if isinstance(row, (Tensor, np.ndarray)) else row for row in rows]
    for row in plain:
        good = isinstance(row, Sequence) and not isinstance(row, str)
        if not good or not all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in row):
            raise DataError(f"{WANTED}; got {_describe(value)}")
    return [[int(v) for v in row] for row in plain]


def _describe(value: Any) -> str:
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a {type(value).__name__} of {type(value[0]).__name__}" if value else f"an empty {type(value).__name__}"
    return type(value).__name__
