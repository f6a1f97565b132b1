"""What an attribution is of, and how much memory it may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from interp_unlearn._core import ConfigError, check_choice

Method = Literal["gradient_activation", "integrated_gradients", "attribution_patching"]
Rule = Literal["midpoint", "gauss", "left", "right", "ends"]
Target = Literal["probability", "logprob", "mean_logprob"]
Aggregate = Literal["max", "sum", "mean", "abs_sum", "last"]
Layers = Literal["each", "joint"]
Tokens = Literal["content", "all", "inner", "prompt", "last"]


@dataclass(frozen=True)
class AttributionConfig:
    """Options of `attribute`.

    Attributes:
        method: ``gradient_activation``: ``h dT/dh``, one forward and backward for all layers. ``integrated_gradients``:
            ``(h - b) ∫ dT/dh`` along ``b + a (h - b)``, ``b`` being zero or the activations of corrupted prompts.
            ``attribution_patching``: ``(h - b) dT/dh`` at ``h`` for corrupted prompts.
        target: ``T``: probability of the whole answer (product over its tokens), its log, or the log per token.
        tokens: Positions whose activations count (are scaled and aggregated): ``content`` (no special tokens),
            ``all``, ``inner`` (also without the first), ``prompt`` (content tokens before the answer), ``last`` (the
            last prompt token only, as in the knowledge-neuron papers; the tokens before it are then run only once).
        aggregate: How positions become one number per neuron: the largest value (sign kept), sum, mean, sum of
            absolute values, or the value at the last prompt token.
        rule: Points of the integral: ``midpoint`` (error falls with the square of the steps), ``gauss`` (Gauss and
            Legendre's: exact for polynomials of degree ``2m - 1``, so few points do), ``left`` (``k/m`` from 0),
            ``right`` (``k/m`` up to 1), ``ends`` (both ends, each with weight ``1/m``, as a published package does:
            it over-counts one end).
        steps: Points ``m`` of the integral.
        layers: ``each``: every layer has an integral of its own. ``joint``: all layers are scaled at once, at 1/L of
            the cost; each layer's values are then fed in as fixed inputs, which is another quantity.
        site: Site of the neurons inside each block, or any site name with ``{layer}`` in it.
        max_tokens: Largest number of tokens in one forward and backward pass; steps and prompts are split to fit it.
        completeness_prompts: Number of prompts, from the first, whose completeness gap is measured (one forward per
            layer each). None: all for integrated gradients, four otherwise. 0: none.
    """

    method: Method = "gradient_activation"
    target: Target = "probability"
    tokens: Tokens = "content"
    aggregate: Aggregate = "max"
    rule: Rule = "midpoint"
    steps: int = 8
    layers: Layers = "each"
    site: str = "mlp.hook_post"
    max_tokens: int = 1024
    completeness_prompts: int | None = None

    def __post_init__(self) -> None:
        kinds = {"method": Method, "target": Target, "tokens": Tokens, "aggregate": Aggregate, "rule": Rule}
        for name, kind in {**kinds, "layers": Layers}.items():
            check_choice(name, getattr(self, name), kind)
        if self.layers == "joint" and self.method != "integrated_gradients":
            raise ConfigError("layers='joint' is a path of integrated gradients; set method='integrated_gradients'")
        if self.steps < 1 or (self.rule == "ends" and self.steps < 2):
            least = 2 if self.rule == "ends" else 1
            raise ConfigError(f"steps is {self.steps}; use at least {least} with rule={self.rule!r}")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}; use at least the length of one prompt, e.g. 1024")
        if self.completeness_prompts is not None and self.completeness_prompts < 0:
            raise ConfigError(
                f"completeness_prompts is {self.completeness_prompts}; use None, 0 or a number of prompts"
            )

    def points(self) -> tuple[tuple[float, float], ...]:
        """Place on the path (0 baseline, 1 clean) and weight of each point of the integral."""
        m = self.steps
        if self.method != "integrated_gradients":
            return ((1.0, 1.0),)
        if self.rule == "gauss":
            places, weights = np.polynomial.legendre.leggauss(m)
            return tuple((float(p + 1) / 2, float(w) / 2) for p, w in zip(places, weights, strict=True))
        if self.rule == "ends":
            return tuple((k / (m - 1), 1 / m) for k in range(m))
        shift = {"midpoint": 0.5, "left": 0.0, "right": 1.0}[self.rule]
        return tuple(((k + shift) / m, 1 / m) for k in range(m))

    def sites(self, n_layers: int) -> tuple[str, ...]:
        """The site of each layer."""
        if "{layer}" in self.site:
            return tuple(self.site.replace("{layer}", str(i)) for i in range(n_layers))
        return tuple(f"blocks.{i}.{self.site}" for i in range(n_layers))
