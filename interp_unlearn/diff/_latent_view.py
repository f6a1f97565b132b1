"""Latents of the run's SAE for pictures: which changed, which mark known entities, and a dashboard of the first few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from interp_unlearn._core import DataError, Labelled, config_hash
from interp_unlearn.diff._latent_ranking import MEASURES, choose, latent_ranking
from interp_unlearn.hooked import HookedModel, text_windows, tokenize
from interp_unlearn.latents import SAE, TokenRows, direction_logits, encode_rows, read_token_rows
from interp_unlearn.latents._dashboard import density, histogram, top_contexts
from interp_unlearn.probes import Found, Measured, Part, Phases, pick_prompts, register_part
from interp_unlearn.probes._mentions import saved_mentions
from interp_unlearn.probes._parts import Progress
from interp_unlearn.probes._view import rounded, view_table
from interp_unlearn.worlds import Task

RANKING, CONTEXTS, HISTOGRAM, LOGITS = (
    "view.latents", "view.latent_contexts", "view.latent_histogram", "view.latent_logits",
)  # fmt: skip
ROWS, ROW_TOKENS, PROMPTS = 32, 32, 8
TOP, BINS, TOKENS = 6, 20, 8
SIDES = ("promoted", "suppressed")


def dashboard_rows(model: HookedModel, task: Task) -> list[tuple[str, list[int]]]:
    """Short rows of tokens with their source: held-out text, and questions with answers about target and neighbours.

    Raises:
        DataError: If there are none.
    """
    rows: list[tuple[str, list[int]]] = []
    if task.text_eval:
        windows = [w for w in text_windows(model, task.text_eval, _length(model)) if len(w) > 2]
        step = max(1, len(windows) // ROWS)
        rows += [("text", window) for window in windows[::step][:ROWS]]
    target = task.forget_heldout.prompts or task.forget_train.prompts
    for source, prompts in (("forget", target), ("neighbours", task.neighbours.prompts)):
        texts = [p.full for p in pick_prompts(prompts, PROMPTS)]
        if texts:
            batch = tokenize(model.tokenizer, texts, max_length=model.lm.n_ctx)
            rows += [(source, batch.tokens[i][batch.attended[i]].tolist()) for i in range(len(texts))]
    if not rows:
        raise DataError("there is no text and no question to look for a latent's contexts in")
    return rows


def _length(model: HookedModel) -> int:
    return ROW_TOKENS if model.lm.n_ctx is None else min(ROW_TOKENS, model.lm.n_ctx)


def dashboards(phases: Phases, progress: Progress) -> Found:
    """Ranking and dashboards of the run's main SAE, before and after."""
    sae = phases.saes.get("main")
    if sae is None:
        return Found(reason="the run has no SAE; name one in its config, under [latents], as sae")
    acts = {}
    for phase in phases.names:
        progress(f"reading mentions ({phase})", 0, 0)
        acts[phase] = saved_mentions(phases, phase, sae.site)
    ranking = latent_ranking(acts, sae.site, sae)
    kept, shown = choose(ranking)
    if not kept:
        return Found(reason="no latent of the SAE changed at the target's name, and none marks known entities")
    with phases.open("before") as model:
        rows = dashboard_rows(model, phases.task)
    read = {}
    for phase in ("before", "after"):
        progress(f"reading texts at the SAE's site ({phase})", 0, 0)
        read[phase] = _rows_of(phases, phase, sae.site, [ids for _, ids in rows])
    progress("making dashboards of latents", 0, 0)
    latents = {phase: encode_rows(sae, found, kept) for phase, found in read.items()}
    facts: dict[str, Any] = {"site": sae.site, "sae": sae.name, "latents_in_all": sae.d_sae}
    at = [kept.index(j) for j in shown]
    fired = {phase: z[..., at] for phase, z in latents.items()}
    words, logits = _words_and_logits(phases, sae, rows, shown)
    return Found(
        tables={
            RANKING: _ranking_table(ranking, kept, shown, latents, facts),
            CONTEXTS: _contexts(fired, shown, rows, words, facts),
            HISTOGRAM: _histograms(fired, shown, facts),
            LOGITS: _logits(logits, words, shown, facts),
        }
    )


def _rows_of(phases: Phases, phase: str, site: str, ids: Sequence[Sequence[int]]) -> TokenRows:
    def read(model: HookedModel) -> Measured:
        return read_token_rows(model, site, ids).tensors()

    found = phases.once(phase, f"view-latents-{config_hash([site, [list(row) for row in ids]])}", read)
    return TokenRows(found["hidden"], found["tokens"], found["counts"])


