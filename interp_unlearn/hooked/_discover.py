"""Find the parts of a decoder by structure; `_prove` then checks by arithmetic which of them carry which name.

No table of architectures: the block list is the module list that has attention inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from interp_unlearn._core import ModelError, nearest
from interp_unlearn.hooked._model import LanguageShape
from interp_unlearn.hooked._prove import Block, proven_sites
from interp_unlearn.hooked._sites import SiteMap

OUT_PROJECTIONS = ("o_proj", "c_proj", "out_proj", "dense", "wo", "o", "out")
DOWN_PROJECTIONS = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "w2", "wo", "fc_out", "dense", "out_proj")
OVERRIDES = ("blocks", "embed", "final_norm", "unembed", "attn", "attn_proj", "mlp", "mlp_proj")


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _computes(module: nn.Module) -> bool:
    """Neither a norm nor a dropout that merely carries "attention" or "mlp" in its name."""
    return not _is_norm(module) and not isinstance(module, nn.Dropout)


def _attention_in(block: nn.Module) -> str | None:
    for name, child in block.named_children():
        if ("attn" in name.lower() or "attention" in name.lower()) and _computes(child):
            return name
    return None


def _mlp_in(block: nn.Module) -> str | None:
    for name, child in block.named_children():
        lowered = name.lower()
        if any(k in lowered for k in ("mlp", "feed_forward", "ffn", "feedforward")) and _computes(child):
            return name
    return None


def _projection(module: nn.Module, names: Sequence[str], *, deep: bool = True) -> str | None:
    """A child with one of the names, or with ``deep`` a child of a child."""
    children = dict(module.named_children())
    for name in names:
        if name in children and hasattr(children[name], "weight"):
            return name
    for child_name, child in children.items():  # one level down, as in attention.attention.out_proj
        if not deep:
            break
        for name in names:
            inner = dict(child.named_children())
            if name in inner and hasattr(inner[name], "weight"):
                return f"{child_name}.{name}"
    return None


def _find_blocks(module: nn.Module, n_layers: int | None) -> str:
    best: tuple[int, str] | None = None
    for path, child in module.named_modules():
        if not isinstance(child, nn.ModuleList) or not any(_attention_in(block) for block in child):
            continue
        score = 10_000 * (len(child) == n_layers) + len(child)
        if best is None or score > best[0]:
            best = (score, path)
    if best is None:
        raise ModelError(
            "no decoder blocks found: looked for an nn.ModuleList whose entries have a child named like 'attn' or "
            "'attention'; pass overrides={'blocks': 'path.to.modulelist'}, or open it with language=False"
        )
    return best[1]


def _path_of(module: nn.Module, wanted: nn.Module | None) -> str | None:
    if wanted is None:
        return None
    return next((path for path, child in module.named_modules() if child is wanted), None)


def _embedding_accessor(module: nn.Module, method: str) -> nn.Module | None:
    getter = getattr(module, method, None)
    if getter is None:
        return None
    try:
        return getter()
    except (NotImplementedError, AttributeError):
        return None


def _block_parts(path: str, block: nn.Module, overrides: Mapping[str, str]) -> Block:
    has = {name for name, _ in block.named_modules()}
    overrides = {key: name for key, name in overrides.items() if name in has}  # blocks of a hybrid differ
    attn = overrides.get("attn") or _attention_in(block)
    mlp = overrides.get("mlp") or _mlp_in(block)
    attn_proj = overrides.get("attn_proj")
    if attn_proj is None and attn is not None:
        found = _projection(block.get_submodule(attn), OUT_PROJECTIONS)
        attn_proj = f"{attn}.{found}" if found else None
    mlp_proj = overrides.get("mlp_proj")
    if mlp_proj is None:
        # Without an MLP of its own, what lies one level down may be another part's (BERT's, a Mamba mixer's).
        inside = block if mlp is None else block.get_submodule(mlp)
        found = _projection(inside, DOWN_PROJECTIONS, deep=mlp is not None)
        mlp_proj = (f"{mlp}.{found}" if mlp else found) if found else None
    norms = tuple(name for name, child in block.named_children() if _is_norm(child))
    full = lambda part: f"{path}.{part}" if part else None  # noqa: E731
    return Block(path, full(attn), full(attn_proj), full(mlp), full(mlp_proj), tuple(f"{path}.{n}" for n in norms))


def _in_features(projection: nn.Module) -> int:
    weight: Tensor = projection.weight  # type: ignore[assignment]
    out_first = not type(projection).__name__.startswith("Conv1D")
    return int(weight.shape[1] if out_first else weight.shape[0])


def _has(block: nn.Module, path: str | None) -> bool:
    return path is not None and any(name == path for name, _ in block.named_modules())


def _context(config: Any) -> int | None:
    """Longest prompt that the config states; XLNet says -1 where there is no limit, MPT uses a name of its own."""
    stated = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
    return next((n for n in stated if isinstance(n, int) and n > 0), None)


def _check_path(module: nn.Module, key: str, path: str | None) -> None:
    paths = [name for name, _ in module.named_modules() if name]
    if path is not None and path not in paths:
        raise ModelError(f"overrides[{key!r}]={path!r} is not a module{nearest(path, paths)}")


def discover(module: nn.Module, overrides: Mapping[str, str] | None = None) -> tuple[LanguageShape, SiteMap]:
    """Sizes and validated sites of a decoder language model.

    Args:
        module: A causal language model that returns logits.
        overrides: Real module paths for parts that cannot be found by structure; keys: ``blocks``, ``embed``,
            ``final_norm``, ``unembed`` (paths from the root), ``attn``, ``attn_proj``, ``mlp``, ``mlp_proj`` (from a
            block).

    Raises:
        ModelError: If no blocks, embedding or head are found, the residual stream fails its check, or the model reads
            later tokens.
    """
    overrides = dict(overrides or {})
    unknown = sorted(set(overrides) - set(OVERRIDES))
    if unknown:
        raise ModelError(f"unknown override {unknown[0]!r}; known: {', '.join(OVERRIDES)}")
    config: Any = getattr(module, "config", None)
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    n_layers = getattr(text_config, "num_hidden_layers", None)
    for key in ("blocks", "embed", "final_norm", "unembed"):
        _check_path(module, key, overrides.get(key))
    list_path = overrides.get("blocks") or _find_blocks(module, n_layers)
    blocks = module.get_submodule(list_path)
    if not isinstance(blocks, nn.ModuleList):
        raise ModelError(f"overrides['blocks']={list_path!r} is {type(blocks).__name__}, not a ModuleList")
    if len({id(block) for block in blocks}) < len(blocks):
        raise ModelError(
            f"{list_path!r} repeats the same block, so layers cannot be told apart; open it with language=False "
            "and name module paths"
        )
    for key in ("attn", "attn_proj", "mlp", "mlp_proj"):
        _check_path(next((b for b in blocks if _has(b, overrides.get(key))), blocks[0]), key, overrides.get(key))
    parts = [_block_parts(f"{list_path}.{i}", block, overrides) for i, block in enumerate(blocks)]

    embed = overrides.get("embed") or _path_of(module, _embedding_accessor(module, "get_input_embeddings"))
    unembed = overrides.get("unembed") or _path_of(module, _embedding_accessor(module, "get_output_embeddings"))
    if embed is None:
        embed = next((p for p, m in module.named_modules() if isinstance(m, nn.Embedding)), None)
    if embed is None or unembed is None:
        raise ModelError("no token embedding or output head found; pass overrides={'embed': …, 'unembed': …}")
    parent = list_path.rpartition(".")[0]
    final_norm = overrides.get("final_norm")
    if final_norm is None:
        siblings = module.get_submodule(parent).named_children() if parent else module.named_children()
        names = [name for name, child in siblings if _is_norm(child)]
        final_norm = (f"{parent}.{names[-1]}" if parent else names[-1]) if names else None

    embedding: Tensor = module.get_submodule(embed).weight  # type: ignore[assignment]
    d_model = int(getattr(text_config, "hidden_size", None) or embedding.shape[1])
    attn_proj = next((p.attn_proj for p in parts if p.attn_proj), None)
    head_width = _in_features(module.get_submodule(attn_proj)) if attn_proj else d_model
    n_heads = int(getattr(text_config, "num_attention_heads", None) or 1)
    shape = LanguageShape(
        n_layers=len(blocks),
        d_model=d_model,
        n_heads=n_heads,
        d_head=head_width // n_heads,
        d_mlp=0,  # neurons are those that are proved, below
        d_vocab=int(embedding.shape[0]),
        n_ctx=_context(text_config),
        blocks=tuple(p.path for p in parts),
        embed=embed,
        final_norm=final_norm,
        unembed=unembed,
        mlp_out=tuple(p.mlp_proj for p in parts),
    )
    shape, sites = proven_sites(module, shape, parts, keep_norm="final_norm" in overrides)
    return shape, SiteMap(module, sites)
