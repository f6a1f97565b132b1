"""Patch-back as evidence: three visits to the models of a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from interp_unlearn._core import Axis, Evidence, Labelled, numpy_rng
from interp_unlearn.probes._forced import NO_NAME, Forced, forced, is_named, pick_prompts
from interp_unlearn.probes._parts import Found, Part, Progress, register_part
from interp_unlearn.probes._patch_back import (
    KINDS,
    UNKNOWN,
    PatchBackConfig,
    Share,
    all_finite,
    exchange,
    krs_curves,
    lost_share,
    passes,
    patch_controls,
    patch_states,
    restored_share,
    retrieval_score,
)
from interp_unlearn.probes._patch_catalogue import absent, found
from interp_unlearn.probes._patching import LOGPROB, ratio_interval, row_means
from interp_unlearn.probes._phases import AFTER, BEFORE, Phases
from interp_unlearn.probes._unknown import unknown_names

RESTORED, LOST, KRS = "patch_back.restored", "patch_back.lost", "patch_back.krs"


def patch_back_evidence(
    phases: Phases, config: PatchBackConfig | None = None, progress: Progress | None = None
) -> Found:
    """Where the answer returns, where it vanishes, and the KRS.

    Returns:
        ``patch_back.restored/<place>`` and ``patch_back.lost/<place>`` for each place, and ``patch_back.krs/both``.
    """
    config = config or PatchBackConfig()
    task = phases.task
    asked = task.forget_heldout.prompts or task.forget_train.prompts
    prompts = pick_prompts([p for p in asked if is_named(p)], config.max_prompts)
    if not prompts:
        return _all_absent(config, NO_NAME if asked else "the task asks nothing about the target", {})
    names = unknown_names(task, config.unknown, phases.seed)
    with phases.open(AFTER) as model:
        edited = patch_states(model, prompts, config)
        rows = forced(model, prompts)
        after = row_means(rows, edited[LOGPROB])
        n = model.lm.n_layers
    count = len(config.layers(n))
    done, total = 0, passes(config, n, 6 if names else 4) + 3 * count

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("putting states back", min(done, total), total)

    with phases.open(BEFORE) as model:
        original = patch_states(model, prompts, config)
        before = row_means(rows, original[LOGPROB])
        facts = {**asdict(config), "before": float(before.mean()), "after": float(after.mean()), "unknown_names": names}
        why = _why_not(before, after, config)
        if why:
            return _all_absent(config, why, facts)
        controls = patch_controls(model, prompts, names, config) if names else None
        vanishing = exchange(model, prompts, edited, controls, config, kinds=("block",), step=step)
    del edited
    with phases.open(AFTER) as model:
        returning = exchange(model, prompts, original, controls, config, step=step)
        errors = retrieval_score(model, prompts, original, config, step=step)
    out: list[Evidence] = []
    tables: dict[str, Labelled] = {}
    for kind, patched, share in (
        (RESTORED, returning, restored_share(returning, before.tolist())),
        (LOST, vanishing, lost_share(vanishing, after.tolist())),
    ):
        tables[kind] = _curves(kind, patched, share)
        out += [_evidence(kind, place, patched, share, rows, facts, phases.seed) for place in config.places]
    krs, table = _krs(errors, rows, facts, phases.seed)
    return Found((*out, krs), {**tables, KRS: table})


def _why_not(before: np.ndarray, after: np.ndarray, config: PatchBackConfig) -> str:
    if not all_finite(after):
        return "the edited model's answers have no finite probability; the model is broken"
    gap = float((before - after).mean())
    if gap < config.min_gap:
        return (
            f"the edited model lost {gap:.3f} nats per token of the answer, less than {config.min_gap}: "
            "there is nothing to bring back"
        )
    return ""


def _all_absent(config: PatchBackConfig, reason: str, facts: dict[str, Any]) -> Found:
    kinds = [(k, p) for k in (RESTORED, LOST) for p in config.places] + [(KRS, "both")]
    return Found(tuple(absent(kind, str(place), reason, config=facts) for kind, place in kinds))


def _curves(kind: str, patched: Labelled, share: Share) -> Labelled:
    what = "came back with the original's" if kind == RESTORED else "was lost with the edited model's"
    return Labelled(
        f"share of the answer that {what} states",
        share.curves,
        patched.axes[:3],
        n=patched.n,
        mask_policy=patched.mask_policy,
        config={"window": patched.config["window"]},
        note=f"of the log-probability between the two models; {UNKNOWN}: block outputs of unknown names, the control",
    )


def _evidence(
    kind: str, place: str, patched: Labelled, share: Share, rows: Forced, facts: dict[str, Any], seed: int
) -> Evidence:
    kinds, places, layers = (a.labels for a in patched.axes[:3])
    p = places.index(place)
    rng = numpy_rng(seed, kind, place)
    value, span = share.mean(kinds.index("block"), p, rows.clusters, rng)
    control = share.mean(kinds.index(UNKNOWN), p, rows.clusters, rng)[0] if UNKNOWN in kinds else None
    curve = share.curves[kinds.index("block"), p]
    half = [layer for layer, v in zip(layers, curve, strict=True) if v >= 0.5]
    table = _curves(kind, patched, share)
    details = Labelled(
        table.name,
        share.curves[:, p],
        (patched.axes[0], patched.axes[2]),
        n=table.n,
        mask_policy=place,
        note=table.note,
    )
    missing_kinds = [k for k in KINDS if k not in kinds] if kind == RESTORED else []
    return found(
        kind,
        place,
        value,
        n=len(rows),
        mask_policy=place,
        interval=span,
        control=control,
        details={"layers": details},
        config={
            **facts,
            "gap": float(share.gap.mean()),
            "first_half_layer": half[0] if half else None,
            "best_layer": layers[int(np.argmax(curve))],
            "best": float(curve.max()),
            "no_site_for": missing_kinds,
        },
        seed=seed,
    )


def _krs(errors: Labelled, rows: Forced, facts: dict[str, Any], seed: int) -> tuple[Evidence, Labelled]:
    curves = krs_curves(errors)
    table = Labelled(
        "KRS by window",
        curves,
        errors.axes[:2],
        n=errors.n,
        mask_policy=errors.mask_policy,
        config={k: v for k, v in errors.config.items() if k != "loss"},
        note="share of the change of the logits undone by the original's states in the window that ends at the layer",
    )
    parts = errors.axes[0].labels
    if "both" not in parts:
        return absent(KRS, "both", f"only {parts[0]} sites exist; see the table", config=facts), table
    if not np.isfinite(curves).all():
        return absent(KRS, "both", "the logits did not change, or are not finite", config=facts), table
    both = curves[parts.index("both")]
    best = int(both.argmax())
    loss = np.asarray(errors.config["loss"])
    span = ratio_interval(
        loss - errors.values[parts.index("both"), best], loss, rows.clusters, numpy_rng(seed, KRS, "both")
    )
    layers = errors.axes[1]
    config = {
        **facts,
        "window": errors.config["window"],
        "best_layer": layers.labels[best],
        **{f"best_{part}": float(curves[i].max()) for i, part in enumerate(parts)},
        "last_mlp": float(curves[parts.index("mlp"), -1]) if "mlp" in parts else None,
    }
    evidence = found(
        KRS,
        "both",
        float(both[best]),
        n=errors.n,
        mask_policy=errors.mask_policy,
        interval=span,
        control=float(np.median(both)),
        details={"layers": Labelled(table.name, curves, (Axis("part", parts), layers), errors.n, table.mask_policy)},
        config=config,
        seed=seed,
    )
    return evidence, table


def look(phases: Phases, progress: Progress) -> Found:
    """Patch-back with its defaults."""
    return patch_back_evidence(phases, PatchBackConfig(), progress)


register_part(Part("patch_back", "states put back into the edited model, and the other way", "probe", "standard", look))
