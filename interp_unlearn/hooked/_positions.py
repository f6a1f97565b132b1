"""Which tokens are meant: positions count attended tokens, so padding never shifts them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

import torch
from jaxtyping import Int
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked._batch import Batch

Positions = int | str | Sequence[int] | Int[Tensor, " batch"] | Int[Tensor, "batch p"] | None


def columns_of(batch: Batch, positions: Positions) -> Int[Tensor, "batch p"] | None:
    """Columns of the padded batch that ``positions`` asks for (None means every column).

    ``positions`` counts among the attended tokens of each row: ``-1`` or ``"last"`` is the last real token whatever
    the padding; a sequence of ints applies to every row; a (batch,) or (batch, p) tensor gives *columns* row by row,
    as `span_last_token` returns them.

    Raises:
        DataError: If a position is outside its prompt, or of a kind that is not understood.
    """
    if positions is None:
        return None
    if isinstance(positions, str):
        if positions != "last":
            raise DataError(
                f"positions={positions!r} is not understood; use 'last', an int, a list of ints or a tensor"
            )
        positions = -1
    if isinstance(positions, Tensor) and positions.dim() > 0:
        columns = positions[:, None] if positions.dim() == 1 else positions
        if columns.shape[0] != len(batch):
            raise DataError(
                f"a positions tensor holds columns, one row per prompt: got {tuple(positions.shape)} for {len(batch)} "
                "prompts; to ask for the same places in every prompt, pass a list of ints"
            )
        width = batch.tokens.shape[1]
        if bool(((columns < 0) | (columns >= width)).any()):
            raise DataError(
                f"a positions tensor holds columns 0…{width - 1} of the padded batch, got {positions.tolist()}"
            )
        return columns.long().to(batch.tokens.device)
    try:
        wanted = [index(p) for p in positions] if isinstance(positions, Sequence) else [index(positions)]
    except TypeError as error:
        raise DataError(
            f"positions={positions!r} is not understood; use 'last', an int, a list of ints or a tensor"
        ) from error
    if not wanted:
        raise DataError("positions is an empty list; name at least one position, or pass None for all")
    return batch.index_of(torch.tensor(wanted, device=batch.tokens.device).expand(len(batch), -1))
