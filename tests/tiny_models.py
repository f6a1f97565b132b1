"""Tiny random language models of several families, and word-level tokenizers, for the tests of any room."""

from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

GROUPED = {"llama", "qwen2", "qwen3", "mistral", "gemma3"}
CLASSES = {
    "gpt2": "GPT2Config",
    "gpt_neox": "GPTNeoXConfig",
    "gpt_neox_sequential": "GPTNeoXConfig",
    "llama": "LlamaConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "mistral": "MistralConfig",
    "gemma3": "Gemma3TextConfig",
    "opt": "OPTConfig",
}
WINDOWED = {"mistral", "gemma3"}


def settings(family: str, width: int, heads: int, layers: int, context: int, spread: float) -> dict[str, Any]:
    """What a config of the family needs for a model of this size."""
    neurons, window, head = width * 3 // 2, width // 4, width // 2
    if family == "gpt2":
        return {
            "n_embd": width,
            "n_layer": layers,
            "n_head": heads,
            "n_positions": context,
            "initializer_range": spread,
        }
    same = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": context,
    }
    if family == "opt":
        return {**same, "word_embed_proj_dim": width, "ffn_dim": neurons, "init_std": spread}
    out = {**same, "initializer_range": spread, "intermediate_size": neurons}
    if family in GROUPED:
        out["num_key_value_heads"] = heads // 2
    if family in ("qwen3", "gemma3"):
        out["head_dim"] = head
    if family in WINDOWED:
        out["sliding_window"] = window
    if family == "gpt_neox_sequential":
        out["use_parallel_residual"] = False
    return out


def tiny_module(
    family: str,
    *,
    vocab: int,
    width: int = 32,
    heads: int = 4,
    layers: int = 3,
    context: int = 64,
    spread: float = 0.2,
    biases: float = 0.02,
    seed: int = 0,
    **changes: Any,
) -> Any:
    """A causal language model in evaluation mode; the same seed gives the same weights.

    Args:
        family: A key of `CLASSES`.
        vocab: Tokens.
        width: Of the residual stream; it has half as many neurons more.
        heads: Query heads.
        layers: Blocks.
        context: Longest prompt.
        spread: Standard deviation of the weights.
        biases: Standard deviation that is added to biases; to norms 0.1. They start at 0 and 1, which hides mistakes.
        seed: Of the weights; the global generator is left as it was.
        changes: Fields of the config.
    """
    ids = {"vocab_size": vocab, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    made = settings(family, width, heads, layers, context, spread)
    config = getattr(transformers, CLASSES[family])(**{**ids, **made, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if parameter.dim() == 1 and biases:
                    scale = 0.1 if "norm" in name or "ln" in name else biases
                    parameter.add_(torch.randn_like(parameter) * scale)
    return module


def word_tokenizer(words: str, *, bos: bool = False) -> Any:
    """One token per word of a text; ``<pad>`` is 0, then ``<bos>`` if wanted, ``<unk>``, the words."""
    special = {"pad_token": "<pad>", **({"bos_token": "<bos>"} if bos else {}), "unk_token": "<unk>"}
    vocabulary = [*special.values(), *dict.fromkeys(words.split())]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
