"""Tiny random models of every listed family, and tokenizers made on the spot."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from interp_unlearn.hooked import Batch, HookedModel, batch_from_ids, wrap

from ..tiny_models import CLASSES, tiny_module

VOCAB = 400
FAMILIES = tuple(CLASSES)
PARALLEL = {"gpt_neox"}


def make_module(family: str, seed: int = 0, **changes: Any) -> Any:
    """A tiny random causal language model in evaluation mode."""
    return tiny_module(family, vocab=VOCAB, seed=seed, **changes)


@cache
def shared_model(family: str) -> HookedModel:
    """One model per family for tests that only read."""
    return wrap(make_module(family), name=family)


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(family: str) -> HookedModel:
    return shared_model(family)


@pytest.fixture
def llama() -> HookedModel:
    return shared_model("llama")


@pytest.fixture(scope="module")
def tiny() -> HookedModel:
    """A Llama with a tokenizer, for the tests of one file."""
    return wrap(make_module("llama"), make_tokenizer(), name="tiny")


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
    """Hooks on a module and below it, but for those that transformers leaves there when asked for hidden states."""
    hooks = (h for m in module.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values()))
    return sum(not getattr(h, "func", h).__module__.startswith("transformers.") for h in hooks)


def untyped(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function as users call it: without the run-time check of its annotations that the suite installs."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function
