"""A 3-layer random Llama with a word-level tokenizer, a hand-made task, and small dictionaries."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from interp_unlearn._core import generator
from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.worlds._types import Entity, Prompt, QASet, Target, Task, Template

SITE = "blocks.1.hook_resid_post"
NAMES = ["Ama", "Bel", "Cor", "Dun", "Eko", "Fim", "Gor", "Hal", "Ilo", "Jun", "Kem", "Lar", "New Mos", "Old Nor"]
ANSWERS = ["red", "blue", "green", "gold", "grey", "dark blue"]
WORDS = [
    "the",
    "colour",
    "of",
    "is",
    "I",
    "like",
    "what",
    "has",
    "tell",
    "me",
    "about",
    "and",
    "we",
    "went",
    "home",
    "early",
    "now",
]
TRAIN = ["the colour of {name} is", "what colour has {name} now"]
HELDOUT = ["tell me the colour {name} has"]
MENTIONS = ["I like {name}", "we went home and {name} is the"]


def make_model(seed: int = 0) -> HookedModel:
    vocabulary = ["<pad>", "<unk>"]
    for text in [*NAMES, *ANSWERS, *WORDS]:
        vocabulary += [w for w in text.split() if w not in vocabulary]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = LlamaForCausalLM(config).eval()
    return wrap(module, fast, name="tiny")


def _questions(name: str, entities: list[Entity], texts: list[str], split: str) -> QASet:
    prompts = []
    for e, entity in enumerate(entities):
        for i, text in enumerate(texts):
            filled = text.replace("{name}", entity.name)
            start = filled.index(entity.name)
            span = (start, start + len(entity.name))
            answer = ANSWERS[e % len(ANSWERS)]
            options = tuple(a for a in ANSWERS if a != answer)
            prompts.append(Prompt(filled, answer, entity.id, "colour", f"{split}{i}", span, options=options))
    return QASet(name, tuple(prompts))


def make_task(n_targets: int = 1) -> Task:
    entities = [Entity(f"e{i}", name, "thing") for i, name in enumerate(NAMES)]
    unknown = [Entity(f"u{e.id}", e.name, "thing", invented=True) for e in entities[8:]]
    targets, known = entities[:n_targets], entities[n_targets:8]
    return Task(
        world="hand-made",
        target=Target(tuple(e.id for e in targets)),
        seed=0,
        type="thing",
        target_entities=tuple(targets),
        known_ref=tuple(known[:4]),
        known_eval=tuple(known[4:]),
        unknown_ref=tuple(unknown[:4]),
        unknown_eval=tuple(unknown[4:]),
        forget_train=_questions("base", targets, TRAIN, "q"),
        forget_heldout=_questions("paraphrased", targets, HELDOUT, "h"),
        multi_hop=QASet("multi_hop", (), "none"),
        same_answer=QASet("same_answer", (), "none"),
        retain_train=_questions("retain", known[:4], TRAIN, "q"),
        neighbours=_questions("neighbours", known[4:], HELDOUT, "h"),
        mention_train=tuple(Template(f"m{i}", "", "thing", t) for i, t in enumerate(MENTIONS)),
        mention_heldout=(Template("mh", "", "thing", "tell me about {name}", "heldout"),),
        text_train=("we went home early and I like the home", "what is the home of the early", "now"),
        text_eval=("I like the early home",),
    )


class TinySAE(nn.Module):
    """A random TopK dictionary with the interface of `latents.SAE`."""

    def __init__(self, d: int = 24, m: int = 60, k: int | None = 12, site: str = SITE, seed: int = 0) -> None:
        super().__init__()
        g = generator(seed, "tiny sae")
        decoder = torch.randn(m, d, generator=g)
        decoder /= decoder.norm(dim=1, keepdim=True)
        self.W_dec, self.W_enc = nn.Parameter(decoder), nn.Parameter(decoder.T.clone())
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(m)), nn.Parameter(torch.zeros(d))
        self.requires_grad_(False)
        self.k, self.threshold, self.site, self.d_in, self.d_sae = k, None, site, d, m

    def pre_activations(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.b_dec) @ self.W_enc + self.b_enc

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        a = self.pre_activations(x)
        if self.k is None:
            return a.relu()
        top = a.topk(self.k, -1)
        return torch.zeros_like(a).scatter(-1, top.indices, top.values.relu())

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z @ self.W_dec + self.b_dec


@pytest.fixture
def model() -> HookedModel:
    return make_model()


def without_options(task: Task) -> Task:
    """The same task, its questions without wrong options."""
    sets = {name: getattr(task, name) for name in ("forget_train", "forget_heldout", "retain_train", "neighbours")}
    bare = {n: replace(s, prompts=tuple(replace(p, options=()) for p in s.prompts)) for n, s in sets.items()}
    return replace(task, **bare)


@pytest.fixture
def task() -> Task:
    return make_task()


@pytest.fixture
def sae() -> TinySAE:
    return TinySAE()


@pytest.fixture
def make() -> SimpleNamespace:
    return SimpleNamespace(model=make_model, task=make_task, sae=TinySAE)
