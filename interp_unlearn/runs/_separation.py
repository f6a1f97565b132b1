"""Which latents of the run's SAE mark known and unknown entities, chosen once, on the original model.

The references of the task choose (`latents.separation_scores`); latents that fire on arbitrary words of the world's
general text are left out, as in Ferrando et al. (arXiv 2411.14257). All runs on one target share the choice.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from interp_unlearn._core import Labelled
from interp_unlearn.hooked import Activations
from interp_unlearn.latents import SAE, generic_rate, separation_scores
from interp_unlearn.probes import rows_of
from interp_unlearn.runs._workbench import Workbench

NAME = "separation.before"
MIN_TEXTS = 50
"""Fewer texts cannot tell a rate of 2 %, the limit: then no latent is left out, and the table says so."""
MAX_TEXTS = 200


def separation_table(bench: Workbench, sae: SAE, before: Activations, seed: int) -> Labelled:
    """Scores of the latents that separate best (score, latent), for the run folder.

    Args:
        bench: The model, holding its original weights, and the task.
        sae: The run's SAE.
        before: Mention activations of the original model.
        seed: Decides the words on which generic latents are looked for.
    """
    rows = rows_of(before, sae.site, sae)
    known, unknown = (torch.from_numpy(rows.of(group).x).float() for group in ("known_ref", "unknown_ref"))
    texts = bench.task.text_train[:MAX_TEXTS]
    generic = generic_rate(sae, bench.model, texts, max_tokens=64, seed=seed) if len(texts) >= MIN_TEXTS else None
    types = [bench.task.type]
    scores = separation_scores(known, unknown, types * len(known), types * len(unknown), generic=generic)
    table = scores.to_labelled(mask_policy=before.mask_policy)
    found = {"generic_texts": len(texts) if generic is not None else 0, "site": sae.site}
    return replace(table, name=NAME, config={**table.config, **found})


def selected_latents(table: Labelled) -> dict[str, list[int]]:
    """``{"known": …, "unknown": …}``, best first, as `run_probes` takes them."""
    latents = [int(j) for j in table.axes[1].labels]
    out: dict[str, list[int]] = {}
    for row, side in enumerate(("known", "unknown")):
        scores = table.values[row]
        order = sorted((i for i in range(len(latents)) if scores[i] > 0), key=lambda i: -scores[i])
        out[side] = [latents[i] for i in order]
    return out
