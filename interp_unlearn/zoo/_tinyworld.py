"""The model of a TinyWorld, trained from scratch here, and its gold model, retrained without a target."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_unlearn._core import cache_dir, config_hash, numpy_rng, seed_everything, write_json
from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.worlds._tinyworld import (
    TinyWorldConfig,
    tinyworld,
    tinyworld_sentences,
    tinyworld_vocabulary,
)
from interp_unlearn.worlds._types import Target
from interp_unlearn.zoo._load import load_folder

TINYWORLD = "tinyworld"
MIX = {"facts": 0.7, "two_hop": 0.05, "mentions": 0.17, "text": 0.08}
"""Share of each kind of sentence in a training batch."""

Progress = Callable[[str, int, int], None]


def tinyworld_tokenizer() -> Any:
    """A fast tokenizer with one token per word and one per syllable of a name; BOS in front."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(tinyworld_vocabulary())}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=60))
    inner.normalizer = normalizers.Strip()
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", vocabulary["[BOS]"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", padding_side="right"
    )


def excluded_facts(config: TinyWorldConfig, exclude: Target | None) -> frozenset[tuple[str, str]]:
    """The (entity id, relation) pairs that a gold model for ``exclude`` must not see."""
    if exclude is None:
        return frozenset()
    facts = tinyworld(config).facts
    return frozenset(
        (f.subject, f.relation)
        for f in facts
        if f.subject in exclude.entities and (not exclude.relations or f.relation in exclude.relations)
    )


def tinyworld_folder(
    config: TinyWorldConfig | None = None, exclude: Target | None = None, progress: Progress | None = None
) -> Path:
    """Folder of the trained model of `tinyworld_model`, trained now if it is not in the cache."""
    config = config or TinyWorldConfig()
    hidden = excluded_facts(config, exclude)
    text = config_hash(tinyworld_sentences(config))
    key = {"config": config.to_dict(), "exclude": sorted(hidden), "text": text, "mix": MIX, "format": 1}
    folder = cache_dir() / TINYWORLD / config_hash(key)
    if not (folder / "manifest.json").exists():
        _train_into(folder, config, hidden, key, progress or (lambda *_: None))
    return folder


def tinyworld_model(
    config: TinyWorldConfig | None = None, exclude: Target | None = None, progress: Progress | None = None
) -> HookedModel:
    """The model of a TinyWorld; with ``exclude``, its gold model, trained in the same way without the target's facts.

    Trained once (about a minute and a half on two quiet cores) and cached by the hash of the config and of what was excluded.

    Args:
        config: Of world and model.
        exclude: What the gold model must never see.
        progress: Called with (what, done, total) while training.
    """
    config = config or TinyWorldConfig()
    module, tokenizer = load_folder(tinyworld_folder(config, exclude, progress), torch.float32, tinyworld_tokenizer())
    hidden = sorted(excluded_facts(config, exclude))
    source = {"kind": "zoo", "model": TINYWORLD, "config": config.to_dict(), "exclude": [list(pair) for pair in hidden]}
    return wrap(module.eval(), tokenizer, name=TINYWORLD + (" (gold)" if hidden else ""), source=source)


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
    folder: Path, config: TinyWorldConfig, hidden: frozenset[tuple[str, str]], key: dict[str, Any], progress: Progress
) -> None:
    from transformers import LlamaForCausalLM

    tokenizer = tinyworld_tokenizer()
    seed_everything(config.seed)
    module = LlamaForCausalLM(_architecture(config, len(tokenizer)))
    pools = {kind: _encode(tokenizer, texts) for kind, texts in tinyworld_sentences(config, hidden).items() if texts}
    fit(module, pools, config, progress, "training the TinyWorld model" if not hidden else "training the gold model")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
        made = Path(scratch) / "model"
        module.save_pretrained(made)
        tokenizer.save_pretrained(made)
        write_json(made / "manifest.json", json.loads(json.dumps(key)))
        if not folder.exists():
            made.rename(folder)


def _encode(tokenizer: Any, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids (n, width) and attention (n, width) of all sentences of a kind."""
    ids = tokenizer(texts)["input_ids"]
    width = max(map(len, ids))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    attended = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    return tokens, attended


def fit(
    module: Any, pools: dict[str, tuple[Tensor, Tensor]], config: TinyWorldConfig, progress: Progress, what: str
) -> None:
    """Train on batches that mix the pools in fixed shares, with a one-cycle learning rate."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps, pct_start=0.1)
    shares = {kind: MIX[kind] for kind in sorted(pools)}
    total = sum(shares.values())
    counts = {kind: max(1, round(config.batch_size * share / total)) for kind, share in shares.items()}
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
