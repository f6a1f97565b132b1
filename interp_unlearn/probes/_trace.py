"""Causal tracing (Meng et al., 2022, arXiv 2202.05262) of the target's tokens: which states bring the answer?

Noise on the embeddings of the name's tokens destroys the answer; then the clean output of one block at one place is put
back. The noise is normal, with ``noise`` times the standard deviation of the embedding matrix, the same in every model.
With ``s`` the log-probability of the answer (nats per token), rows and noise draws summed::

    total    = s(clean) - s(noised)
    indirect = (s(noised, one clean state) - s(noised)) / total
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import Axis, ConfigError, Evidence, Labelled, generator, numpy_rng
from interp_unlearn.hooked import Edit, HookedModel
from interp_unlearn.probes._bootstrap import mean_interval
from interp_unlearn.probes._forced import NO_NAME, Forced, Place, forced, is_named, pick_prompts
from interp_unlearn.probes._parts import Found, Part, Progress, register_part
from interp_unlearn.probes._patch_back import PatchBackConfig, Share, all_finite
from interp_unlearn.probes._patch_catalogue import absent, found
from interp_unlearn.probes._patching import BLOCK, LOGPROB, Plan, row_means, run_plans, site_of, states
from interp_unlearn.probes._phases import AFTER, BEFORE, GOLD, Phases
from interp_unlearn.worlds import Prompt

TOTAL, INDIRECT = "trace.total", "trace.indirect"
EMBED = "hook_embed"
EMBEDDED = 4096  # tokens embedded at once


@dataclass(frozen=True)
class TraceConfig:
    """Options of causal tracing.

    Attributes:
        places: Where clean states are put back, see `PLACES`.
        noise: Standard deviation of the noise, in standard deviations of the embedding matrix (3 in the paper).
        draws: Noise draws per prompt.
        stride: Restore every so many blocks, counted from the last; 0 gives at most 8 depths.
        max_prompts: Questions about the target, at most.
        min_total: Smallest total effect, in nats per token, that shares are taken of.
        batch_size: Rows per pass.
        seed: Seed of the noise.
    """

    places: tuple[Place, ...] = ("name", "name_end", "prompt_end")
    noise: float = 3.0
    draws: int = 4
    stride: int = 0
    max_prompts: int = 4
    min_total: float = 0.1
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for place in self.places:
            if place not in get_args(Place):
                raise ConfigError(f"unknown place {place!r}; use some of {', '.join(get_args(Place))}")
        if not self.noise > 0 or not self.min_total > 0:
            raise ConfigError(f"noise is {self.noise} and min_total {self.min_total}; use numbers above 0")
        for name in ("draws", "max_prompts", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; use at least 1")

    def layers(self, n_layers: int) -> list[int]:
        """The blocks whose outputs are restored."""
        return PatchBackConfig(stride=self.stride).layers(n_layers)


@torch.no_grad()
def embedding_std(model: HookedModel) -> float:
    """Standard deviation of all entries of the token embeddings, as the embedding module gives them (Gemma scales)."""
    module = model.submodule(model.lm.embed)
    n, total, squares = 0, 0.0, 0.0
    for ids in torch.arange(model.lm.d_vocab, device=model.device).split(EMBEDDED):
        values = module(ids[None]).double()
        n, total, squares = n + values.numel(), total + float(values.sum()), squares + float(values.square().sum())
    return max((squares - total**2 / n) / (n - 1), 0.0) ** 0.5


def causal_trace(
    model: HookedModel,
    prompts: Sequence[Prompt],
    config: TraceConfig | None = None,
    *,
    scale: float | None = None,
    step: Callable[[], None] | None = None,
) -> Labelled:
    """Log-probability of the answers: clean, with noise on the name, and with one clean state put back.

    Args:
        model: A language model.
        prompts: The questions.
        config: Options.
        scale: Standard deviation of the embeddings; give the original's to compare models; default the model's own.
        step: Called after every pass.

    Returns:
        Axes (place, layer, row) in nats per answer token, mean over noise draws. ``config["clean"]`` and
        ``config["noised"]`` have the rows' values without a patch.
    """
    config = config or TraceConfig()
    rows = forced(model, prompts)
    layers = config.layers(model.lm.n_layers)
    scale = embedding_std(model) if scale is None else scale
    sites = [site_of(i, BLOCK) for i in layers]
    clean = states(model, rows, sites, "all", batch_size=config.batch_size)
    width = model.lm.d_model
    noised = np.zeros(len(rows))
    patched = np.zeros((len(config.places) * len(layers), len(rows)))
    plans = [Plan((site,), place, clean, "all") for place in config.places for site in sites]
    for draw in range(config.draws):
        base = _noise(rows, width, config.noise * scale, config.seed, draw)
        for index, part in rows.chunks(config.batch_size):
            edits = base(part, index)
            noised[index] += row_means(part, states(model, part, [], edits=edits)[LOGPROB])
        values = run_plans(model, rows, plans, base=base, batch_size=config.batch_size, step=step)
        patched += np.stack([row_means(rows, p) for p in values])
    return Labelled(
        "log-probability of the answer with one clean state under noise",
        patched.reshape(len(config.places), len(layers), len(rows)) / config.draws,
        (Axis("place", config.places), Axis("layer", tuple(str(i) for i in layers)), Axis("row", rows.labels)),
        n=len(rows),
        mask_policy="answer",
        config={
            "clean": row_means(rows, clean[LOGPROB]).tolist(),
            "noised": (noised / config.draws).tolist(),
            "std": scale,
            "noise": config.noise,
            "draws": config.draws,
        },
        seed=config.seed,
        note="nats per answer token, mean over noise draws",
    )


def _noise(rows: Forced, width: int, scale: float, seed: int, draw: int) -> Callable[[Forced, slice], Sequence[Edit]]:
    """Noise for the name's tokens of each row: it depends on the row's place, not on the batch or the model."""
    at = rows.at("name")
    values = torch.randn(int(at.sum()), width, generator=generator(seed, "causal tracing", draw)) * scale
    counts = at.sum(1).cpu()

    def edits(part: Forced, index: slice) -> Sequence[Edit]:
        start = int(counts[: index.start].sum())
        mask = part.at("name")
        mine = values[start : start + int(mask.sum())]

        def change(x: Tensor) -> Tensor:
            out = x.clone()
            out[mask.to(x.device)] += mine.to(x.device, x.dtype)
            return out

        return [Edit(EMBED, change, "noise on the name")]

    return edits


def indirect_share(traced: Labelled) -> Share:
    """Share of the answer taken away by noise that one block's clean states bring back, axes (1, place, layer, row)."""
    clean, noised = (np.asarray(traced.config[k]) for k in ("clean", "noised"))
    top, gap = (traced.values - noised)[None], clean - noised
    with np.errstate(invalid="ignore", divide="ignore"):
        return Share(top.sum(-1) / gap.sum(), top, gap)


