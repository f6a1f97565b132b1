"""Coordinate systems in which the SAE-guided loss is measured: an SAE, or one of its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import HookedModel
from interp_unlearn.latents import identity_basis, pca_basis, random_dictionary

Basis = Literal["sae", "residual", "random", "pca"]


@dataclass(frozen=True)
class Space:
    """A frozen dictionary at a site.

    Attributes:
        site: Where it reads.
        dictionary: Follows the SAE protocol (``encode``, ``pre_activations``).
        straight_through: Let latents that are off receive the gradient of their pre-activation.
    """

    site: str
    dictionary: Any
    straight_through: bool = False

    def codes(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Latents of residual activations, with graph; the values are the dictionary's own either way."""
        z = self.dictionary.encode(h)
        if not self.straight_through or not z.requires_grad:
            return z
        a = self.dictionary.pre_activations(h)
        return z.detach() + a - a.detach()

    def pre(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Pre-activations, with graph."""
        return self.dictionary.pre_activations(h)


def sites_of(model: HookedModel, basis: Basis, layers: Sequence[int], saes: Mapping[str, Any]) -> list[str]:
    """Sites that the loss reads.

    Raises:
        ConfigError: If the basis needs an SAE that was not given, or neither layer nor SAE says where to read.
    """
    if basis != "sae" and layers:
        if max(layers) >= model.lm.n_layers:
            raise ConfigError(
                f"options.layers holds {max(layers)}, but {model.name} has blocks 0…{model.lm.n_layers - 1}"
            )
        if basis != "random":
            return [f"blocks.{layer}.hook_resid_post" for layer in layers]
    if not saes:
        fix = "; load one with load_sae" if basis in ("sae", "random") else ", or set options.layers"
        raise ConfigError(f"objective 'sae_guided' with basis {basis!r} needs an SAE: give sae=…{fix}")
    if layers:
        at = {model.sites[site].layer for site in saes}
        if set(layers) - at:
            raise ConfigError(
                f"options.layers is {list(layers)}, but the SAEs given sit at {', '.join(saes)}; leave it empty, or "
                "give an SAE for each layer"
            )
        return [site for site in saes if model.sites[site].layer in layers]
    return list(saes)


def check_sae(model: HookedModel, sae: Any) -> None:
    """Refuse an SAE of another width or site.

    Raises:
        ConfigError: With both widths.
        SiteError: If the model has no such site.
    """
    model.sites[sae.site]
    if sae.d_in != model.lm.d_model:
        raise ConfigError(
            f"the SAE reads vectors of width {sae.d_in}, but {model.name} has width {model.lm.d_model}; "
            "load an SAE that was trained on this model"
        )


def _mean_active(sae: Any, h: Float[Tensor, "n d"]) -> int:
    """How many latents of ``sae`` are on at a time."""
    return sae.k or max(1, round(float((sae.encode(h) > 0).float().sum(-1).mean())))


def make_spaces(
    sites: Sequence[str],
    basis: Basis,
    saes: Mapping[str, Any],
    activations: Mapping[str, Float[Tensor, "n d"]],
    *,
    seed: int,
    straight_through: bool,
) -> list[Space]:
    """One space per site.

    Args:
        sites: From `sites_of`.
        basis: The user's SAE, the residual stream itself, a random dictionary of the SAE's size, or principal
            components.
        saes: SAEs by site.
        activations: Original activations by site, for principal components and the random dictionary's scale.
        seed: Seed of the random dictionary.
        straight_through: See `Space`.
    """
    spaces = []
    for site in sites:
        d = activations[site].shape[-1]
        if basis == "sae":
            spaces.append(Space(site, saes[site], straight_through))
        elif basis == "residual":
            spaces.append(Space(site, identity_basis(d, site)))
        elif basis == "pca":
            spaces.append(Space(site, pca_basis(activations[site], site)))
        else:
            k = _mean_active(saes[site], activations[site])
            dictionary = random_dictionary(d, saes[site].d_sae, k, seed, site, center=activations[site].mean(0))
            spaces.append(Space(site, dictionary, straight_through))
    return spaces
