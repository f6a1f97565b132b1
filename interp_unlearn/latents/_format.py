"""SAELens' folder format: ``cfg.json`` and ``sae_weights.safetensors``, read and written without sae-lens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_unlearn._core import ConfigError, FileFormatError, read_json, read_tensors, write_json, write_tensors
from interp_unlearn.latents._sae import SAE, SAEKind

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
FORMAT_VERSION = "6.54.12"  # the sae-lens release whose layout is written
SUPPORTED = ("standard", "topk", "jumprelu", "batchtopk", "gated")


def save_sae(sae: SAE, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Write an SAE that both `load_sae` and ``sae_lens.SAE.load_from_disk`` read.

    An ``input_scale`` is folded into the weights, so the file reads raw activations.

    Args:
        sae: Any SAE of kind ``relu``, ``topk``, ``jumprelu`` or ``batchtopk``.
        folder: Made if missing.
        dtype: Of the stored weights; they are computed with in float32 in any case.

    Returns:
        The folder.

    Raises:
        ConfigError: If the kind has no counterpart in SAELens (the identity basis).
    """
    architecture = {"relu": "standard", "topk": "topk", "jumprelu": "jumprelu", "batchtopk": "jumprelu"}.get(sae.kind)
    if architecture is None:
        raise ConfigError(f"{sae.name} is of kind {sae.kind!r}, which SAELens cannot hold; there is nothing to save")
    scale = sae.input_scale
    tensors = {"W_enc": sae.W_enc * scale, "b_enc": sae.b_enc, "W_dec": sae.W_dec / scale, "b_dec": sae.b_dec / scale}
    if sae.threshold is not None:
        tensors["threshold"] = sae.threshold
    config: dict[str, Any] = {
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": FORMAT_VERSION, **sae.metadata, "hook_name": sae.site},
        "architecture": architecture,
    }
    if sae.k is not None:
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    folder = Path(folder)
    write_tensors(folder / WEIGHTS, {name: tensor.to(dtype) for name, tensor in tensors.items()})
    write_json(folder / CONFIG, config)
    return folder


def read_sae(folder: str | Path, name: str | None = None) -> SAE:
    """Read a SAELens folder of a standard, topk, batchtopk, jumprelu or gated SAE.

    Raises:
        FileFormatError: If a file is missing, truncated, a pickle, or lacks a tensor.
        ConfigError: If the architecture or normalisation has no equal here.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS).exists():
        found = sorted(p.name for p in folder.glob("*") if p.suffix in (".pt", ".pth", ".bin", ".safetensors"))
        hint = f"; it holds {', '.join(found)}" if found else ""
        raise FileFormatError(f"{folder} is not a SAELens folder: {WEIGHTS} is missing{hint}")
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise FileFormatError(f"{folder / CONFIG} is not a SAELens configuration")
    return sae_from_parts(config, read_tensors(folder / WEIGHTS), name or folder.name)


def sae_from_parts(config: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> SAE:
    """An `SAE` from a SAELens configuration and its tensors (both the layout of version 6 and the older flat one)."""
    metadata = dict(config.get("metadata") or {})
    site = metadata.get("hook_name") or config.get("hook_name") or config.get("hook_point")
    if not site:
        raise FileFormatError(f"the configuration of {name} names no hook point, so its site is unknown")
    architecture = config.get("architecture", "standard")
    if architecture == "standard" and config.get("activation_fn_str", config.get("activation_fn")) == "topk":
        architecture = "topk"
    if architecture not in SUPPORTED:
        raise ConfigError(f"{name} is a {architecture!r} SAE; supported: {', '.join(SUPPORTED)}")
    normalise = config.get("normalize_activations") or "none"
    if normalise not in ("none", "expected_average_only_in"):
        raise ConfigError(
            f"{name} normalises each input ({normalise!r}), which is not a linear dictionary; use an SAE without it"
        )
    if config.get("reshape_activations", "none") not in ("none", None):
        raise ConfigError(f"{name} reads flattened heads ({site!r}); SAEs on attn.hook_z are not supported")
    parts = {key: value.float() for key, value in tensors.items()}
    missing = [key for key in ("W_enc", "W_dec", "b_dec") if key not in parts]
    if missing:
        raise FileFormatError(f"the weights of {name} lack {', '.join(missing)}; it may be another kind of file")
    kind, b_enc, threshold, k = _activation(architecture, config, parts, name)
    if config.get("rescale_acts_by_decoder_norm") and architecture in ("topk", "batchtopk"):
        norms = parts["W_dec"].norm(dim=1).clamp_min(1e-8)
        parts["W_enc"], b_enc, parts["W_dec"] = parts["W_enc"] * norms, b_enc * norms, parts["W_dec"] / norms[:, None]
    return SAE(
        parts["W_enc"],
        b_enc,
        parts["W_dec"],
        parts["b_dec"],
        kind=kind,
        site=str(site),
        threshold=threshold,
        k=k,
        input_scale=float(metadata.get("input_scale") or 1.0),
        apply_b_dec_to_input=bool(config.get("apply_b_dec_to_input", True)),
        name=name,
        metadata=metadata,
    )


def _activation(
    architecture: str, config: Mapping[str, Any], parts: dict[str, Tensor], name: str
) -> tuple[SAEKind, Tensor, Tensor | None, int | None]:
    """Kind, encoder bias, threshold and k of an architecture.

    A gated SAE with shared weights is a JumpReLU SAE (Rajamanoharan et al., arXiv 2404.16014): with ``e = exp(r_mag)``
    its magnitude path is ``a = u @ (W_enc * e) + b_mag``, and its gate opens where ``a > b_mag - e * b_gate``.
    """
    try:
        if architecture == "gated":
            scale = parts["r_mag"].exp()
            parts["W_enc"] = parts["W_enc"] * scale
            return "jumprelu", parts["b_mag"], parts["b_mag"] - scale * parts["b_gate"], None
        b_enc = parts["b_enc"]
        if architecture == "standard":
            return "relu", b_enc, None, None
        if architecture == "topk":
            k = config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k")
            if k is None:
                raise FileFormatError(f"the configuration of {name} does not say k")
            return "topk", b_enc, None, int(k)
        if architecture == "batchtopk":
            return "batchtopk", b_enc, torch.full_like(b_enc, float(parts["topk_threshold"])), None
        return "jumprelu", b_enc, parts["threshold"], None
    except KeyError as error:
        raise FileFormatError(f"the weights of {name} lack {error}, which a {architecture} SAE needs") from error
