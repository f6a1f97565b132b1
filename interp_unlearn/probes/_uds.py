"""Unlearning depth score (UDS, arXiv 2605.24614): how empty of the fact are the edited model's states, block by block?

The original model F reads states of other models at the tokens that predict the answer. With ``s`` the mean
log-probability of the answer's tokens (nats per token), block by block::

    stage 1   d1_l = s_F - s_F(block l's output from the reference R)        which blocks matter
    stage 2   d2_l = s_F - s_F(block l's output from the edited model U)
    LER_l = clip(d2_l / d1_l, 0, 1)       UDS = Σ d1_l LER_l / Σ d1_l        over blocks with d1_l > threshold

U = F gives 0, U = R gives 1. R is gold. Where there is no gold, a variant takes the states of F itself on the same
question about unknown names (their mean); that variant is ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from interp_unlearn._core import Axis, ConfigError, Evidence, Labelled, config_hash, numpy_rng
from interp_unlearn.hooked import HookedModel
from interp_unlearn.probes._bootstrap import mean_interval
from interp_unlearn.probes._forced import NO_NAME, Forced, forced, is_named, pick_prompts
from interp_unlearn.probes._parts import Found, Part, Progress, register_part
from interp_unlearn.probes._patch_catalogue import absent, found
from interp_unlearn.probes._patching import (
    BLOCK,
    LOGPROB,
    Plan,
    chosen_layers,
    row_means,
    run_plans,
    site_of,
    states,
)
from interp_unlearn.probes._phases import AFTER, BEFORE, GOLD, Measured, Phases
from interp_unlearn.probes._unknown import unknown_names, unknown_states
from interp_unlearn.worlds import Prompt

Reference = Literal["gold", "unknown"]
KIND = "uds.score"
DEPTHS = 15
NO_LAYER = "no block holds the fact: replacing its output by the reference's never costs more than {} nats per token"


@dataclass(frozen=True)
class UDSConfig:
    """Options of the unlearning depth score.

    Attributes:
        threshold: A block holds the fact where stage 1 costs more than this, in nats per token (the paper's 0.05).
        stride: Patch every so many blocks, counted from the last; 0 gives at most 15 depths, 1 every block (the paper).
        max_prompts: Questions about the target, at most; one wording of every fact before a second one.
        max_neighbours: Questions about neighbours for the control, at most.
        unknown: Unknown names whose mean state is the reference where there is no gold.
        batch_size: Rows per pass.
    """

    threshold: float = 0.05
    stride: int = 0
    max_prompts: int = 8
    max_neighbours: int = 4
    unknown: int = 4
    batch_size: int = 16

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ConfigError(f"threshold is {self.threshold}; use a number of nats above 0, e.g. 0.05")
        if self.stride < 0:
            raise ConfigError(f"stride is {self.stride}; use 0 (automatic) or a number of blocks")
        for name in ("max_prompts", "max_neighbours", "unknown", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; use at least 1")

    def layers(self, n_layers: int) -> list[int]:
        """The blocks that are patched."""
        return chosen_layers(n_layers, self.stride, DEPTHS)


@dataclass(frozen=True)
class Depth:
    """Result of `unlearning_depth`.

    Attributes:
        scores: UDS of each row, (row,); NaN where no block holds the fact.
        layers: Axes (row, layer, measure): ``d1`` and ``d2`` in nats per token, ``ler`` (NaN where the block does not
            hold the fact).
        baseline: Mean log-probability of each row's answer tokens in the original model.
    """

    scores: Float[np.ndarray, " rows"]
    layers: Labelled
    baseline: Float[np.ndarray, " rows"]

    @property
    def value(self) -> float:
        """Mean over the rows that have a score; NaN where none has."""
        scored = self.scores[np.isfinite(self.scores)]
        return float(scored.mean()) if len(scored) else float("nan")

    def by_layer(self) -> Labelled:
        """LER of each block over the rows where it holds the fact, the share of rows where it does, and mean d1, d2."""
        ler = self.layers.at(measure="ler")
        holds = np.isfinite(ler)
        mean = np.where(holds.any(0), np.where(holds, ler, 0).sum(0) / np.maximum(holds.sum(0), 1), np.nan)
        d1, d2 = self.layers.at(measure="d1").mean(0), self.layers.at(measure="d2").mean(0)
        measures = Axis("measure", ("ler", "share", "d1", "d2"))
        return replace(
            self.layers,
            name="unlearning depth by block",
            values=np.stack([mean, holds.mean(0), d1, d2], 1),
            axes=(self.layers.axes[1], measures),
        )


def layer_erasure(
    d1: Float[np.ndarray, "rows layers"], d2: Float[np.ndarray, "rows layers"], threshold: float
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, "rows layers"]]:
    """UDS of each row and LER of each block (NaN where a block does not hold the fact), from both stages."""
    holds: Bool[np.ndarray, "rows layers"] = d1 > threshold
    with np.errstate(invalid="ignore", divide="ignore"):
        ler = np.where(holds, np.clip(d2 / d1, 0, 1), np.nan)
        weight = np.where(holds, d1, 0)
        score = np.nansum(weight * np.nan_to_num(ler), 1) / weight.sum(1)
    broken = holds & ~np.isfinite(d2)
    return np.where(broken.any(1), np.nan, score), np.where(broken, np.nan, ler)


def depth_states(model: HookedModel, rows: Forced, layers: Sequence[int], *, batch_size: int = 16) -> Measured:
    """Block outputs of ``model`` at the tokens that predict the answers: what `unlearning_depth` compares."""
    return states(model, rows, [site_of(i, BLOCK) for i in layers], "answer", batch_size=batch_size)


def removal(
    model: HookedModel,
    rows: Forced,
    given: Measured,
    layers: Sequence[int],
    *,
    batch_size: int = 16,
    step: Callable[[], None] | None = None,
) -> Measured:
    """Log-probabilities of the answers in ``model``, alone and with each block's output from ``given``.

    Returns:
        ``logprob``, (answer token,), and ``patched``, (layer, answer token), in nats.
    """
    plans = [Plan((site_of(i, BLOCK),), "answer", given, "answer") for i in layers]
    own = states(model, rows, [], "answer", batch_size=batch_size)
    return {**own, "patched": run_plans(model, rows, plans, batch_size=batch_size, step=step)}


def unlearning_depth(
    rows: Forced, stage1: Measured, stage2: Measured, layers: Sequence[int], threshold: float = 0.05
) -> Depth:
    """UDS from two results of `removal` on the original model.

    Args:
        rows: The rows of both.
        stage1: With the reference's states.
        stage2: With the edited model's states.
        layers: The blocks that were patched.
        threshold: See `UDSConfig`.
    """
    base = row_means(rows, stage1[LOGPROB])
    d1, d2 = (np.stack([base - row_means(rows, p) for p in s["patched"]], 1) for s in (stage1, stage2))
    scores, ler = layer_erasure(d1, d2, threshold)
    axes = (
        Axis("row", rows.labels),
        Axis("layer", tuple(str(i) for i in layers)),
        Axis("measure", ("d1", "d2", "ler")),
    )
    table = Labelled(
        "unlearning depth",
        np.stack([d1, d2, ler], -1),
        axes,
        n=len(rows),
        mask_policy="answer",
        config={"threshold": threshold},
        note="d1, d2: nats per answer token lost with the reference's and the edited model's block output; ler: d2/d1, "
        "clipped to 0…1, where d1 is above the threshold",
    )
    return Depth(scores, table, base)


# -- from phases ------------------------------------------------------------------------------------------------------


def uds_evidence(phases: Phases, config: UDSConfig | None = None, progress: Progress | None = None) -> Found:
    """The score against gold and against unknown entities, each with the neighbours' as its control.

    Returns:
        ``uds.score/gold`` and ``uds.score/unknown``, with per-example scores and LER by block in the details.
    """
    config = config or UDSConfig()
    task = phases.task
    asked = task.forget_heldout.prompts or task.forget_train.prompts
    named = [p for p in asked if is_named(p)]
    questions = {
        "target": pick_prompts(named or asked, config.max_prompts),
        "neighbours": pick_prompts([p for p in task.neighbours.prompts if is_named(p)], config.max_neighbours),
    }
    names = unknown_names(task, config.unknown, phases.seed)
    why = {
        "gold": "" if GOLD in phases.names else "there is no gold model",
        "unknown": NO_NAME if not named else "" if names else "the task has no unknown entities",
    }
    if not questions["target"]:
        why = dict.fromkeys(why, "the task asks nothing about the target")
    wanted: dict[str, tuple[str, Reference]] = {}
    if not why["gold"]:
        wanted["gold"] = ("target", "gold")
    if not why["unknown"]:
        wanted["unknown"] = ("target", "unknown")
    if wanted and names and questions["neighbours"]:
        wanted["neighbours"] = ("neighbours", "unknown")
    depths = _depths(phases, questions, wanted, names, config, progress) if wanted else {}
    control = depths.get("neighbours")
    out = [
        absent(KIND, reference, reason)
        if reason
        else _evidence(reference, depths[reference], control, names, config, phases.seed)
        for reference, reason in why.items()
    ]
    return Found(tuple(out), {f"uds.{name}": depth.by_layer() for name, (_, depth) in depths.items()})


def _depths(
    phases: Phases,
    questions: dict[str, list[Prompt]],
    wanted: dict[str, tuple[str, Reference]],
    names: list[str],
    config: UDSConfig,
    progress: Progress | None,
) -> dict[str, tuple[Forced, Depth]]:
    """Stage 1 is measured once for all edited models, stage 2 in one visit to each of two phases."""
    size = config.batch_size
    used = {which: questions[which] for which in dict.fromkeys(w for w, _ in wanted.values())}
    settings = {k: v for k, v in asdict(config).items() if k in ("stride", "unknown")}
    keys = {w: config_hash({"prompts": [p.full for p in prompts], **settings}) for w, prompts in used.items()}
    with phases.open(AFTER) as model:
        layers = config.layers(model.lm.n_layers)
        edited = {w: depth_states(model, forced(model, p), layers, batch_size=size) for w, p in used.items()}
    done, total = 0, len(layers) * (len(wanted) + len(used))

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("patching states into the original (UDS)", min(done, total), total)

    def reference_states(which: str, reference: Reference) -> Callable[[HookedModel], Measured]:
        if reference == "gold":
            measured = phases.once(
                GOLD,
                f"uds.states.{keys[which]}",
                lambda m: depth_states(m, forced(m, used[which]), layers, batch_size=size),
            )
            return lambda _m: measured
        sites = [site_of(i, BLOCK) for i in layers]
        return lambda m: unknown_states(m, used[which], names, sites, "answer", batch_size=size)

    stage1: dict[str, Measured] = {}
    for name, (which, reference) in wanted.items():
        given = reference_states(which, reference)

        def first(m: HookedModel, given: Callable[..., Measured] = given, which: str = which) -> Measured:
            return removal(m, forced(m, used[which]), given(m), layers, batch_size=size, step=step)

        stage1[name] = phases.once(BEFORE, f"uds.stage1.{reference}.{phases.seed}.{keys[which]}", first)
    with phases.open(BEFORE) as model:
        rows = {which: forced(model, prompts) for which, prompts in used.items()}
        stage2 = {
            which: removal(model, rows[which], edited[which], layers, batch_size=size, step=step) for which in used
        }
    return {
        name: (rows[which], unlearning_depth(rows[which], stage1[name], stage2[which], layers, config.threshold))
        for name, (which, _) in wanted.items()
    }


def _evidence(
    reference: str,
    measured: tuple[Forced, Depth],
    control: tuple[Forced, Depth] | None,
    names: list[str],
    config: UDSConfig,
    seed: int,
) -> Evidence:
    rows, depth = measured
    facts = {
        **asdict(config),
        "reference": reference,
        "unknown_names": names if reference == "unknown" else [],
        "baseline": float(depth.baseline.mean()),
        "rows_without_score": int(np.isnan(depth.scores).sum()),
        "control_rows": 0 if control is None else int(np.isfinite(control[1].scores).sum()),
    }
    if not np.isfinite(depth.layers.at(measure="d2")).all():
        return absent(KIND, reference, "the edited model's states are not finite; the model is broken", config=facts)
    scored = np.isfinite(depth.scores)
    if not scored.any():
        return absent(KIND, reference, NO_LAYER.format(config.threshold), config=facts)
    fact, template = (np.asarray(c)[scored] for c in rows.clusters)
    per_row = Labelled(
        "unlearning depth score",
        depth.scores,
        (Axis("row", rows.labels),),
        n=int(scored.sum()),
        mask_policy="answer",
        note="0: the edited model's states carry the fact like the original's; 1: as empty as the reference's; nan: "
        "no block of the original holds the fact",
    )
    span = mean_interval(depth.scores[scored], (fact, template), numpy_rng(seed, KIND, reference))
    neighbours = None if control is None or np.isnan(control[1].value) else control[1].value
    return found(
        KIND,
        reference,
        depth.value,
        n=int(scored.sum()),
        interval=span,
        control=neighbours,
        details={"scores": per_row, "layers": depth.by_layer()},
        config=facts,
        seed=seed,
    )


def look(phases: Phases, progress: Progress) -> Found:
    """UDS with its defaults."""
    return uds_evidence(phases, UDSConfig(), progress)


register_part(Part("uds", "unlearning depth by patching block outputs", "probe", "standard", look))
