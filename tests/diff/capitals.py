"""A tiny random model that reads sentences about capitals, and questions about them."""

from collections.abc import Sequence

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.worlds import Prompt


def capital_model(words: Sequence[str], *, layers: int, neurons: int, spread: float = 0.02) -> HookedModel:
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=neurons,
        initializer_range=spread,
    )
    torch.manual_seed(0)
    return wrap(transformers.LlamaForCausalLM(config).eval(), tokenizer, name="tiny")


def ask(name: str, answer: str, ways: Sequence[str]) -> tuple[Prompt, ...]:
    spans = [(w.index("{"), w.index("{") + len(name)) for w in ways]
    return tuple(
        Prompt(w.format(name), answer, name, "capital", str(i), s)
        for i, (w, s) in enumerate(zip(ways, spans, strict=True))
    )