def trace_evidence(phases: Phases, config: TraceConfig | None = None, progress: Progress | None = None) -> Found:
    """Causal tracing of the edited model against the original (and gold).

    Returns:
        ``trace.total/name`` and ``trace.indirect/<place>`` for each place.
    """
    config = config or TraceConfig(seed=phases.seed)
    task = phases.task
    asked = task.forget_heldout.prompts or task.forget_train.prompts
    prompts = pick_prompts([p for p in asked if is_named(p)], config.max_prompts)
    if not prompts:
        return _all_absent(config, NO_NAME if asked else "the task asks nothing about the target", {})
    scale = float(phases.once(BEFORE, "trace.std", lambda m: {"std": torch.tensor(embedding_std(m))})["std"])
    traced: dict[str, Labelled] = {}
    rows: Forced | None = None
    done, total = 0, 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("causal tracing", min(done, total), total)

    for phase in (p for p in (BEFORE, AFTER, GOLD) if p in phases.names):
        with phases.open(phase) as model:
            rows = forced(model, prompts)
            count = len(config.layers(model.lm.n_layers)) * len(config.places) * config.draws
            total = len(phases.names) * count * -(-len(rows) // config.batch_size)
            traced[phase] = causal_trace(model, prompts, config, scale=scale, step=step)
    assert rows is not None
    tables = {f"trace.{phase}": _curves(t) for phase, t in traced.items()}
    totals = {p: np.asarray(t.config["clean"]) - np.asarray(t.config["noised"]) for p, t in traced.items()}
    facts: dict[str, Any] = {**asdict(config), "std": scale, "totals": {p: float(v.mean()) for p, v in totals.items()}}
    if not all_finite(totals[AFTER]):
        return _all_absent(config, "the edited model's answers have no finite probability; the model is broken", facts)
    clusters = (np.asarray(rows.facts), np.asarray(rows.templates))
    out = [
        found(
            TOTAL,
            "name",
            float(totals[AFTER].mean()),
            n=len(rows),
            interval=mean_interval(totals[AFTER], clusters, numpy_rng(phases.seed, TOTAL)),
            control=float(totals[BEFORE].mean()),
            config=facts,
            seed=config.seed,
        )
    ]
    out += [_indirect(place, traced, rows, facts, config) for place in config.places]
    return Found(tuple(out), tables)


def _curves(traced: Labelled) -> Labelled:
    return Labelled(
        "share of the answer brought back by one block's clean states",
        indirect_share(traced).curves[0],
        traced.axes[:2],
        n=traced.n,
        mask_policy=traced.mask_policy,
        config={k: traced.config[k] for k in ("std", "noise", "draws")},
        seed=traced.seed,
        note="of the log-probability that noise on the name takes away",
    )


def _indirect(
    place: Place, traced: dict[str, Labelled], rows: Forced, facts: dict[str, Any], config: TraceConfig
) -> Evidence:
    shares = {phase: indirect_share(t) for phase, t in traced.items()}
    small = [p for p in (BEFORE, AFTER) if not shares[p].gap.mean() >= config.min_total]
    if small:
        who = "original" if small[0] == BEFORE else "edited model"
        return absent(
            INDIRECT,
            place,
            f"noise on the name costs the {who} {shares[small[0]].gap.mean():.3f} nats per token, less than "
            f"{config.min_total}: there is no effect to trace",
            config=facts,
        )
    p = config.places.index(place)
    value, span = shares[AFTER].mean(0, p, rows.clusters, numpy_rng(config.seed, INDIRECT, place))
    means = {k: float(np.clip(s.curves[0, p], 0, 1).mean()) for k, s in shares.items()}
    layers = traced[AFTER].axes[1]
    table = Labelled(
        "share of the answer brought back by one block's clean states",
        np.stack([s.curves[0, p] for s in shares.values()]),
        (Axis("phase", tuple(shares)), layers),
        n=len(rows),
        mask_policy=place,
        seed=config.seed,
    )
    peaks = {f"peak_{k}": layers.labels[int(np.argmax(s.curves[0, p]))] for k, s in shares.items()}
    return found(
        INDIRECT,
        place,
        value,
        n=len(rows),
        mask_policy=place,
        interval=span,
        control=means[BEFORE],
        details={"layers": table},
        config={**facts, **peaks, **({"gold": means[GOLD]} if GOLD in means else {})},
        seed=config.seed,
    )


def _all_absent(config: TraceConfig, reason: str, facts: dict[str, Any]) -> Found:
    kinds = [(TOTAL, "name"), *((INDIRECT, str(p)) for p in config.places)]
    return Found(tuple(absent(kind, where, reason, config=facts) for kind, where in kinds))


def look(phases: Phases, progress: Progress) -> Found:
    """Causal tracing with its defaults."""
    return trace_evidence(phases, TraceConfig(seed=phases.seed), progress)


register_part(Part("trace", "causal tracing of the target's name", "probe", "full", look))
