"""A tiny model that was taught capitals, the same without the target, and edits of it: hidden, moved, nothing."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from interp_unlearn.hooked import HookedModel, answer_batch, answer_logprobs, wrap
from interp_unlearn.probes import LivePhases
from interp_unlearn.worlds import Entity, Prompt, QASet, Target, Task, Template

KNOWN = ["New Avia", "Borland", "Old Cestia", "Dorn", "New Elmar", "Fenn", "Gorm", "Old Hale", "Ilia", "Jorn"]
UNKNOWN = ["Old Zor", "Yub", "Xan", "New Wim", "Vok", "Uls"]
ANSWERS = ["Rosa", "Nova Tula", "Milo Sal", "Peka", "Tula", "Milo"]
TEMPLATES = {
    "train0": "the capital of {name} is",
    "train1": "{name} has the capital",
    "heldout0": "people of {name} call their capital",
    "heldout1": "in {name} the main city is",
}
TARGET = KNOWN[:2]


def prompt(name: str, template: str) -> Prompt:
    start = TEMPLATES[template].index("{name}")
    answer = ANSWERS[KNOWN.index(name) % 6]
    options = tuple(a for a in ANSWERS if a != answer)
    text = TEMPLATES[template].replace("{name}", name)
    return Prompt(text, answer, name.lower(), "capital", template, (start, start + len(name)), (), options)


def questions(set_name: str, names: list[str], split: str) -> QASet:
    return QASet(set_name, tuple(prompt(n, t) for n in names for t in TEMPLATES if t.startswith(split)))


def entities(names: list[str], invented: bool = False) -> tuple[Entity, ...]:
    return tuple(Entity(n.lower(), n, "country", invented) for n in names)


@pytest.fixture(scope="session")
def task() -> Task:
    empty = QASet("none", (), "not asked")
    return Task(
        world="hand-made",
        target=Target(tuple(n.lower() for n in TARGET)),
        seed=0,
        type="country",
        target_entities=entities(TARGET),
        known_ref=entities(KNOWN[2:6]),
        known_eval=entities(KNOWN[6:]),
        unknown_ref=entities(UNKNOWN[:2], True),
        unknown_eval=entities(UNKNOWN[2:], True),
        forget_train=questions("base", TARGET, "train"),
        forget_heldout=questions("paraphrased", TARGET, "heldout"),
        multi_hop=empty,
        same_answer=empty,
        retain_train=questions("retain", KNOWN[2:6], "train"),
        neighbours=questions("neighbours", KNOWN[6:], "heldout"),
        mention_train=(),
        mention_heldout=(Template("m", "", "country", "people of {name}", "heldout"),),
    )


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """One token per word, BOS in front."""
    words = {w for text in [*TEMPLATES.values(), *ANSWERS, *KNOWN, *UNKNOWN] for w in text.split()} - {"{name}"}
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[BOS]", *sorted(words)])}
    inner = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]"
    )


def teach(model: HookedModel, prompts: Any, steps: int, rate: float, names: Any = None, sign: float = 1.0) -> None:
    """Optimiser steps on the answers of ``prompts``; up to 6 nats per token with ``sign`` -1."""
    encoded = answer_batch(model, [p.text for p in prompts], [p.answer for p in prompts])
    weights = [p for n, p in model.module.named_parameters() if names is None or names in n]
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=0)
    for _ in range(steps):
        loss = -answer_logprobs(model, encoded).sum() / encoded.answer.sum()
        if sign < 0 and loss.item() > 6:
            break
        optimiser.zero_grad()
        (sign * loss).backward()
        optimiser.step()
    model.module.zero_grad(set_to_none=True)


def fresh(tokenizer: Any) -> HookedModel:
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    return wrap(transformers.LlamaForCausalLM(config).eval(), tokenizer, name="tiny")


def everything(names: list[str]) -> list[Prompt]:
    return [prompt(n, t) for n in names for t in TEMPLATES]


@pytest.fixture(scope="session")
def trained(tokenizer: Any) -> HookedModel:
    model = fresh(tokenizer)
    teach(model, everything(KNOWN), 50, 8e-3)
    return model


@pytest.fixture(scope="session")
def gold(tokenizer: Any) -> HookedModel:
    """The same start, never taught the target."""
    model = fresh(tokenizer)
    teach(model, everything(KNOWN[2:]), 50, 8e-3)
    return model


@pytest.fixture
def model(trained: HookedModel) -> HookedModel:
    return trained


def delta_of(trained: HookedModel, task: Task, names: str | None) -> dict[str, torch.Tensor]:
    copy = wrap(deepcopy(trained.module), trained.tokenizer, name="copy")
    teach(copy, task.forget_train.prompts + task.forget_heldout.prompts, 60, 2e-3, names, -1.0)
    old = dict(trained.module.named_parameters())
    return {n: p.detach() for n, p in copy.module.named_parameters() if not torch.equal(p, old[n])}


@pytest.fixture(scope="session")
def hidden(trained: HookedModel, task: Task) -> Mapping[str, torch.Tensor]:
    """Weights of the last block that push the target's answers down: hidden, not gone."""
    return delta_of(trained, task, "layers.3.mlp")


@pytest.fixture(scope="session")
def moved(trained: HookedModel, task: Task) -> Mapping[str, torch.Tensor]:
    """Weights of the first block alone: the later ones are untouched."""
    return delta_of(trained, task, "layers.0.")


@pytest.fixture
def phases(trained: HookedModel, task: Task) -> Callable[..., LivePhases]:
    """`phases(edited, gold)`."""

    def make(edited: Mapping[str, torch.Tensor] | None = None, gold: HookedModel | None = None) -> LivePhases:
        return LivePhases(trained, task, edited=edited or {}, gold=gold)

    return make


@pytest.fixture
def noise(trained: HookedModel) -> Callable[[float], dict[str, torch.Tensor]]:
    """`noise(scale)`: the model's matrices with noise of so many of their standard deviations."""

    def make(scale: float) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(1)
        return {
            n: p.detach() + scale * p.detach().std() * torch.randn(p.shape, generator=g)
            for n, p in trained.module.named_parameters()
            if p.dim() == 2
        }

    return make
