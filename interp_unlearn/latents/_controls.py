"""Controls with the interface of an SAE: does the learned dictionary matter, or would any coordinates do?"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import DataError, generator
from interp_unlearn.latents._sae import SAE


def random_dictionary(
    d_in: int, d_sae: int, k: int, seed: int, site: str, *, center: Float[Tensor, " d"] | None = None
) -> SAE:
    """Random unit directions with a TopK encoder: size and sparsity of an SAE, nothing learned.

    Args:
        d_in: Width of the site.
        d_sae: Number of latents.
        k: Latents on per row.
        seed: Seed of the directions.
        site: Where it reads.
        center: Subtracted first (e.g. the mean activation, or the SAE's ``b_dec``); default the origin.
    """
    directions = torch.randn(d_sae, d_in, generator=generator(seed, "random dictionary", d_in, d_sae))
    directions = directions / directions.norm(dim=1, keepdim=True)
    centre = torch.zeros(d_in) if center is None else center
    zero = torch.zeros(d_sae)
    name = f"random dictionary {d_sae}"
    return SAE(directions.T, zero, directions, centre, kind="topk", k=k, site=site, name=name)


def pca_basis(
    activations: Float[Tensor, "n d"], site: str, *, components: int | None = None, massive_factor: float = 10.0
) -> SAE:
    """Principal components as a dictionary of non-negative latents.

    A space of d dimensions has at most d components, however wide the SAE it is compared with. Each component gives
    two latents, one per sign (``relu(±u·(x − mean))``), so ``2 * components`` latents; with all components the
    reconstruction is exact. Rows with a norm above ``massive_factor`` × the median are left out of the fit.

    Args:
        activations: Rows to fit, (n, d), n ≥ 2.
        site: Where they were captured.
        components: How many, largest variance first; default all that the rows determine.
        massive_factor: See above.
    """
    norms = activations.norm(dim=1)
    rows = activations[norms <= massive_factor * norms.median()].double()
    most = min(rows.shape[0] - 1, rows.shape[1])
    wanted = most if components is None else components
    if not 1 <= wanted <= most:
        raise DataError(
            f"{rows.shape[0]} rows of width {rows.shape[1]} have 1…{most} components; {wanted} were asked for"
        )
    mean = rows.mean(0)
    _, _, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    u = directions[:wanted].float()
    both = torch.cat([u, -u])
    zero = torch.zeros(2 * wanted)
    return SAE(both.T, zero, both, mean.float(), kind="relu", site=site, name=f"PCA basis {wanted}±")


def identity_basis(d_in: int, site: str) -> SAE:
    """The residual space itself: latents are the activations, signs included."""
    eye = torch.eye(d_in)
    return SAE(eye, torch.zeros(d_in), eye, torch.zeros(d_in), kind="linear", site=site, name="residual space")
