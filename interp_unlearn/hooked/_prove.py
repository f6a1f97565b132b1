"""Prove by arithmetic what each tensor of a decoder block is, on one small forward pass.

``resid_pre + attn_out == resid_mid`` and ``resid_mid + mlp_out == resid_post`` must hold to rounding, and the summand
must be large enough to be noticed if it were missing: where the residual stream is massive, a loose tolerance would
accept the block's input as its ``resid_mid``. A site whose identity does not hold is not offered, so a name never
lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from interp_unlearn._core import ModelError
from interp_unlearn.hooked._batch import Batch
from interp_unlearn.hooked._forward import evaluating, input_device, run_language_model
from interp_unlearn.hooked._model import LanguageShape
from interp_unlearn.hooked._sites import Site, SiteMap, Sum
from interp_unlearn.hooked._tap import tap

PROBE = (2, 3)  # batch, position: unequal, so that a flattened axis is recognised
ROUNDING = 8  # allowed error, in machine epsilons of the summands
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
def proven_sites(module: nn.Module, shape: LanguageShape, parts: Sequence[Block]) -> dict[str, Site]:
    """Sites whose identities hold on one small forward pass.

    Raises:
        ModelError: If a block does not carry the residual stream.
    """
    probe = sorted(
        {f"{p.path}.{k}" for p in parts for k in ("input", "output")}
        | {f"{n}.{k}" for p in parts for n in p.norms for k in ("input", "output")}
        | {f"{m}.output" for p in parts for m in (p.attn, p.attn_proj, p.mlp, p.mlp_proj) if m}
        | {f"{m}.input" for p in parts for m in (p.attn_proj, p.mlp_proj) if m}
        | {f"{m}.input" for m in (shape.final_norm,) if m}
    )
    device = input_device(module)
    tokens = ((torch.arange(PROBE[0] * PROBE[1], device=device) + 1) % shape.d_vocab).reshape(PROBE)
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), torch.zeros_like(tokens, dtype=torch.bool))

    def keep(site: Site, value: Tensor) -> Tensor:
        return site.shape_in(value.detach().clone(), PROBE)

    with evaluating(module), tap(SiteMap(module, {}), probe, keep=keep, stop=False) as taps:
        taps.run(lambda: run_language_model(module, batch))
    seen = taps.values

    named: dict[str, Site] = {"hook_embed": Site("hook_embed", shape.embed, "output")}
    for layer, part in enumerate(parts):
        named.update(_block_sites(layer, part, seen, shape))
    last = seen[f"{parts[-1].path}.output"]
    if shape.final_norm and _equal(seen.get(f"{shape.final_norm}.input"), last):
        named["ln_final.hook_in"] = Site("ln_final.hook_in", shape.final_norm, "input")
        named["ln_final.hook_out"] = Site("ln_final.hook_out", shape.final_norm, "output")
    named["unembed.hook_out"] = Site("unembed.hook_out", shape.unembed, "output")
    return named


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
    middle = [f"{n}.input" for n in part.norms]
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
