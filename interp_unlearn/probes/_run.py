"""The standard set of evidence of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

import numpy as np
from threadpoolctl import threadpool_limits
from torch import Tensor

from interp_unlearn._core import Evidence
from interp_unlearn.hooked import Activations
from interp_unlearn.probes._alignment import alignment, alignment_by_layer
from interp_unlearn.probes._firing import firing
from interp_unlearn.probes._health import norm_ratio, sae_health
from interp_unlearn.probes._known_unknown import known_unknown_probe
from interp_unlearn.probes._rows import Dictionary
from interp_unlearn.probes._two_sample import indistinguishability


def run_probes(
    before: Activations,
    after: Activations,
    *,
    site: str,
    sae: Dictionary | None = None,
    second_sae: Dictionary | None = None,
    selected: Mapping[str, Sequence[int] | np.ndarray | Tensor] | None = None,
    gold: Activations | None = None,
    layers: Sequence[str] | None = None,
    probe_sites: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Evidence]:
    """Every evidence that activations alone can give: in residual space, in the SAE, in a second SAE, and by layer.

    Args:
        before: Mention activations of the original model.
        after: The same rows in the edited model.
        site: Main site, usually the SAE's.
        sae: The SAE; None leaves out what needs one.
        second_sae: Another SAE (other seed, width or site), since a method must not be judged in its own SAE alone.
        selected: ``{"known": indices, "unknown": indices}`` of ``sae``'s latents for the firing table; default the ones
            that separate the references best.
        gold: The same rows in a model that never knew the target.
        layers: Sites of the layer curves in order of depth; default all captured sites of the main site's kind.
        probe_sites: Sites of the probe's curve; default every third of ``layers``.
        seed: Seed of everything random.

    Returns:
        Evidence with the names listed in the package's docstring.
    """
    layers = list(layers) if layers is not None else same_kind(before.sites, site)
    probe_sites = list(probe_sites) if probe_sites is not None else layers[::3]
    # One thread: the matrices are small, and results then do not depend on the number of cores. The limit only reaches
    # libraries that are loaded, so scikit-learn comes first.
    import_module("sklearn.linear_model")
    with threadpool_limits(limits=1, user_api="blas"):
        out = alignment(before, after, site, gold=gold, seed=seed)
        out += alignment_by_layer(before, after, layers, gold=gold, seed=seed)
        out += indistinguishability(before, after, site, gold=gold, seed=seed)
        out.append(norm_ratio(before, after, site, seed=seed))
        out += known_unknown_probe(before, after, site, sites=probe_sites, gold=gold, seed=seed)
        for basis, dictionary in (("sae", sae), ("sae2", second_sae)):
            if dictionary is None:
                continue
            where = site if basis == "sae" else str(getattr(dictionary, "site", "") or site)
            chosen = selected if selected is not None and basis == "sae" else {}
            out += alignment(before, after, where, dictionary, basis=basis, seed=seed)
            out += indistinguishability(before, after, where, dictionary, basis=basis, seed=seed)
            out += firing(
                before, after, where, dictionary, chosen.get("known"), chosen.get("unknown"), basis=basis, seed=seed
            )
            out += sae_health(before, after, where, dictionary, basis=basis, seed=seed)
    return out


def same_kind(sites: Sequence[str], site: str) -> list[str]:
    """Captured sites that are the same place in other blocks, e.g. every ``hook_resid_post``; else just ``site``."""
    kind = site.rsplit(".", 1)[-1] if site.startswith("blocks.") else None
    found = [s for s in sites if kind and s.startswith("blocks.") and s.split(".", 2)[-1] == site.split(".", 2)[-1]]
    return found or [site]
