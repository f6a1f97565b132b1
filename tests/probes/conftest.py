"""Synthetic mentions with a known answer, a tiny SAE, and a tiny language model with a task."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import sklearn.linear_model  # noqa: F401 - loaded before threads are limited, which reaches loaded libraries only
import torch
import transformers
from threadpoolctl import threadpool_limits
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from interp_unlearn.hooked import Activations, HookedModel, wrap
from interp_unlearn.worlds import Entity, Prompt, QASet, Target, Task, Template


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on matrices this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(limits=1, user_api="blas"):
        yield
    torch.set_num_threads(threads)


SITES = tuple(f"blocks.{i}.hook_resid_post" for i in range(3))
SITE = SITES[1]


class ReluSAE(torch.nn.Module):
    """Tied random directions; exact when they are the identity."""

    def __init__(self, weight: torch.Tensor, site: str = SITE) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.site, self.d_in, self.d_sae = site, weight.shape[0], weight.shape[1]

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.weight).relu()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z @ self.weight.T


@pytest.fixture
def sae() -> ReluSAE:
    """Positive and negative parts: 2 d latents that reconstruct exactly."""
    eye = torch.eye(16)
    return ReluSAE(torch.cat([eye, -eye], 1))


def make_mentions(
    target_at: float = 0.0,
    *,
    targets: int = 1,
    others: int = 14,
    templates: int = 5,
    d: int = 16,
    seed: int = 0,
    noise: float = 0.4,
    gap: float = 6.0,
    off_axis: float = 0.0,
    sites: tuple[str, ...] = SITES,
) -> Activations:
    """Entities around a known mean (t = 0) and an unknown mean (t = 1); the target's mean lies at ``target_at``."""
    rng = np.random.default_rng(seed)
    sizes = {"target": targets, **dict.fromkeys(("known_ref", "known_eval", "unknown_ref", "unknown_eval"), others)}
    at = {"target": target_at, "known_ref": 0.0, "known_eval": 0.0, "unknown_ref": 1.0, "unknown_eval": 1.0}
    entity = [f"{g} {e}" for g, k in sizes.items() for e in range(k) for _ in range(templates)]
    group = [g for g, k in sizes.items() for _ in range(k * templates)]
    template = [f"t{t}" for k in sizes.values() for _ in range(k) for t in range(templates)]
    values = {}
    for site in sites:
        axis, aside = np.linalg.qr(rng.normal(size=(d, 2)))[0].T
        per_template = rng.normal(size=(templates, d)) * 0.3
        rows = []
        for g, k in sizes.items():
            centre = at[g] * gap * axis + (off_axis * aside if g == "target" else 0)
            who = centre + rng.normal(size=(k, 1, d))
            rows.append((who + per_template + noise * rng.normal(size=(k, templates, d))).reshape(-1, d))
        values[site] = torch.tensor(np.concatenate(rows), dtype=torch.float32)[:, None]
    tokens = torch.zeros(len(group), 1, dtype=torch.long)
    labels = {"entity": entity, "group": group, "template": template}
    return Activations(values, tokens, tokens == 0, tokens, "last token of the name", labels)


@pytest.fixture
def mentions() -> Callable[..., Activations]:
    return make_mentions


def changed(acts: Activations, values: Mapping[str, torch.Tensor]) -> Activations:
    return Activations({**acts.values, **values}, acts.tokens, acts.mask, acts.positions, acts.mask_policy, acts.labels)


NAMES = ["Japan", "São Tomé", "France", "Gabon", "Peru", "Vorlund", "Kessanta", "Trimovia", "Baltonia"]
TEMPLATES = [
    "People speak of {name}",
    "Who went to {name} in the spring?",
    "A long sentence that is about {name}, again",
]


@cache
def make_tokenizer() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=390,
        special_tokens=["<pad>", "<bos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([t.replace("{name}", n) for t in TEMPLATES for n in NAMES] * 3, trainer)
    tokenizer.post_processor = processors.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>")


@cache
def make_model() -> HookedModel:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return wrap(transformers.LlamaForCausalLM(config).eval(), make_tokenizer(), name="tiny")


@pytest.fixture
def model() -> HookedModel:
    return make_model()


@pytest.fixture
def task() -> Task:
    known = [Entity(n, n, "country") for n in NAMES[:5]]
    unknown = [Entity(n, n, "country", invented=True) for n in NAMES[5:]]
    prompts = tuple(
        Prompt(f"The capital of {e.name} is", answer, e.id, "capital", "q1", (15, 15 + len(e.name)), options=options)
        for e, answer, options in ((known[0], "Tokyo", ("Paris", "Lima")), (known[1], "São Tomé", ("Paris", "Tokyo")))
    )
    empty = QASet("multi_hop", (), "none here")
    split = [Template(f"m{i}", "", "country", t, "heldout" if i else "train") for i, t in enumerate(TEMPLATES)]
    return Task(
        world="test",
        target=Target((known[0].id,)),
        seed=0,
        type="country",
        target_entities=(known[0],),
        known_ref=tuple(known[1:3]),
        known_eval=tuple(known[3:]),
        unknown_ref=tuple(unknown[:2]),
        unknown_eval=tuple(unknown[2:]),
        forget_train=QASet("base", prompts),
        forget_heldout=QASet("paraphrased", prompts),
        multi_hop=empty,
        same_answer=empty,
        retain_train=empty,
        neighbours=empty,
        mention_train=tuple(split[:1]),
        mention_heldout=tuple(split[1:]),
    )
