"""Tiny random models of every listed family, and tokenizers made on the spot."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from interp_unlearn.hooked import Batch, HookedModel, batch_from_ids, wrap

VOCAB = 400
N_CTX = 64
COMMON = {"vocab_size": VOCAB, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": N_CTX,
    "initializer_range": 0.2,
}
GROUPED = {"num_key_value_heads": 2, "intermediate_size": 48}
GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": N_CTX, "initializer_range": 0.2}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", GPT2),
    "gpt_neox": ("GPTNeoXConfig", {**SHAPE, "intermediate_size": 48}),
    "gpt_neox_sequential": ("GPTNeoXConfig", {**SHAPE, "intermediate_size": 48, "use_parallel_residual": False}),
    "llama": ("LlamaConfig", {**SHAPE, **GROUPED}),
    "qwen2": ("Qwen2Config", {**SHAPE, **GROUPED}),
    "qwen3": ("Qwen3Config", {**SHAPE, **GROUPED, "head_dim": 16}),
    "mistral": ("MistralConfig", {**SHAPE, **GROUPED, "sliding_window": 8}),
    "gemma3": ("Gemma3TextConfig", {**SHAPE, **GROUPED, "head_dim": 16, "sliding_window": 8}),
    "opt": (
        "OPTConfig",
        {
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "max_position_embeddings": N_CTX,
            "init_std": 0.2,
        },
    ),
}
PARALLEL = {"gpt_neox"}


def make_module(family: str, seed: int = 0, **changes: Any) -> Any:
    """A tiny random causal language model in evaluation mode."""
    config_class, settings = FAMILIES[family]
    config = getattr(transformers, config_class)(**{**COMMON, **settings, **changes})
    torch.manual_seed(seed)
    module = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # norms and biases start at 1 and 0, which hides mistakes
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * (0.1 if "norm" in name or "ln" in name else 0.02))
    return module


@cache
def shared_model(family: str) -> HookedModel:
    """One model per family for tests that only read."""
    return wrap(make_module(family), name=family)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models lose more to waiting for threads than they win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(family: str) -> HookedModel:
    return shared_model(family)


@pytest.fixture
def llama() -> HookedModel:
    return shared_model("llama")


@pytest.fixture
def fresh() -> Callable[..., HookedModel]:
    """A model of one's own, to change or break."""
    return lambda family="llama", **changes: wrap(make_module(family, **changes), name=family)


def random_ids(lengths: list[int], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, VOCAB, (n,), generator=generator).tolist() for n in lengths]


def random_batch(lengths: list[int], side: str = "right", seed: int = 0) -> Batch:
    return batch_from_ids(random_ids(lengths, seed), pad_id=3, padding_side=side)  # type: ignore[arg-type]


CORPUS = [
    "The capital of France is Paris and the capital of Japan is Tokyo.",
    "São Tomé and Príncipe lies near Gabon; 日本 is Japan, Ελλάδα is Greece.",
    "Japan borders no country. The currency of Japan is the yen.",
    "Marie Curie was born in Warsaw. Who was Marie Curie? She was a physicist.",
] * 3


@cache
def make_tokenizer(*, bos: bool = False, trim: bool = True) -> Any:
    """A byte-level BPE tokenizer trained on a few sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=trim)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<bos>", "<eos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 10, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if bos:
        tokenizer.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=trim),
                processors.TemplateProcessing(
                    single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
                ),
            ]
        )
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


@pytest.fixture
def tokenizer() -> Any:
    return make_tokenizer()


def hook_count(module: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def untyped(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function as users call it: without the run-time check of its annotations that the suite installs."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function
