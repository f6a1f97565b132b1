"""Quantisation: small changes of weights can vanish when these are rounded, and the knowledge returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.attacks._ask_config import AskConfig
from interp_unlearn.attacks._asked import Groups
from interp_unlearn.attacks._asking import Asked, Asking, Tell
from interp_unlearn.attacks._disturb import ask_disturbed
from interp_unlearn.attacks._protocol import AttackResult, Progress
from interp_unlearn.hooked import HookedModel
from interp_unlearn.worlds import Task


@dataclass(frozen=True)
class QuantiseConfig(AskConfig):
    """How weights are rounded.

    Attributes:
        bits: One setting each, 2 to 8.
        group_size: Input weights that share a scale; 0 gives one scale per output channel.
        weights: ``"blocks"``, ``"upper"``, ``"all"``, or a regular expression on parameter names. Embeddings and the
            output head keep their precision, as is usual, unless an expression names them.
    """

    attack: ClassVar[str] = "quantise"

    bits: tuple[int, ...] = (8, 4)
    group_size: int = 0
    weights: str = "blocks"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(bool(self.bits) and all(2 <= b <= 8 for b in self.bits), "bits", "use numbers from 2 to 8")
        self.require(self.group_size >= 0, "group_size", "use 0 for one scale per output channel, or a number as 64")


def round_to_nearest(weight: Float[Tensor, "out in"], bits: int, group_size: int = 0) -> Float[Tensor, "out in"]:
    """Symmetric weight-only quantisation, simulated: values on the grid, in the weight's own dtype.

    Each output channel (or each group of ``group_size`` inputs of it) has the scale ``max |w| / (2^(bits − 1) − 1)``;
    each weight goes to the nearest multiple of it.

    Args:
        weight: A weight matrix.
        bits: Of the integers.
        group_size: Inputs that share a scale; 0 for all. The last group may be smaller.
    """
    top = 2 ** (bits - 1) - 1
    size = weight.shape[1] if group_size == 0 else group_size
    parts = []
    for part in weight.split(size, dim=1):
        scale = part.abs().amax(1, keepdim=True) / top
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        parts.append((part / scale).round().clamp(-top, top) * scale)
    return torch.cat(parts, dim=1)


def _ask(model: HookedModel, _task: Task, groups: Groups, config: QuantiseConfig, tell: Tell) -> Asked:
    def rounded(bits: int, _name: str, weight: Tensor) -> Tensor:
        return round_to_nearest(weight, bits, config.group_size)

    settings = [(f"int{bits}", [partial(rounded, bits)]) for bits in config.bits]
    labels, scores = ask_disturbed(model, groups, config.weights, settings, config.batch_size, tell)
    return Asked(labels, scores, {})


QUANTISE = Asking("quantise", "rounding the weights", "standard", QuantiseConfig, _ask)


def quantise_attack(
    model: HookedModel, task: Task, config: QuantiseConfig | None = None, *, progress: Progress | None = None
) -> AttackResult:
    """Round the weights and ask again (Zhang et al., "Catastrophic Failure of LLM Unlearning via Quantization", 2024).

    Weights are rounded in place, in float arithmetic, and put back bit for bit.

    Args:
        model: The model to attack.
        task: Names the target and holds the questions.
        config: Settings; default `QuantiseConfig()`.
        progress: Called with what is done, steps done and steps in all.

    Returns:
        ``recovery/quantise`` and the curve ``attack.quantise``.

    Raises:
        DataError: If there is no question about the target.
    """
    return QUANTISE(model, task, config, progress=progress)
