"""`SAE`: a frozen sparse autoencoder for looking and for losses; small, differentiable, the same for every kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_unlearn._core import ConfigError, DataError

if TYPE_CHECKING:
    from interp_unlearn.hooked import HookedModel

SAEKind = Literal["relu", "jumprelu", "topk", "batchtopk", "linear"]


class SAE(nn.Module):
    """A dictionary of directions at one site, with its encoder.

    With ``u = input_scale * x - b_dec`` (or ``input_scale * x``, see `apply_b_dec_to_input`), pre-activations are
    ``a = u @ W_enc + b_enc`` and latents are

    - ``relu``: ``max(a, 0)``;
    - ``jumprelu``, ``batchtopk``: ``a`` where ``a > threshold`` (strictly) and ``a > 0``, else 0;
    - ``topk``: ``max(a, 0)`` of the k largest ``a`` of each row, else 0;
    - ``linear``: ``a`` (the identity basis).

    The reconstruction is ``(z @ W_dec + b_dec) / input_scale``. Every kind is differentiable in ``x``: the gradient of
    ``z[j]`` is ``input_scale * W_enc[:, j]`` where latent j is on and exactly 0 where it is off. Parameters are float32
    and frozen.

    Attributes:
        W_enc: Encoder, (d_in, d_sae).
        b_enc: Encoder bias, (d_sae,).
        W_dec: Decoder, (d_sae, d_in).
        b_dec: Decoder bias, (d_in,).
        threshold: Thresholds, (d_sae,), of ``jumprelu`` and ``batchtopk``; else None.
        k: Latents on per row, of ``topk``; else None.
        kind: Activation function.
        site: Where it reads.
        d_in: Width of the site.
        d_sae: Number of latents.
        input_scale: What inputs are multiplied by.
        apply_b_dec_to_input: Whether the decoder bias is subtracted from the input.
        name: Where it came from, for reports.
        metadata: Facts kept in ``cfg.json`` (model, data, metrics).
    """

    threshold: Tensor | None

    def __init__(
        self,
        W_enc: Float[Tensor, "d m"],
        b_enc: Float[Tensor, " m"],
        W_dec: Float[Tensor, "m d"],
        b_dec: Float[Tensor, " d"],
        *,
        kind: SAEKind,
        site: str,
        threshold: Float[Tensor, " m"] | None = None,
        k: int | None = None,
        input_scale: float = 1.0,
        apply_b_dec_to_input: bool = True,
        name: str = "sae",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if kind not in get_args(SAEKind):
            raise ConfigError(f"unknown SAE kind {kind!r}; use one of {', '.join(get_args(SAEKind))}")
        d, m = W_enc.shape
        if W_dec.shape != (m, d) or b_enc.shape != (m,) or b_dec.shape != (d,):
            raise ConfigError(
                f"SAE shapes do not match: W_enc {tuple(W_enc.shape)}, b_enc {tuple(b_enc.shape)}, "
                f"W_dec {tuple(W_dec.shape)}, b_dec {tuple(b_dec.shape)}"
            )
        if (kind in ("jumprelu", "batchtopk")) != (threshold is not None):
            raise ConfigError(f"an SAE of kind {kind!r} {'needs' if threshold is None else 'takes no'} threshold")
        if threshold is not None and threshold.shape != (m,):
            raise ConfigError(f"threshold has shape {tuple(threshold.shape)}, expected ({m},)")
        if (kind == "topk") != (k is not None) or (k is not None and not 1 <= k <= m):
            raise ConfigError(f"kind {kind!r} with k={k}: topk needs 1 ≤ k ≤ {m}, other kinds no k")
        if not input_scale > 0:
            raise ConfigError(f"input_scale must be above 0, got {input_scale}")
        self.W_enc, self.b_enc = _frozen(W_enc), _frozen(b_enc)
        self.W_dec, self.b_dec = _frozen(W_dec), _frozen(b_dec)
        self.register_parameter("threshold", None if threshold is None else _frozen(threshold))
        self.kind: SAEKind = kind
        self.site = site
        self.k = k
        self.input_scale = float(input_scale)
        self.apply_b_dec_to_input = apply_b_dec_to_input
        self.name = name
        self.metadata = dict(metadata or {})

    @property
    def d_in(self) -> int:
        """Width of the activations it reads."""
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_enc.shape[1]

    def __repr__(self) -> str:
        k = f", k={self.k}" if self.k is not None else ""
        return f"SAE({self.name!r}, {self.kind}{k}, {self.d_in} → {self.d_sae} at {self.site!r})"

    def pre_activations(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n m"]:
        """``a`` before the activation function; has a gradient also where a latent is off."""
        if x.shape[-1] != self.d_in:
            raise DataError(
                f"{self.name} reads vectors of width {self.d_in} at {self.site!r}, but got width {x.shape[-1]}; "
                "capture the SAE's own site, or use an SAE made for this model"
            )
        u = x.to(self.W_enc.dtype) * self.input_scale
        if self.apply_b_dec_to_input:
            u = u - self.b_dec
        return u @ self.W_enc + self.b_enc

    def encode(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n m"]:
        """Latents ``z`` of activations ``x``."""
        return self.activate(self.pre_activations(x))

    def activate(self, a: Float[Tensor, "*n m"]) -> Float[Tensor, "*n m"]:
        """Latents of pre-activations."""
        if self.kind == "linear":
            return a
        if self.kind == "topk":
            assert self.k is not None
            values, index = torch.topk(a, self.k, dim=-1, sorted=False)
            return torch.zeros_like(a).scatter(-1, index, values.relu())
        if self.threshold is None:
            return a.relu()
        return a * ((a > self.threshold) & (a > 0))

    def decode(self, z: Float[Tensor, "*n m"]) -> Float[Tensor, "*n d"]:
        """Reconstruction of activations from latents."""
        return (z @ self.W_dec + self.b_dec) / self.input_scale

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Reconstruction of ``x``."""
        return self.decode(self.encode(x))

    def check_fits(self, model: HookedModel, site: str | None = None) -> None:
        """Say at once when this SAE cannot read ``model`` (at ``site``).

        It can tell another width, at sites whose width the model's shape says (residual stream, attention and MLP
        outputs, heads, neurons), and a site that the model does not have; not another model of the same width.

        Args:
            model: The opened model.
            site: The site wanted; default the SAE's own.

        Raises:
            ConfigError: If the SAE was made for another site or width.
            SiteError: If the model has no such site.
        """
        if site is not None and site != self.site:
            raise ConfigError(
                f"{self.name} reads {self.site!r}, not {site!r}; use that site, or train an SAE for {site!r}"
            )
        found = model.sites[self.site]
        width = _width(model, found.name) if model.is_language_model else None
        if width is not None and width != self.d_in:
            raise ConfigError(
                f"{self.name} reads vectors of width {self.d_in}, but {model.name} has width {width} at {self.site!r}; "
                "use an SAE made for this model"
            )


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().float().contiguous(), requires_grad=False)


def _width(model: HookedModel, site: str) -> int | None:
    """Features of a named site, or None where the model's shape does not say."""
    if site.endswith(".mlp.hook_post"):
        return model.lm.d_mlp
    if site.endswith(".attn.hook_z"):
        return model.lm.n_heads * model.lm.d_head
    return model.lm.d_model if _is_residual(site) else None


def _is_residual(site: str) -> bool:
    return site.rsplit(".", 1)[-1] in {
        "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "hook_embed"
    }  # fmt: skip
