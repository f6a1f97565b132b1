"""Find the parts of a decoder by structure, then prove the findings by arithmetic.

No table of architectures: the block list is the module list that has attention inside, and which tensors are the residual
stream is decided by checking identities on one small forward pass (``resid_pre + attn_out == resid_mid`` and so on). A site
whose identity does not hold is not offered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interp_unlearn._core import ModelError
from interp_unlearn.hooked._model import LanguageShape
from interp_unlearn.hooked._sites import Site, SiteMap
from interp_unlearn.hooked._tap import tap

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


def _projection(module: nn.Module, names: Sequence[str]) -> str | None:
    children = dict(module.named_children())
    for name in names:
        if name in children and hasattr(children[name], "weight"):
            return name
    for child_name, child in children.items():  # one level down, as in attention.attention.out_proj
        for name in names:
            inner = dict(child.named_children())
            if name in inner and hasattr(inner[name], "weight"):
                return f"{child_name}.{name}"
    return None


def _find_blocks(module: nn.Module, n_layers: int | None) -> str:
    best: tuple[int, str] | None = None
    for path, child in module.named_modules():
        if not isinstance(child, nn.ModuleList) or len(child) == 0 or _attention_in(child[0]) is None:
            continue
        score = 10_000 * (len(child) == n_layers) + len(child)
        if best is None or score > best[0]:
            best = (score, path)
    if best is None:
        raise ModelError(
            "no decoder blocks found: looked for an nn.ModuleList whose entries have a child named like 'attn' or "
            "'attention'; pass overrides={'blocks': 'path.to.modulelist'}, or open it as a plain module with language=False"
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


@dataclass(frozen=True)
class _Block:
    path: str
    attn: str | None
    attn_proj: str | None
    mlp: str | None
    mlp_proj: str | None
    norms: tuple[str, ...]


def _block_parts(path: str, block: nn.Module, overrides: Mapping[str, str]) -> _Block:
    attn = overrides.get("attn") or _attention_in(block)
    mlp = overrides.get("mlp") or _mlp_in(block)
    attn_proj = overrides.get("attn_proj")
    if attn_proj is None and attn is not None:
        found = _projection(block.get_submodule(attn), OUT_PROJECTIONS)
        attn_proj = f"{attn}.{found}" if found else None
    mlp_proj = overrides.get("mlp_proj")
    if mlp_proj is None:
        found = _projection(block.get_submodule(mlp), DOWN_PROJECTIONS) if mlp else _projection(block, DOWN_PROJECTIONS)
        mlp_proj = (f"{mlp}.{found}" if mlp else found) if found else None
    norms = tuple(name for name, child in block.named_children() if _is_norm(child))
    full = lambda part: f"{path}.{part}" if part else None  # noqa: E731
    return _Block(path, full(attn), full(attn_proj), full(mlp), full(mlp_proj), tuple(f"{path}.{n}" for n in norms))


def _in_features(projection: nn.Module) -> int:
    weight: Tensor = projection.weight  # type: ignore[assignment]
    out_first = not type(projection).__name__.startswith("Conv1D")
    return int(weight.shape[1] if out_first else weight.shape[0])


def discover(module: nn.Module, overrides: Mapping[str, str] | None = None) -> tuple[LanguageShape, SiteMap]:
    """Sizes and validated sites of a decoder language model.

    Args:
        module: A causal language model that returns logits.
        overrides: Real module paths for parts that cannot be found by structure; keys: ``blocks``, ``embed``,
            ``final_norm``, ``unembed`` (paths from the root), ``attn``, ``attn_proj``, ``mlp``, ``mlp_proj`` (from a block).

    Raises:
        ModelError: If no blocks, embedding or head are found, or the residual stream fails its check.
    """
    overrides = dict(overrides or {})
    unknown = sorted(set(overrides) - set(OVERRIDES))
    if unknown:
        raise ModelError(f"unknown override {unknown[0]!r}; known: {', '.join(OVERRIDES)}")
    config: Any = getattr(module, "config", None)
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    n_layers = getattr(text_config, "num_hidden_layers", None)
    list_path = overrides.get("blocks") or _find_blocks(module, n_layers)
    blocks = module.get_submodule(list_path)
    if not isinstance(blocks, nn.ModuleList):
        raise ModelError(f"overrides['blocks']={list_path!r} is {type(blocks).__name__}, not a ModuleList")
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
    head_width = _in_features(module.get_submodule(parts[0].attn_proj)) if parts[0].attn_proj else d_model
    n_heads = int(getattr(text_config, "num_attention_heads", None) or 1)
    shape = LanguageShape(
        n_layers=len(blocks),
        d_model=d_model,
        n_heads=n_heads,
        d_head=head_width // n_heads,
        d_mlp=_in_features(module.get_submodule(parts[0].mlp_proj)) if parts[0].mlp_proj else 0,
        d_vocab=int(embedding.shape[0]),
        n_ctx=getattr(text_config, "max_position_embeddings", None),
        blocks=tuple(p.path for p in parts),
        embed=embed,
        final_norm=final_norm,
        unembed=unembed,
        mlp_out=tuple(p.mlp_proj for p in parts),
    )
    return shape, SiteMap(module, _validated_sites(module, shape, parts))


@torch.no_grad()
def _validated_sites(module: nn.Module, shape: LanguageShape, parts: Sequence[_Block]) -> dict[str, Site]:
    """Sites whose identities hold on one small forward pass."""
    probe = sorted(
        {f"{p.path}.{k}" for p in parts for k in ("input", "output")}
        | {f"{n}.{k}" for p in parts for n in p.norms for k in ("input", "output")}
        | {f"{m}.output" for p in parts for m in (p.attn, p.mlp, p.mlp_proj) if m}
        | {f"{m}.input" for p in parts for m in (p.attn_proj, p.mlp_proj) if m}
    )
    device = next(module.parameters()).device
    tokens = torch.arange(1, 5, device=device)[None] % shape.d_vocab
    raw = SiteMap(module, {})
    was_training = module.training
    module.eval()
    try:
        with tap(raw, probe, keep=lambda site, v: site.shape_in(v.detach(), 1).float().clone(), stop=False) as taps:
            taps.run(lambda: module(input_ids=tokens, attention_mask=torch.ones_like(tokens)))
            seen = dict(taps.values)
    finally:
        module.train(was_training)

    named: dict[str, Site] = {"hook_embed": Site("hook_embed", shape.embed, "output")}
    for layer, part in enumerate(parts):
        named.update(_block_sites(layer, part, seen, shape))
    if shape.final_norm:
        named["ln_final.hook_in"] = Site("ln_final.hook_in", shape.final_norm, "input")
        named["ln_final.hook_out"] = Site("ln_final.hook_out", shape.final_norm, "output")
    named["unembed.hook_out"] = Site("unembed.hook_out", shape.unembed, "output")
    return named


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None or a.shape != b.shape:
        return False
    return bool((a - b).abs().max() <= 1e-3 * b.abs().max().clamp(min=1e-6))


def _block_sites(layer: int, part: _Block, seen: Mapping[str, Tensor], shape: LanguageShape) -> dict[str, Site]:
    pre, post = seen.get(f"{part.path}.input"), seen.get(f"{part.path}.output")
    if pre is None or post is None or pre.shape[-1] != shape.d_model or post.shape != pre.shape:
        raise ModelError(
            f"block {part.path} does not carry a residual stream of width {shape.d_model}; "
            "pass overrides={'blocks': …}, or open it as a plain module with language=False"
        )
    out: dict[str, Site] = {}

    def add(name: str, raw: str, heads: int | None = None) -> None:
        path, _, kind = raw.rpartition(".")
        full = f"blocks.{layer}.{name}"
        out[full] = Site(full, path, "input" if kind == "input" else "output", layer, heads)

    add("hook_resid_pre", f"{part.path}.input")
    norm_in, norm_out = [f"{n}.input" for n in part.norms], [f"{n}.output" for n in part.norms]
    attn_raw = [r for r in [f"{part.attn}.output", *norm_out] if r in seen]
    mlp_raw = [r for r in [f"{part.mlp}.output", f"{part.mlp_proj}.output", *norm_out] if r in seen]
    mid = next(((a, m) for a in attn_raw for m in norm_in if m in seen and _same(pre + seen[a], seen[m])), None)
    if mid is not None:
        attn_out, resid_mid = mid
        add("hook_attn_out", attn_out)
        add("hook_resid_mid", resid_mid)
        mlp_out = next((m for m in mlp_raw if _same(seen[resid_mid] + seen[m], post)), None)
        if mlp_out is not None:
            add("hook_mlp_out", mlp_out)
    else:  # parallel residual (GPT-NeoX, GPT-J): attention and MLP both read resid_pre
        pair = next(((a, m) for a in attn_raw for m in mlp_raw if _same(pre + seen[a] + seen[m], post)), None)
        if pair is not None:
            add("hook_attn_out", pair[0])
            add("hook_mlp_out", pair[1])
    if part.attn_proj and seen.get(f"{part.attn_proj}.input") is not None:
        width = seen[f"{part.attn_proj}.input"].shape[-1]
        if width == shape.n_heads * shape.d_head:
            add("attn.hook_z", f"{part.attn_proj}.input", shape.n_heads)
    if part.mlp_proj and seen.get(f"{part.mlp_proj}.input") is not None:
        add("mlp.hook_post", f"{part.mlp_proj}.input")
    add("hook_resid_post", f"{part.path}.output")
    return out