Logits = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def _words_and_logits(
    phases: Phases, sae: SAE, rows: Sequence[tuple[str, list[int]]], shown: Sequence[int]
) -> tuple[dict[int, str], Logits]:
    """What each decoder direction promotes in each phase, and the texts of all token ids that are shown."""
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    words: dict[int, str] = {}
    for phase in ("before", "after"):
        with phases.open(phase) as model:
            found[phase] = direction_logits(model, sae.W_dec[list(shown)], TOKENS)
            ids = {*found[phase][1].flatten().tolist(), *(i for _, row in rows for i in row)}
            words |= {i: model.tokenizer.decode([i]) for i in ids if i not in words}
    return words, found


def _ranking_table(
    ranking: Labelled,
    kept: Sequence[int],
    shown: Sequence[int],
    latents: Mapping[str, np.ndarray],
    facts: Mapping[str, Any],
) -> Labelled:
    columns = [ranking.values[list(kept)], *(density(z)[:, None] for z in latents.values())]
    return view_table(
        ranking.name,
        np.concatenate(columns, 1),
        {"latent": kept, "measure": (*MEASURES, *(f"density_{phase}" for phase in latents))},
        n=ranking.n,
        mask_policy=ranking.mask_policy,
        config={**facts, "rows": ranking.config["rows"], "dashboards": [str(j) for j in shown]},
        note=ranking.note,
    )


def _contexts(
    fired: Mapping[str, np.ndarray],
    shown: Sequence[int],
    rows: Sequence[tuple[str, list[int]]],
    words: Mapping[int, str],
    facts: Mapping[str, Any],
) -> Labelled:
    width = max(len(ids) for _, ids in rows)
    values = np.full((len(shown), TOP, len(fired), width), np.nan)
    used: dict[int, int] = {}
    places: list[list[int | None]] = []
    for j in range(len(shown)):
        chosen = top_contexts({phase: z[..., j] for phase, z in fired.items()}, TOP)
        for place, row in enumerate(chosen):
            used.setdefault(row, len(used))
            values[j, place] = np.stack([z[row, :width, j] for z in fired.values()])
        places.append([used[row] for row in chosen] + [None] * (TOP - len(chosen)))
    texts = [{"source": rows[i][0], "tokens": [words[token] for token in rows[i][1]]} for i in used]
    return view_table(
        "activation of latents, token by token",
        values,
        {"latent": shown, "context": range(TOP), "phase": tuple(fired), "position": range(width)},
        n=len(rows),
        mask_policy="inner",
        config={**facts, "rows": texts, "row": places},
        note=f"the {TOP} rows of {len(rows)} where each latent fires most in either phase; first tokens are left out",
    )


def _histograms(fired: Mapping[str, np.ndarray], shown: Sequence[int], facts: Mapping[str, Any]) -> Labelled:
    counts, edges, times = [], [], []
    for j in range(len(shown)):
        found, limits = histogram({phase: z[..., j] for phase, z in fired.items()}, BINS)
        counts.append(found)
        edges.append(rounded(limits).tolist())
        times.append(found.sum(1).astype(int).tolist())
    tokens = int(np.isfinite(next(iter(fired.values()))[..., 0]).sum())
    return view_table(
        "tokens by activation of a latent",
        np.stack(counts),
        {"latent": shown, "phase": tuple(fired), "bin": range(BINS)},
        n=tokens,
        mask_policy="inner",
        config={**facts, "edges": edges, "fired": times, "tokens": tokens},
        note="only tokens where it fires",
    )


def _logits(logits: Logits, words: Mapping[int, str], shown: Sequence[int], facts: Mapping[str, Any]) -> Labelled:
    values = torch.stack([found for found, _ in logits.values()], 1)
    ids = torch.stack([found for _, found in logits.values()], 1).tolist()
    tokens = [[[[words[i] for i in side] for side in phase] for phase in latent] for latent in ids]
    return view_table(
        "logits of a latent's direction",
        values.double().numpy(),
        {"latent": shown, "phase": tuple(logits), "side": SIDES, "place": range(values.shape[-1])},
        n=1,
        mask_policy="-",
        config={**facts, "tokens": tokens},
        note="decoder direction through the final norm and head, less the mean over the vocabulary",
    )


register_part(Part("latents", "SAE latents that changed, with dashboards, for pictures", "view", "quick", dashboards))
