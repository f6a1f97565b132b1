"""A hand-made task about countries and tiny random models of several families."""

import pytest
import torch

from interp_unlearn.hooked import wrap
from interp_unlearn.worlds import Entity, Prompt, QASet, Target, Task


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models only lose by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CAPITALS = {
    "Avia": "Rosa",
    "Borland": "New Tula",
    "Cestia": "Milo Sal",
    "Dorn": "Peka",
    "Elmar": "Tula",
    "Fenn": "Old Milo",
}
TEMPLATES = {
    "train0": "the capital of {name} is",
    "train1": "{name} has the capital",
    "heldout0": "people of {name} call their capital",
    "heldout1": "in {name} the main city is",
}
WORDS = sorted({w for t in TEMPLATES.values() for w in t.split()} | {w for c in CAPITALS.values() for w in c.split()})


def prompt(name: str, template: str, **changes) -> Prompt:
    text = TEMPLATES[template]
    start = text.index("{name}")
    options = tuple(c for n, c in CAPITALS.items() if n != name)
    fields = {
        "text": text.replace("{name}", name),
        "answer": CAPITALS[name],
        "entity": name.lower(),
        "relation": "capital",
        "template": template,
        "name_span": (start, start + len(name)),
        "options": options,
    }
    return Prompt(**{**fields, **changes})


def questions(set_name: str, names: list[str], split: str) -> QASet:
    return QASet(set_name, tuple(prompt(n, t) for n in names for t in TEMPLATES if t.startswith(split)))


def entities(names, invented=False):
    return tuple(Entity(n.lower(), n, "country", invented) for n in names)


@pytest.fixture(scope="session")
def task() -> Task:
    return Task(
        world="hand-made",
        target=Target(("avia",), ("capital",)),
        seed=0,
        type="country",
        target_entities=entities(["Avia"]),
        known_ref=entities(["Borland", "Cestia"]),
        known_eval=entities(["Dorn", "Elmar", "Fenn"]),
        unknown_ref=entities(["Zor", "Yub"], True),
        unknown_eval=entities(["Xan"], True),
        forget_train=questions("forget_train", ["Avia"], "train"),
        forget_heldout=questions("forget_heldout", ["Avia"], "heldout"),
        multi_hop=QASet("multi_hop", (), "no chain"),
        same_answer=QASet("same_answer", (), "answers are unique"),
        retain_train=questions("retain_train", ["Borland", "Cestia"], "train"),
        neighbours=questions("neighbours", ["Dorn", "Elmar", "Fenn"], "heldout"),
        mention_train=(),
        mention_heldout=(),
    )


def fast(inner, **special):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", **special
    )


@pytest.fixture(scope="session")
def tokenizer():
    """One token per word, BOS in front."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[BOS]", *WORDS, *CAPITALS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 2)])
    return fast(inner)


@pytest.fixture(scope="session")
def merging_tokenizer(task):
    """Byte-pair merges that run over spaces, so that prompt and answer can melt into one token; no BOS."""
    from tokenizers import Tokenizer, models, trainers

    inner = Tokenizer(models.BPE(unk_token="[UNK]"))
    trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=["[PAD]", "[UNK]", "[BOS]"], show_progress=False)
    inner.train_from_iterator([p.full for s in task.qa_sets() for p in s.prompts], trainer)
    return fast(inner)


def build(family: str, vocab: int, **changes):
    """A random language model of 3 layers."""
    import transformers as tf

    sizes = {
        "vocab_size": vocab,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": None,
    }
    if family == "llama":
        config = tf.LlamaConfig(**{**sizes, **changes})
    elif family == "gemma3":
        config = tf.Gemma3TextConfig(
            **{**sizes, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4, **changes}
        )
    elif family == "gpt2":
        config = tf.GPT2Config(
            vocab_size=vocab, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=2, eos_token_id=2, **changes
        )
    else:
        config = tf.OPTConfig(
            **{
                **sizes,
                "ffn_dim": 64,
                "word_embed_proj_dim": 32,
                "do_layer_norm_before": True,
                "dropout": 0.0,
                **changes,
            }
        )
    torch.manual_seed(0)
    return tf.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="session")
def make_model(tokenizer):
    def make(family: str = "llama", tok=None, **changes):
        tok = tok or tokenizer
        return wrap(build(family, len(tok), **changes), tok, name=family)

    return make


@pytest.fixture(scope="session")
def model(make_model):
    return make_model()


@pytest.fixture(scope="session")
def knowing(make_model, task):
    """A model that was taught every fact in every template."""
    from interp_unlearn.hooked import answer_batch, answer_logprobs

    model = make_model()
    asked = [p for s in task.qa_sets() for p in s.prompts]
    encoded = answer_batch(model, [p.text for p in asked], [p.answer for p in asked])
    optimiser = torch.optim.AdamW(model.module.parameters(), lr=3e-3)
    for _ in range(60):
        loss = -answer_logprobs(model, encoded).sum() / encoded.answer.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.module.requires_grad_(False)
    return model
