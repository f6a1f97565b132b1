from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.worlds import World, load_world
from interp_unlearn.zoo import tinyworld_tokenizer


class PieceTokenizer:
    """A stand-in with the tokens of a small vocabulary: greedy longest match, one letter where nothing matches."""

    fragments = tuple(a + b + c for a in "BDGKLMVZ" for b in "aeiou" for c in "kvzb")

    def __init__(self, real: tuple[str, ...]) -> None:
        whole = [n for name in real for n in name.split()][::2]
        two = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]
        self.vocabulary = sorted({f" {w}" for w in (*whole, *self.fragments)} | set(two) | {"land", "ia", "an"})

    def get_vocab(self) -> dict[str, int]:
        return {v.replace(" ", "Ġ"): i for i, v in enumerate(self.vocabulary)}

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        ids, at = [], 0
        while at < len(text):
            hits = [
                v for v in self.vocabulary if text.startswith(v, at) and (v[0] != " " or self._ends(text, at + len(v)))
            ]
            piece = max(hits, key=len, default=text[at])
            ids.append(len(piece))
            at += len(piece)
        return {"input_ids": ids}

    @staticmethod
    def _ends(text: str, at: int) -> bool:
        return at == len(text) or text[at] == " "


@pytest.fixture(scope="session")
def countries() -> World:
    return load_world("countries")


@pytest.fixture(scope="session")
def people() -> World:
    return load_world("people")


@pytest.fixture(scope="session")
def pieces(countries: World, people: World) -> PieceTokenizer:
    return PieceTokenizer(tuple(e.name for e in (*countries.entities, *people.entities)))


@pytest.fixture(scope="session")
def small() -> World:
    """A TinyWorld of few people."""
    return load_world("tinyworld", n_known=40, n_unknown=30)


@pytest.fixture(scope="session")
def random_model() -> HookedModel:
    """An untrained model that can read TinyWorld text and knows nothing."""
    tokenizer = tinyworld_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        initializer_range=0.5,
    )
    return wrap(LlamaForCausalLM(config).eval(), tokenizer, name="random")


@pytest.fixture(scope="session")
def names() -> SimpleNamespace:
    return SimpleNamespace(of=lambda entities: [e.name for e in entities])
