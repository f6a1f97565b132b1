"""Tiny random models of several families with a tokenizer, in float64, and a slow readable attribution."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from interp_unlearn.hooked import HookedModel, wrap

COMMON = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": None}
SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 48,
    "initializer_range": 0.3,
}
GROUPED = {"num_key_value_heads": 1, "intermediate_size": 24}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 48, "initializer_range": 0.3}),
    "gpt_neox": ("GPTNeoXConfig", {**SHAPE, "intermediate_size": 24}),
    "llama": ("LlamaConfig", {**SHAPE, **GROUPED}),
    "qwen2": ("Qwen2Config", {**SHAPE, **GROUPED}),
    "gemma3": ("Gemma3TextConfig", {**SHAPE, **GROUPED, "head_dim": 8, "sliding_window": 4}),
    "opt": (
        "OPTConfig",
        {
            "hidden_size": 16,
            "word_embed_proj_dim": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "ffn_dim": 24,
            "max_position_embeddings": 48,
            "init_std": 0.3,
        },
    ),
}

WORDS = "the capital of Ama Bel Cor is in what city did we see now Red Blue Lake Old Town big far"
VOCABULARY = ["<pad>", "<bos>", "<unk>", *WORDS.split(" ")]

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
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(VOCABULARY)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def make_model(family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float64, **changes: Any) -> HookedModel:
    """A tiny random language model of one's own."""
    config_class, settings = FAMILIES[family]
    config = getattr(transformers, config_class)(**{"vocab_size": len(VOCABULARY), **COMMON, **settings, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if parameter.dim() == 1:  # norms and biases start at 1 and 0, which hides mistakes
                    scale = 0.1 if "norm" in name or "ln" in name else 0.05
                    parameter.add_(torch.randn_like(parameter) * scale)
    return wrap(module.to(dtype), make_tokenizer(), name=family)


@cache
def shared(family: str = "llama", dtype: torch.dtype = torch.float64) -> HookedModel:
    """One model per family for tests that only read."""
    return make_model(family, dtype=dtype)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param
