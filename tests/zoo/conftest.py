from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from interp_unlearn.zoo import tinyworld_tokenizer


def make_llama(seed: int = 0, layers: int = 2, vocab: int | None = None) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab or len(tinyworld_tokenizer()),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tiny_llama() -> Callable[..., LlamaForCausalLM]:
    """`tiny_llama(seed, layers, vocab)` makes a random Llama."""
    return make_llama


@pytest.fixture
def llama() -> LlamaForCausalLM:
    return make_llama()


@pytest.fixture
def folder(tmp_path: Path, llama: LlamaForCausalLM) -> Path:
    """A model folder as transformers writes it."""
    path = tmp_path / "model"
    llama.save_pretrained(path)
    tinyworld_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    path = tmp_path / "cache"
    monkeypatch.setenv("INTERP_UNLEARN_CACHE", str(path))
    return path
