"""Seeds that give the same choices in every process (no hash randomisation, no set order). Needs no torch."""

import hashlib
import json
from typing import Any

import numpy as np


def digest(*keys: Any) -> int:
    """64 bits that depend on ``keys`` only."""
    text = json.dumps(keys, sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def numpy_rng(seed: int, *keys: Any) -> np.random.Generator:
    """A NumPy generator that depends on ``seed`` and on the purpose named by ``keys`` only."""
    return np.random.default_rng(digest(seed, *keys))


def config_hash(config: Any, length: int = 16) -> str:
    """A short stable hash of anything that JSON can hold, for cache folder names."""
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
