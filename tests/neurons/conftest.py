"""Tiny random models of several families with a tokenizer, in float64, and a slow readable attribution."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from interp_unlearn.hooked import HookedModel, wrap

from ..tiny_models import tiny_module, word_tokenizer

FAMILIES = ("gpt2", "gpt_neox", "llama", "qwen2", "gemma3", "opt")
WORDS = "the capital of Ama Bel Cor is in what city did we see now Red Blue Lake Old Town big far"

PROMPTS = [
    "the capital of Ama is",
    "what city is the capital of Bel",
    "in Cor we did see",
    "now the big city of Ama is",
]
ANSWERS = ["Red Lake", "Blue", "Old Town Lake", "far"]
CORRUPTED = [
    "the capital of Bel is",
    "what city is the capital of Cor",
    "in Ama we did see",
    "now the far city of Bel is",
]


@cache
def make_tokenizer() -> Any:
    return word_tokenizer(WORDS, bos=True)


def make_model(family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float64, **changes: Any) -> HookedModel:
    """A tiny random language model of one's own."""
    size = {"width": 16, "heads": 2, "context": 48, "spread": 0.3, "biases": 0.05}
    tokenizer = make_tokenizer()
    module = tiny_module(family, vocab=len(tokenizer), seed=seed, bos_token_id=1, **size, **changes)
    return wrap(module.to(dtype), tokenizer, name=family)


@cache
def shared(family: str = "llama", dtype: torch.dtype = torch.float64) -> HookedModel:
    """One model per family for tests that only read."""
    return make_model(family, dtype=dtype)


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param
