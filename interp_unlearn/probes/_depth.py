"""Depth: from which layer on is the answer readable? From tables of a lens before, after and (where it exists) gold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from interp_unlearn._core import Axis, DataError, Evidence, Labelled, numpy_rng
from interp_unlearn.probes._bootstrap import mean_interval
from interp_unlearn.probes._catalogue_reading import READING, evidence, missing
from interp_unlearn.probes._lens import lens_evidence

LensName = Literal["lens", "tuned_lens"]
SHALLOW = 8  # up to so many layers the first layer counts as it is
SHARE = 0.5
DRAWS = 200  # ways to take a wrong option for the answer
NEVER = 1.0


def first_depth(table: Labelled, *, hold: int | None = None) -> Float[np.ndarray, " n"]:
    """Depth at which each answer first outranks its options for ``hold`` read layers running.

    With many layers and few options a wrong answer is first at some layer by chance, hence a second layer in deep
    models; at the end of the model the layers that are left suffice.

    Args:
        table: From `read_lens` or `logit_lens`.
        hold: Layers in a row; default 2, and 1 where at most 8 layers were read.

    Returns:
        Layer over number of layers, 0 to 1; 1 is never; ``nan`` without options.
    """
    first = table.at(measure="top_option") == 0
    hold = _hold(table, hold)
    padded = np.concatenate([first, np.ones((len(first), hold - 1), dtype=bool)], 1)
    held = np.asarray(np.stack([padded[:, i : i + first.shape[1]] for i in range(hold)]).all(0))
    depth = _depth(held, table)
    depth[np.isnan(table.at(measure="top_option")).all(1)] = np.nan
    return depth


def half_depth(table: Labelled, original: Labelled, *, share: float = SHARE) -> Float[np.ndarray, " n"]:
    """Depth at which each answer's probability first reaches ``share`` of the original model's at its last layer.

    Args:
        table: From `read_lens` or `logit_lens`.
        original: The original model's table of the same prompts, the last layer included.
        share: Of the final probability.

    Returns:
        Layer over number of layers, 0 to 1; 1 is never.

    Raises:
        DataError: If the tables have different prompts.
    """
    if table.axes[0] != original.axes[0]:
        raise DataError("the lens tables have different prompts; use the same question set in each phase")
    wanted = original.at(measure="logprob")[:, -1:] + np.log(share)
    return _depth(table.at(measure="logprob") >= wanted, table)


def _hold(table: Labelled, hold: int | None) -> int:
    return hold if hold is not None else 1 if len(table.axes[1].labels) <= SHALLOW else 2


def _depth(reached: np.ndarray, table: Labelled) -> Float[np.ndarray, " n"]:
    layers = np.array([int(i) for i in table.axes[1].labels], dtype=np.float64)
    total = float(table.config.get("n_layers", layers[-1] + 1))
    return np.where(reached.any(1), layers[reached.argmax(1)] / total, NEVER)


def depth_evidence(
    target: Mapping[str, Labelled],
    neighbours: Mapping[str, Labelled] | None = None,
    *,
    part: LensName = "lens",
    where: str = "forget",
    hold: int | None = None,
    share: float = SHARE,
    seed: int = 0,
) -> list[Evidence]:
    """Is the answer readable at some layer, and from which depth on?

    Args:
        target: The target's tables by phase (``before``, ``after`` and perhaps ``gold``), over the same prompts.
        neighbours: The same of neighbours; None leaves the depths without a control.
        part: Which lens read them: ``"lens"`` or ``"tuned_lens"``.
        where: Last part of the names: the question set.
        hold: See `first_depth`.
        share: See `half_depth`.
        seed: Seed of draws and intervals.

    Returns:
        ``<part>.first``, ``<part>.depth``, ``<part>.half_depth`` and, for the tuned lens, ``<part>.margin``.

    Raises:
        DataError: If the tables have different prompts or layers.
    """
    before, after = target["before"], target["after"]
    if any(t.axes != after.axes for t in target.values()):
        raise DataError("the lens tables have different prompts or layers; use the same question set in each phase")
    policy = after.mask_policy
    kinds = [f"{part}.first", f"{part}.depth", f"{part}.half_depth"]
    out: list[Evidence] = []
    if not np.isfinite(after.at(measure="logprob")).all():
        reason = "the edited model's activations or logits are not finite; the model is broken"
        return [missing(kind, where, reason, mask_policy=policy) for kind in kinds]
    clusters = _clusters(after)
    if np.isnan(after.at(measure="top_option")).all():
        reason = "no prompt has wrong options to compare with"
        out += [missing(kind, where, reason, mask_policy=policy) for kind in kinds[:2]]
    else:
        out.append(_first(kinds[0], where, target, clusters, seed))
        depths = {phase: first_depth(table, hold=hold) for phase, table in target.items()}
        near = {phase: first_depth(table, hold=hold) for phase, table in (neighbours or {}).items()}
        out.append(_depths(kinds[1], where, depths, near, after, clusters, {"hold": _hold(after, hold)}, seed))
    depths = {phase: half_depth(table, before, share=share) for phase, table in target.items()}
    near = {} if neighbours is None else neighbours
    near = {phase: half_depth(table, near["before"], share=share) for phase, table in near.items()}
    out.append(_depths(kinds[2], where, depths, near, after, clusters, {"share": share}, seed))
    if part == "tuned_lens":
        margin = lens_evidence(before, after, where=where, gold=target.get("gold"), seed=seed)
        entry = READING["tuned_lens.margin"]
        name, words = f"tuned_lens.margin/{where}", entry.does_not_show
        out.append(replace(margin, name=name, question=entry.question, does_not_show=words, control_name=entry.control))
    return out


def _clusters(table: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """Fact (entity and relation) and template of each prompt."""
    parts = [name.split("|", 2) for name in table.axes[0].labels]
    return np.array(["|".join(p[:2]) for p in parts]), np.array([p[-1] for p in parts])


def _first(
    kind: str, where: str, target: Mapping[str, Labelled], clusters: tuple[np.ndarray, np.ndarray], seed: int
) -> Evidence:
    """The largest share over layers of answers that are first, against wrong options taken for answers."""
    after = target["after"]
    read = np.isfinite(after.at(measure="top_option")).all(1)
    top = {phase: table.at(measure="top_option")[read] for phase, table in target.items()}
    shares = {phase: (t == 0).mean(0) for phase, t in top.items()}
    best = int(shares["after"].argmax())
    options = np.array(after.config["options"])[read]
    rng = numpy_rng(seed, kind, where)
    drawn = 1 + (rng.random((DRAWS, len(options))) * options).astype(int)  # (draw, prompt)
    chance = (top["after"][None] == drawn[:, :, None]).mean(1).max(1)
    layers = after.axes[1]
    return evidence(
        kind,
        where,
        float(shares["after"][best]),
        n=int(read.sum()),
        mask_policy=after.mask_policy,
        interval=mean_interval(
            (top["after"][:, best] == 0).astype(float),
            tuple(c[read] for c in clusters),
            numpy_rng(seed, kind, where, "i"),
        ),
        control=float(chance.mean()),
        details={
            "layers": Labelled(
                "share of questions whose answer outranks its options",
                np.stack(list(shares.values())),
                (Axis("phase", tuple(shares)), layers),
                n=int(read.sum()),
                mask_policy=after.mask_policy,
            )
        },
        config={
            "layer": layers.labels[best],
            "last": float(shares["after"][-1]),
            "mean": float(shares["after"].mean()),
            "control_p95": float(np.quantile(chance, 0.95)),
            "before": float(shares["before"].max()),
            **({"gold": float(shares["gold"].max())} if "gold" in shares else {}),
        },
        seed=seed,
    )


def _depths(
    kind: str,
    where: str,
    depths: Mapping[str, np.ndarray],
    near: Mapping[str, np.ndarray],
    after: Labelled,
    clusters: tuple[np.ndarray, np.ndarray],
    settings: Mapping[str, object],
    seed: int,
) -> Evidence:
    """Mean depth over prompts, against neighbours in the same model."""
    read = np.isfinite(depths["after"])
    phases = tuple(depths)
    control = float(np.nanmean(near["after"])) if near and np.isfinite(near["after"]).any() else None
    config: dict[str, object] = {**settings, **{p: float(d[read].mean()) for p, d in depths.items() if p != "after"}}
    config["never"] = float((depths["after"][read] == NEVER).mean())
    if near:
        config |= {f"control_{p}": float(np.nanmean(d)) for p, d in near.items() if p != "after"}
    else:
        config["no_control"] = "no questions about neighbours were read"
    return evidence(
        kind,
        where,
        float(depths["after"][read].mean()),
        n=int(read.sum()),
        mask_policy=after.mask_policy,
        interval=mean_interval(depths["after"][read], tuple(c[read] for c in clusters), numpy_rng(seed, kind, where)),
        control=control,
        details={
            "prompts": Labelled(
                "depth at which the answer becomes readable",
                np.stack([depths[p][read] for p in phases]),
                (
                    Axis("phase", phases),
                    Axis("prompt", tuple(name for name, keep in zip(after.axes[0].labels, read, strict=True) if keep)),
                ),
                n=int(read.sum()),
                mask_policy=after.mask_policy,
                note="layer over number of layers; 1 is never",
            )
        },
        config=config,
        seed=seed,
    )
