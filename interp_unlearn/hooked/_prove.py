"""Prove by arithmetic what each tensor of a decoder block is, on one small forward pass.

``resid_pre + attn_out == resid_mid`` and ``resid_mid + mlp_out == resid_post`` must hold to rounding, and the summand
must be large enough to be noticed if it were missing: where the residual stream is massive, a loose tolerance would
accept the block's input as its ``resid_mid``. A site whose identity does not hold is not offered, so a name never
lies.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from interp_unlearn._core import ModelError
from interp_unlearn.hooked._batch import Batch
from interp_unlearn.hooked._forward import argument_names, evaluating, input_device, run_language_model
from interp_unlearn.hooked._head import logit_scale
from interp_unlearn.hooked._model import LanguageShape
from interp_unlearn.hooked._sites import Site, SiteMap, Sum
from interp_unlearn.hooked._tap import tap

PROBE = (2, 3)  # batch, position: unequal, so that a flattened axis is recognised
ROUNDING = 8  # allowed error, in machine epsilons of the summands
CAUSAL = 32  # a later token may change logits by so many float32 epsilons of their length, or by one of their dtype
NOISE = 8  # … or by so many times what it changes in another row, where experts add up in another order
PROVEN = ("hook_attn_out", "hook_resid_mid", "hook_mlp_out", "attn.hook_z", "mlp.hook_post")
VISIBLE = 32  # a summand must be larger than this somewhere, in the same unit


@dataclass(frozen=True)
class Block:
    """Module paths of one block's parts, None where there is none."""

    path: str
    attn: str | None
    attn_proj: str | None
    mlp: str | None
    mlp_proj: str | None
    norms: tuple[str, ...]


@torch.no_grad()
def proven_sites(
    module: nn.Module, shape: LanguageShape, parts: Sequence[Block], *, keep_norm: bool = False
) -> tuple[LanguageShape, dict[str, Site]]:
    """Sites whose identities hold on one small forward pass, and the shape with what the pass says about it.

    Args:
        module: A causal language model.
        shape: What its structure says; ``final_norm``, ``mlp_out``, ``d_mlp`` and ``logit_scale`` are put right.
        parts: Of its blocks.
        keep_norm: Keep a final norm that does not read the last block's output.

    Raises:
        ModelError: If a block does not carry the residual stream, or the model reads later tokens.
    """
    probe = sorted(
        {f"{p.path}.{k}" for p in parts for k in ("input", "output")}
        | {f"{n}.{k}" for p in parts for n in p.norms for k in ("input", "output")}
        | {f"{m}.output" for p in parts for m in (p.attn, p.attn_proj, p.mlp, p.mlp_proj) if m}
        | {f"{m}.input" for p in parts for m in (p.attn_proj, p.mlp, p.mlp_proj) if m}
        | {f"{m}.input" for m in (shape.final_norm,) if m}
    )
    device = input_device(module)
    tokens = ((torch.arange(PROBE[0] * PROBE[1], device=device) + 1) % shape.d_vocab).reshape(PROBE)
    other = tokens.clone()
    other[0, -1] = (other[0, -1] + 1) % shape.d_vocab
    names = argument_names(module)

    def keep(site: Site, value: Tensor) -> Tensor:
        return site.shape_in(value.detach().clone(), PROBE)

    with evaluating(module):
        with tap(SiteMap(module, {}), probe, keep=keep, stop=False) as taps:
            logits = taps.run(lambda: run_language_model(module, _batch(tokens), names))
        seen = taps.values
        _check_causal(module, logits, run_language_model(module, _batch(other), names))
        named: dict[str, Site] = {"hook_embed": Site("hook_embed", shape.embed, "output")}
        for layer, part in enumerate(parts):
            named.update(_block_sites(layer, part, seen, shape))
        last = seen[f"{parts[-1].path}.output"]
        norm = shape.final_norm
        if norm and _equal(seen.get(f"{norm}.input"), last):
            named["ln_final.hook_in"] = Site("ln_final.hook_in", norm, "input")
            named["ln_final.hook_out"] = Site("ln_final.hook_out", norm, "output")
        elif not keep_norm and bool(last.isfinite().all()):
            norm = None  # a norm beside the blocks that does not read their last output
        named["unembed.hook_out"] = Site("unembed.hook_out", shape.unembed, "output")
        scale = logit_scale(module, last, logits, norm, shape.unembed)
    _warn_of_numbers(parts, seen, named)
    neurons = [_neurons(layer, part, seen, named) for layer, part in enumerate(parts)]
    d_mlp = next((seen[f"{path}.input"].shape[-1] for path in neurons if path), 0)
    return replace(shape, final_norm=norm, mlp_out=tuple(neurons), d_mlp=d_mlp, logit_scale=scale), named


def _batch(tokens: Tensor) -> Batch:
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), torch.zeros_like(tokens, dtype=torch.bool))


def _check_causal(module: nn.Module, logits: Any, changed: Any) -> None:
    """Refuse a model whose logits at a token change with a later one of the same row, by more than rounding."""
    name = type(module).__name__
    if not isinstance(logits, Tensor) or not isinstance(changed, Tensor) or logits.dim() < 3:
        raise ModelError(f"{name} returns no logits (batch, position, token); open it with language=False")
    before, after = logits[:, :-1].double(), changed[:, :-1].double()
    moved, noise = ((after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)).tolist()
    rounding = max(CAUSAL * torch.finfo(torch.float32).eps, torch.finfo(logits.dtype).eps)
    if moved > max(rounding, NOISE * noise):
        raise ModelError(
            f"{name} reads later tokens too (it is bidirectional); only decoders get site names: open it with "
            "language=False"
        )


