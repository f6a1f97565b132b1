"""The way back over the last step, for a loss that is not finite.

Transforms need the values before a step, so with one they are kept as a copy. Without one, AdamW's last step is
computed backwards from its moments, which is exact but for rounding and spares a copy of everything that is trained,
on the device of the model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from interp_unlearn._core import values_before_adamw
from interp_unlearn.unlearn._trained import AddedSet, LoraSet, NoWeights, WeightSet, fill


class LastStep:
    """Values of the trained parameters before the last step.

    Attributes:
        before: Copies by name, or empty where the step is computed backwards.
    """

    def __init__(
        self,
        weights: WeightSet | LoraSet | AddedSet | NoWeights,
        optimizer: torch.optim.Optimizer,
        *,
        copies: bool,
    ) -> None:
        self._weights = weights
        backwards = isinstance(weights, WeightSet) and not copies
        self._adamw = optimizer if backwards and isinstance(optimizer, torch.optim.AdamW) else None
        self.before: dict[str, Tensor] = (
            {name: p.detach().clone() for name, p in weights.trained.items()} if self._adamw is None else {}
        )

    @torch.no_grad()
    def remember(self) -> None:
        """Note the values before a step that is about to be taken."""
        for name, copy in self.before.items():
            copy.copy_(self._weights.trained[name])

    def load(self, copies: Mapping[str, Tensor]) -> None:
        """Put saved copies back."""
        fill(self.before, copies)

    @torch.no_grad()
    def undo(self, lr: float, taken: int) -> int:
        """Put the values before the last step back.

        Args:
            lr: Learning rate of that step.
            taken: Steps taken so far.

        Returns:
            Steps that the values have behind them now: one less, or 0 where these are not finite either and the
            original weights were put back.
        """
        trained = self._weights.trained
        for name, copy in self.before.items():
            trained[name].copy_(copy)
        if self._adamw is None or not taken:
            return max(0, taken - 1)
        if taken > 1:
            for parameter in trained.values():
                parameter.copy_(values_before_adamw(self._adamw, parameter, lr))
            if all(bool(p.isfinite().all()) for p in trained.values()):
                return taken - 1
        self._weights.restore()
        return 0
