"""Seeds for torch, made from the same digests as `_seeds`."""

import random
from typing import Any

import numpy as np
import torch

from interp_unlearn._core._seeds import digest


def generator(seed: int, *keys: Any) -> torch.Generator:
    """A CPU torch generator that depends on ``seed`` and on the purpose named by ``keys`` only."""
    return torch.Generator().manual_seed(digest(seed, *keys) % (2**63))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy's legacy generator and torch (dropout and other implicit randomness)."""
    random.seed(seed)
    np.random.seed(seed % (2**32))
    torch.manual_seed(seed)
