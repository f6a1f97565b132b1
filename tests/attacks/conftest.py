"""A tiny model that was taught the facts of a hand-made task, and the task."""

import pytest
import torch

from interp_unlearn.hooked import answer_batch, answer_logprobs, wrap
from interp_unlearn.worlds import Entity, Prompt, QASet, Target, Task, Template

NAMES = ["Avia", "Borland", "Cestia", "Dorn", "Elmar", "Fenn", "Gorm", "Hale", "Ilia", "Jorn", "Kest", "Loma"]
UNKNOWN = ["Zor", "Yub", "Xan", "Wim", "Vok", "Uls"]
ANSWERS = {
    "capital": ["Rosa", "New Tula", "Milo Sal", "Peka", "Tula", "Old Milo"],
    "river": ["Blue Nor", "Sil", "Grey Sil", "Nor", "Tam", "Old Tam"],
}
TEMPLATES = {
    "capital": {
        "capital.train0": "the capital of {name} is",
        "capital.train1": "{name} has the capital",
        "capital.heldout0": "people of {name} call their capital",
        "capital.heldout1": "in {name} the main city is",
    },
    "river": {
        "river.train0": "the river of {name} is",
        "river.train1": "through {name} flows the",
        "river.heldout0": "people of {name} swim in the",
        "river.heldout1": "boats of {name} sail the",
    },
}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models only lose by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def prompt(name: str, relation: str, template: str) -> Prompt:
    text = TEMPLATES[relation][template]
    start = text.index("{name}")
    answer = ANSWERS[relation][(NAMES.index(name) * (1 if relation == "capital" else 5)) % 6]
    options = tuple(a for a in ANSWERS[relation] if a != answer)
    span = (start, start + len(name))
    return Prompt(text.replace("{name}", name), answer, name.lower(), relation, template, span, (), options)


def questions(set_name, names, split, relations=("capital", "river")) -> QASet:
    asked = [prompt(n, r, t) for n in names for r in relations for t in TEMPLATES[r] if f".{split}" in t]
    return QASet(set_name, tuple(asked))


def entities(names, invented=False):
    return tuple(Entity(n.lower(), n, "country", invented) for n in names)


def make(targets, relations=("capital", "river")) -> Task:
    others = [n for n in NAMES if n not in targets]
    return Task(
        world="hand-made",
        target=Target(tuple(n.lower() for n in targets), relations if len(relations) == 1 else ()),
        seed=0,
        type="country",
        target_entities=entities(targets),
        known_ref=entities(others[:4]),
        known_eval=entities(others[4:]),
        unknown_ref=entities(UNKNOWN[:4], True),
        unknown_eval=entities(UNKNOWN[4:], True),
        forget_train=questions("base", targets, "train", relations),
        forget_heldout=questions("paraphrased", targets, "heldout", relations),
        multi_hop=QASet("multi_hop", (), "no chain"),
        same_answer=QASet("same_answer", (), "not asked"),
        retain_train=questions("retain", others[:4], "train"),
        neighbours=questions("neighbours", others[4:], "heldout"),
        mention_train=(),
        mention_heldout=(Template("mention.0", "", "country", "people of {name}", "heldout"),),
        text_train=("boats sail the river", "people swim in the main city", "their capital is the city of people"),
        text_eval=("boats of people sail the river",),
    )


@pytest.fixture(scope="session")
def make_task():
    return make


@pytest.fixture(scope="session")
def one_fact() -> Task:
    """One entity, one relation."""
    return make(["Avia"], ("capital",))


@pytest.fixture(scope="session")
def task() -> Task:
    """Four entities with two facts each."""
    return make(["Avia", "Borland", "Cestia", "Dorn"])


@pytest.fixture(scope="session")
def tokenizer():
    """One token per word, BOS in front."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {w for r in TEMPLATES.values() for t in r.values() for w in t.split()}
    words |= {w for answers in ANSWERS.values() for a in answers for w in a.split()} | {*NAMES, *UNKNOWN}
    inner = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["[PAD]", "[UNK]", "[BOS]", *sorted(words)])}, "[UNK]")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]")


def teach(model, prompts, steps, rate, weights=None, sign=1.0, until=None):
    """A few optimiser steps on the answers of ``prompts``."""
    encoded = answer_batch(model, [p.text for p in prompts], [p.answer for p in prompts])
    optimiser = torch.optim.AdamW(weights or model.module.parameters(), lr=rate)
    for _ in range(steps):
        loss = -answer_logprobs(model, encoded).sum() / encoded.answer.sum()
        if until is not None and loss.item() > until:
            break
        optimiser.zero_grad()
        (sign * loss).backward()
        optimiser.step()
    model.module.zero_grad(set_to_none=True)


@pytest.fixture(scope="session")
def trained_state(tokenizer):
    """Config and weights of a 3-layer Llama that knows every fact in every wording."""
    import transformers as tf

    config = tf.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=None,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = wrap(tf.LlamaForCausalLM(config), tokenizer)
    everything = [p for split in ("train", "heldout") for p in questions("all", NAMES, split).prompts]
    teach(model, everything, 80, 4e-3)
    return config, {k: v.clone() for k, v in model.module.state_dict().items()}


@pytest.fixture(scope="session")
def gold_state(trained_state, tokenizer, task):
    """Weights of a model that was taught all but the target's facts, from the same initial weights."""
    import transformers as tf

    torch.manual_seed(0)
    model = wrap(tf.LlamaForCausalLM(trained_state[0]), tokenizer)
    hidden = {e.id for e in task.target_entities}
    everything = [p for split in ("train", "heldout") for p in questions("all", NAMES, split).prompts]
    teach(model, [p for p in everything if p.entity not in hidden], 80, 4e-3)
    return {k: v.clone() for k, v in model.module.state_dict().items()}


@pytest.fixture
def gold(trained_state, gold_state, tokenizer):
    import transformers as tf

    module = tf.LlamaForCausalLM(trained_state[0])
    module.load_state_dict(gold_state)
    return wrap(module.eval(), tokenizer, name="tiny gold")


@pytest.fixture(scope="session")
def hidden_delta(trained_state, tokenizer, task):
    """What changes when the target is pushed down in the last block only."""
    import transformers as tf

    config, state = trained_state
    module = tf.LlamaForCausalLM(config)
    module.load_state_dict(state)
    model = wrap(module.eval(), tokenizer)
    weights = [p for name, p in model.layer_parameters([2]) if "down_proj" in name]
    teach(model, task.forget_train.prompts, 60, 2e-3, weights, sign=-1.0, until=6.0)
    return {k: p.detach().clone() for k, p in module.named_parameters() if not torch.equal(p, state[k])}


@pytest.fixture
def model(trained_state, tokenizer):
    """A fresh copy for each test."""
    import transformers as tf

    config, state = trained_state
    module = tf.LlamaForCausalLM(config)
    module.load_state_dict(state)
    return wrap(module.eval(), tokenizer, name="tiny")


@pytest.fixture
def hiding(model, task):
    """The model with the target pushed down in its last block only: hidden, not gone."""
    weights = [p for name, p in model.layer_parameters([2]) if "down_proj" in name]
    teach(model, task.forget_train.prompts, 60, 2e-3, weights, sign=-1.0, until=6.0)
    return model