def _neurons(layer: int, part: Block, seen: Mapping[str, Tensor], named: Mapping[str, Site]) -> str | None:
    """The block's projection from neurons; what its structure says where numbers that are not finite prove nothing."""
    known = f"blocks.{layer}.mlp.hook_post" in named or not _finite(part, seen)
    return part.mlp_proj if known and f"{part.mlp_proj}.input" in seen else None


def _finite(part: Block, seen: Mapping[str, Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for name, value in seen.items() if name.startswith(f"{part.path}."))


def _warn_of_numbers(parts: Sequence[Block], seen: Mapping[str, Tensor], named: Mapping[str, Site]) -> None:
    """Say which sites are left out because a broken model's numbers prove nothing."""
    broken = [layer for layer, part in enumerate(parts) if not _finite(part, seen)]
    missing = {layer: [n for n in PROVEN if f"blocks.{layer}.{n}" not in named] for layer in broken}
    first = next((layer for layer in broken if missing[layer]), None)
    if first is not None:
        blocks = (
            f"{parts[first].path} holds"
            if len(broken) == 1
            else f"{len(broken)} blocks from {parts[first].path} on hold"
        )
        warnings.warn(
            f"{blocks} values that are not finite, so nothing can be proved there; left out: "
            f"{', '.join(missing[first])}. Name module paths there, and check the weights for NaN",
            stacklevel=2,
        )


def adds_up(total: Tensor | None, *parts: Tensor | None) -> bool:
    """Whether ``total`` is the sum of ``parts`` to rounding, and every part after the first is visible in it."""
    if total is None or any(p is None or p.shape != total.shape for p in parts):
        return False
    known = [p for p in parts if p is not None]
    eps = max(torch.finfo(t.dtype).eps for t in (total, *known) if t.is_floating_point())
    wide = [p.double() for p in known]
    scale = total.double().abs() + sum(p.abs() for p in wide)
    error = (total.double() - sum(wide)).abs()
    if not bool((error <= ROUNDING * eps * scale).all()):
        return False
    return all(bool((p.abs() > VISIBLE * eps * scale).any()) for p in wide[1:])


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and torch.equal(a, b)


def _block_sites(layer: int, part: Block, seen: Mapping[str, Tensor], shape: LanguageShape) -> dict[str, Site]:
    pre, post = seen.get(f"{part.path}.input"), seen.get(f"{part.path}.output")
    if pre is None or post is None or pre.shape[-1] != shape.d_model or post.shape != pre.shape:
        raise ModelError(
            f"block {part.path} does not carry a residual stream of width {shape.d_model}; "
            "pass overrides={'blocks': …}, or open it as a plain module with language=False"
        )
    out: dict[str, Site] = {}

    def add(name: str, raw: str, heads: int | None = None, total: Sum | None = None) -> None:
        path, _, kind = raw.rpartition(".")
        full = f"blocks.{layer}.{name}"
        out[full] = Site(full, path, "input" if kind == "input" else "output", layer, heads, total)

    add("hook_resid_pre", f"{part.path}.input")
    attn_raw = [r for r in _outputs(part.attn, *part.norms) if r in seen]
    mlp_raw = [r for r in _outputs(part.mlp, part.mlp_proj, *part.norms) if r in seen]
    middle = [f"{m}.input" for m in (*part.norms, part.mlp) if m]  # the MLP itself where norms stand after it
    found = next(((a, m) for a in attn_raw for m in middle if adds_up(seen.get(m), pre, seen[a])), None)
    if found is not None:
        attn_out, mid = found
        # Read the first summand where the block reads it, so that an edit of the block's input is already in it.
        base = next((n for n in part.norms if _equal(seen.get(f"{n}.input"), pre)), part.path)
        add("hook_attn_out", attn_out)
        add("hook_resid_mid", mid, total=Sum(base, f"blocks.{layer}.hook_attn_out"))
        mlp_out = next((m for m in mlp_raw if adds_up(post, seen[mid], seen[m])), None)
        if mlp_out is not None:
            add("hook_mlp_out", mlp_out)
    else:  # parallel residual (GPT-NeoX, GPT-J): attention and MLP both read resid_pre
        pair = next(((a, m) for a in attn_raw for m in mlp_raw if adds_up(post, pre, seen[a], seen[m])), None)
        if pair is not None:
            add("hook_attn_out", pair[0])
            add("hook_mlp_out", pair[1])
    z = seen.get(f"{part.attn_proj}.input")
    leaves = _equal(seen.get(f"{part.attn_proj}.output"), seen.get(f"{part.attn}.output"))
    if z is not None and leaves and z.shape[-1] == shape.n_heads * shape.d_head:
        add("attn.hook_z", f"{part.attn_proj}.input", shape.n_heads)
    neurons_out = seen.get(f"{part.mlp_proj}.output")
    leaves = part.mlp is None or _equal(neurons_out, seen.get(f"{part.mlp}.output"))
    if neurons_out is not None and leaves and part.mlp_proj != part.attn_proj:
        add("mlp.hook_post", f"{part.mlp_proj}.input")
    add("hook_resid_post", f"{part.path}.output")
    return out


def _outputs(*modules: str | None) -> list[str]:
    return [f"{m}.output" for m in modules if m]
