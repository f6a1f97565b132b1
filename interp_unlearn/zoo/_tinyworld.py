"""The model of a TinyWorld, trained from scratch here, and its gold model, retrained without a target."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from interp_unlearn._core import cache_dir, config_hash, locked, numpy_rng, seed_everything
from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.worlds import Target, TinyWorldConfig, tinyworld
from interp_unlearn.worlds._tinyworld import hidden_facts, tinyworld_sentences, tinyworld_vocabulary
from interp_unlearn.zoo._load import load_folder, load_tokenizer, quiet_transformers
from interp_unlearn.zoo._manifest import is_valid, new_folder, write_manifest

TINYWORLD = "tinyworld"
MIX = {"facts": 0.6, "towns": 0.08, "two_hop": 0.08, "strangers": 0.12, "mentions": 0.08, "text": 0.04}
"""Share of each kind of sentence in a training batch."""
THREADS = 2
"""Threads used for training, at most; one and two gave the same weights bit for bit (120 steps, one machine)."""

Progress = Callable[[str, int, int], object]


def tinyworld_tokenizer() -> Any:
    """A fast tokenizer with one token per word and one per syllable of a name; BOS in front."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(tinyworld_vocabulary())}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=60))
    inner.normalizer = normalizers.Strip()
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bos = [("[BOS]", vocabulary["[BOS]"])]
    inner.post_processor = processors.TemplateProcessing(single="[BOS] $A", special_tokens=bos)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", padding_side="right"
    )


def tinyworld_folder(
    config: TinyWorldConfig | None = None,
    exclude: Target | None = None,
    progress: Progress | None = None,
    *,
    force: bool = False,
) -> Path:
    """Folder of the model of `tinyworld_model`, trained now with ``force`` or if it is not whole in the cache."""
    config = config or TinyWorldConfig()
    hidden = sorted(hidden_facts(tinyworld(config), exclude))
    key = {
        "config": config.to_dict(),
        "hidden": hidden,
        "text": config_hash(tinyworld_sentences(config)),
        "vocabulary": config_hash(tinyworld_vocabulary()),
        "mix": MIX,
        "format": 3,
    }
    folder = cache_dir() / TINYWORLD / config_hash(key)
    if force or not is_valid(folder):
        with locked(folder.parent / ".locks" / folder.name):  # of two processes that need it one trains
            if force or not is_valid(folder):
                _train_into(folder, config, hidden, progress)
    return folder


def is_trained() -> bool:
    """Whether a TinyWorld model is whole in the cache."""
    return any(is_valid(folder) for folder in sorted((cache_dir() / TINYWORLD).glob("*")))


def tinyworld_model(
    config: TinyWorldConfig | None = None, exclude: Target | None = None, progress: Progress | None = None
) -> HookedModel:
    """The model of a TinyWorld; with ``exclude``, its gold model, trained in the same way without the target's facts.

    Trained once (one to two minutes on two quiet cores) and cached by a hash of the config, the text and what was
    left out.

    Args:
        config: Of world and model.
        exclude: What the gold model must never see; its entities stay mentioned, as unknown ones are.
        progress: Called with (what, done, total) while training; default a bar on standard error.
    """
    config = config or TinyWorldConfig()
    module, tokenizer = load_folder(tinyworld_folder(config, exclude, progress), torch.float32)
    source = tinyworld_source(config, exclude)
    return wrap(module, tokenizer, name=TINYWORLD + (" (gold)" if source["exclude"] else ""), source=source)


def tinyworld_source(config: TinyWorldConfig, exclude: Target | None = None) -> dict[str, Any]:
    """Provenance of the model of `tinyworld_model`."""
    hidden = sorted(hidden_facts(tinyworld(config), exclude))
    return {"kind": "zoo", "model": TINYWORLD, "config": config.to_dict(), "exclude": [list(pair) for pair in hidden]}


def _architecture(config: TinyWorldConfig, d_vocab: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=d_vocab,
        hidden_size=config.d_model,
        intermediate_size=4 * config.d_model,
        num_hidden_layers=config.n_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=None,
    )


def _train_into(
    folder: Path, config: TinyWorldConfig, hidden: Collection[tuple[str, str]], progress: Progress | None
) -> None:
    from transformers import LlamaForCausalLM

    tokenizer = load_tokenizer(tinyworld_tokenizer())
    what = "training the TinyWorld model" if not hidden else "training the gold model"
    random, threads = torch.random.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(min(THREADS, threads))
    try:
        seed_everything(config.seed)
        module = LlamaForCausalLM(_architecture(config, len(tokenizer)))
        sentences = tinyworld_sentences(config, frozenset(hidden))
        pools = {kind: _encode(tokenizer, texts) for kind, texts in sentences.items() if texts}
        with tqdm(total=config.steps, desc=what, disable=progress is not None, leave=False) as bar:
            report = progress or (lambda _what, done, _total: bar.update(done - bar.n))
            _fit(module, pools, config, report, what)
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(random)
    with new_folder(folder) as temporary, quiet_transformers():
        module.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        facts = {"name": TINYWORLD, "config": config.to_dict(), "hidden": [list(pair) for pair in hidden]}
        write_manifest(temporary, facts)


def _encode(tokenizer: Any, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids (n, width) and attention (n, width) of all sentences of a kind."""
    ids = tokenizer(texts)["input_ids"]
    width = max(map(len, ids))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    attended = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    return tokens, attended


def _fit(
    module: Any, pools: dict[str, tuple[Tensor, Tensor]], config: TinyWorldConfig, progress: Progress, what: str
) -> None:
    """Train on batches that mix the pools in fixed shares, with a one-cycle learning rate."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps, pct_start=0.1)
    total = sum(MIX[kind] for kind in pools)
    counts = {kind: max(1, round(config.batch_size * MIX[kind] / total)) for kind in sorted(pools)}
    orders = {kind: _Order(len(pools[kind][0]), config.seed, kind) for kind in counts}
    width = max(tokens.shape[1] for tokens, _ in pools.values())
    module.train()
    for step in range(config.steps):
        rows = [(pools[kind], orders[kind].next(count)) for kind, count in counts.items()]
        tokens = torch.cat([_pad(t[index], width) for (t, _), index in rows])
        attended = torch.cat([_pad(a[index], width) for (_, a), index in rows])
        logits = module(input_ids=tokens, attention_mask=attended, use_cache=False).logits[:, :-1]
        wanted = attended[:, 1:].bool()
        loss = torch.nn.functional.cross_entropy(logits[wanted], tokens[:, 1:][wanted])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(what, step + 1, config.steps)
    module.eval()


def _pad(rows: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]))


class _Order:
    """Walks through shuffled indices again and again, reshuffling after each pass."""

    def __init__(self, size: int, seed: int, kind: str) -> None:
        self._rng = numpy_rng(seed, "tinyworld order", kind)
        self._size = size
        self._left: list[int] = []

    def next(self, count: int) -> Tensor:
        while len(self._left) < count:
            self._left += self._rng.permutation(self._size).tolist()
        taken, self._left = self._left[:count], self._left[count:]
        return torch.tensor(taken)
