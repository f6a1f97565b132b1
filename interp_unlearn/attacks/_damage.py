"""Noise and pruning: does random or structural damage to weights bring the target back before it breaks the model?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import generator
from interp_unlearn.attacks._ask_config import AskConfig
from interp_unlearn.attacks._asked import Groups
from interp_unlearn.attacks._asking import Asked, Asking, Tell
from interp_unlearn.attacks._disturb import ask_disturbed
from interp_unlearn.attacks._protocol import AttackResult, Progress
from interp_unlearn.hooked import HookedModel
from interp_unlearn.worlds import Task


@dataclass(frozen=True)
class NoiseConfig(AskConfig):
    """How weights are disturbed.

    Attributes:
        scales: Standard deviations of the noise, in units of each matrix's own; one setting each.
        draws: Draws averaged for each setting.
        weights: As in `QuantiseConfig`.
    """

    attack: ClassVar[str] = "noise"

    scales: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.4)
    draws: int = 2
    weights: str = "blocks"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            bool(self.scales) and all(s > 0 for s in self.scales), "scales", "use positive numbers such as 0.1"
        )
        self.require(self.draws >= 1, "draws", "use 1 or more")


@dataclass(frozen=True)
class PruneConfig(AskConfig):
    """How weights are removed.

    Attributes:
        shares: Shares of each matrix's weights, the smallest by magnitude, that become 0; one setting each.
        weights: As in `QuantiseConfig`.
    """

    attack: ClassVar[str] = "prune"

    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 0.7)
    weights: str = "blocks"

    def __post_init__(self) -> None:
        super().__post_init__()
        ok = bool(self.shares) and all(0 < s < 1 for s in self.shares)
        self.require(ok, "shares", "use numbers between 0 and 1 such as 0.3")


def prune_smallest(weight: Float[Tensor, "out in"], share: float) -> Float[Tensor, "out in"]:
    """The matrix with its ``round(share · size)`` weights of smallest magnitude set to 0."""
    n = round(share * weight.numel())
    smallest = weight.abs().flatten().topk(n, largest=False, sorted=False).indices
    return weight.flatten().index_fill(0, smallest, 0.0).reshape(weight.shape)


def _ask_noise(model: HookedModel, _task: Task, groups: Groups, config: NoiseConfig, tell: Tell) -> Asked:
    def noisy(scale: float, draw: int, name: str, weight: Tensor) -> Tensor:
        random = torch.randn(weight.shape, generator=generator(config.seed, "noise", draw, name))
        return weight + scale * weight.std() * random.to(weight.device)

    settings = [(f"{s:g} std", [partial(noisy, s, draw) for draw in range(config.draws)]) for s in config.scales]
    return Asked(*ask_disturbed(model, groups, config.weights, settings, config.batch_size, tell), {})


def _ask_pruned(model: HookedModel, _task: Task, groups: Groups, config: PruneConfig, tell: Tell) -> Asked:
    def pruned(share: float, _name: str, weight: Tensor) -> Tensor:
        return prune_smallest(weight, share)

    settings = [(f"{share:.0%}", [partial(pruned, share)]) for share in config.shares]
    return Asked(*ask_disturbed(model, groups, config.weights, settings, config.batch_size, tell), {})


NOISE = Asking("noise", "disturbing the weights", "full", NoiseConfig, _ask_noise)
PRUNE = Asking("prune", "removing small weights", "full", PruneConfig, _ask_pruned)


def noise_attack(
    model: HookedModel, task: Task, config: NoiseConfig | None = None, *, progress: Progress | None = None
) -> AttackResult:
    """Add Gaussian noise to the weights and ask again; the same noise, scaled, is used at every scale.

    Args:
        model: The model to attack; its weights are put back bit for bit.
        task: Names the target and holds the questions.
        config: Settings; default `NoiseConfig()`.
        progress: Called with what is done, steps done and steps in all.

    Returns:
        ``recovery/noise`` and the curve ``attack.noise``.

    Raises:
        DataError: If there is no question about the target.
    """
    return NOISE(model, task, config, progress=progress)


def prune_attack(
    model: HookedModel, task: Task, config: PruneConfig | None = None, *, progress: Progress | None = None
) -> AttackResult:
    """Set the smallest weights of each matrix to 0 and ask again.

    Args:
        model: The model to attack; its weights are put back bit for bit.
        task: Names the target and holds the questions.
        config: Settings; default `PruneConfig()`.
        progress: Called with what is done, steps done and steps in all.

    Returns:
        ``recovery/prune`` and the curve ``attack.prune``.

    Raises:
        DataError: If there is no question about the target.
    """
    return PRUNE(model, task, config, progress=progress)
