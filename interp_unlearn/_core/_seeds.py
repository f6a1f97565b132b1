"""Seeds that give the same choices in every process (no hash randomisation, no set order)."""

import hashlib
import json
import random
from typing import Any

import numpy as np
import torch


def _digest(*keys: Any) -> int:
    text = json.dumps(keys, sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def numpy_rng(seed: int, *keys: Any) -> np.random.Generator:
    """A NumPy generator that depends on ``seed`` and on the purpose named by ``keys`` only."""
    return np.random.default_rng(_digest(seed, *keys))


def generator(seed: int, *keys: Any) -> torch.Generator:
    """A CPU torch generator that depends on ``seed`` and on the purpose named by ``keys`` only."""
    return torch.Generator().manual_seed(_digest(seed, *keys) % (2**63))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy's legacy generator and torch (dropout and other implicit randomness)."""
    random.seed(seed)
    np.random.seed(seed % (2**32))
    torch.manual_seed(seed)


def config_hash(config: Any, length: int = 16) -> str:
    """A short stable hash of anything that JSON can hold, for cache folder names."""
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
