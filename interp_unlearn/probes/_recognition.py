"""Known or unknown, at every layer: what does a readout of recognition say when the target is asked about?

`known_unknown_probe` reads mentions, splitting by entity; this reads questions, at the name or where the answer begins,
with no entity and no template on both sides of a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interp_unlearn._core import Axis, Evidence, Labelled, numpy_rng
from interp_unlearn.hooked import Activations
from interp_unlearn.probes._bootstrap import balanced_interval, balanced_mean, bootstrap_means, interval, mean_interval
from interp_unlearn.probes._catalogue_reading import evidence, missing
from interp_unlearn.probes._readout import PENALTY, Folds, Readout, centred, fit_readout
from interp_unlearn.probes._rows import GROUPS, Rows, check_pair, rows_of, why_missing

KINDS = ("recognition.accuracy", "recognition.unknown", "recognition.fresh_unknown")
MIN_ENTITIES = 8
NO_LAYER = (
    "at no layer does the readout tell known from unknown entities that it was not trained on better than its control "
    "task, so that its word on the target would mean nothing"
)


@dataclass(frozen=True)
class _Site:
    """Calls at one site: 1 where a row is called unknown.

    Attributes:
        right: Whether each known and unknown entity's row was called rightly when held out (original model).
        control: The same on the control task's labels.
        called: For each phase and readout (``original`` or ``fresh``), the call of every row; known and unknown rows
            when their entity and template were held out, the target's when their template was.
    """

    right: np.ndarray
    control: np.ndarray
    called: Mapping[tuple[str, str], np.ndarray]


def recognition_probe(
    before: Activations,
    after: Activations,
    sites: Sequence[str] | None = None,
    *,
    gold: Activations | None = None,
    where: str = "prompt",
    penalty: float = PENALTY,
    seed: int = 0,
) -> list[Evidence]:
    """Fit a ridge classifier of known against unknown entities at every site; ask it about the target.

    Each template's mean over all other entities of the same model is removed first.

    Args:
        before: Rows of the original model with labels ``group``, ``entity`` and ``template``.
        after: The same rows in the edited model.
        sites: Sites in order of depth; default all captured ones.
        gold: The same rows in a model that never knew the target, read by a classifier of its own.
        where: Last part of the evidence names.
        penalty: Ridge penalty, see `fit_readout`.
        seed: Seed of folds, control task and intervals.

    Returns:
        ``recognition.accuracy``, ``recognition.unknown`` and ``recognition.fresh_unknown``; the latter two are means
        over the sites where the classifier beats its control task. Details of the first: ``layers``, axes
        (site, reading).
    """
    sites, policy = list(sites or before.sites), before.mask_policy
    everyone = {"before": before, "after": after} | ({} if gold is None else {"gold": gold})
    reason = ""
    for site in sites:
        check_pair(before, after, site)
        phases = {phase: rows_of(a, site) for phase, a in everyone.items()}
        reason = reason or why_missing(phases, GROUPS) or _too_few(phases["before"])
    if reason:
        return [missing(kind, where, reason, mask_policy=policy) for kind in KINDS]
    labels = rows_of(before, sites[0])
    is_target = labels.group == "target"
    unknown = np.char.startswith(labels.group, "unknown").astype(np.float64)
    rng = numpy_rng(seed, "recognition folds")
    relation = np.asarray(list(before.labels.get("relation", ["-"] * len(labels))), dtype=np.str_)
    strata = np.where(is_target, "target", np.where(unknown > 0, "unknown", "known"))
    folds = Folds.make(labels.entity, labels.template, rng, relation=relation, strata=strata)
    control = _shuffled(labels.entity, unknown, ~is_target, rng)
    read = {}
    for site in sites:
        x = {p: centred(rows_of(a, site).x, labels.template, ~is_target) for p, a in everyone.items()}
        read[site] = _read(x, unknown, control, is_target, folds, penalty)
    return _evidence(where, read, labels, unknown, is_target, {"penalty": penalty, "sites": sites}, seed)


def _too_few(rows: Rows) -> str:
    for kind in ("known", "unknown"):
        count = len(np.unique(rows.of(f"{kind}_ref", f"{kind}_eval").entity))
        if count < MIN_ENTITIES:
            return f"{count} {kind} entities; at least {MIN_ENTITIES} are needed to fit a readout and test it on others"
    return ""


def _shuffled(entity: np.ndarray, label: np.ndarray, use: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The control task: each entity has the label of a random one."""
    out = label.copy()
    _names, first, codes = np.unique(entity[use], return_index=True, return_inverse=True)
    out[use] = rng.permutation(label[use][first])[codes]
    return out


def _fit(x: np.ndarray, label: np.ndarray, rows: np.ndarray, penalty: float) -> Readout | None:
    """Predicts +1 for unknown and -1 for known, each kind weighing the same; None where a kind has no rows."""
    y = 2 * label[rows] - 1
    share = float((y > 0).mean()) if len(y) else 0.0
    if not 0 < share < 1:
        return None
    return fit_readout(x[rows], y[:, None], weights=np.where(y > 0, 0.5 / share, 0.5 / (1 - share)), penalty=penalty)


def _call(readout: Readout | None, x: np.ndarray) -> np.ndarray:
    return np.full(len(x), np.nan) if readout is None else (readout.predict(x)[:, 0] > 0).astype(np.float64)


def _read(
    x: Mapping[str, np.ndarray],
    unknown: np.ndarray,
    control: np.ndarray,
    is_target: np.ndarray,
    folds: Folds,
    penalty: float,
) -> _Site:
    n = len(unknown)
    uses = [
        (p, who)
        for p in x
        for who in ("original", "fresh")
        if (p, who) not in {("before", "fresh"), ("gold", "original")}
    ]
    called = {use: np.full(n, np.nan) for use in uses}
    shuffled = np.full(n, np.nan)

    def apply(fit: np.ndarray, held: np.ndarray) -> None:
        original = _fit(x["before"], unknown, fit, penalty)
        for phase, who in uses:
            own = original if who == "original" else _fit(x[phase], unknown, fit, penalty)
            called[phase, who][held] = _call(own, x[phase][held])

    for train, test in folds.joint():
        fit, held = train & ~is_target, test & ~is_target
        if held.any():
            apply(fit, held)
            shuffled[held] = _call(_fit(x["before"], control, fit, penalty), x["before"][held]) == control[held]
    for train, test in folds.by_template():
        if (test & is_target).any():
            apply(train & ~is_target, test & is_target)
    others = ~is_target
    return _Site((called["before", "original"] == unknown)[others].astype(float), shuffled[others], called)


def _evidence(
    where: str,
    read: Mapping[str, _Site],
    rows: Rows,
    unknown: np.ndarray,
    is_target: np.ndarray,
    facts: Mapping[str, object],
    seed: int,
) -> list[Evidence]:
    sites, others = list(read), rows.where(~is_target)
    label = unknown[~is_target]
    clusters = (others.entity, others.template)
    accuracy = {s: balanced_mean(read[s].right, label) for s in sites}
    valid = [s for s in sites if _better(read[s], clusters, seed)]
    best = max(sites, key=lambda s: accuracy[s])
    held = rows.group == "unknown_eval"
    facts = {**facts, "valid_sites": valid}
    out = [
        evidence(
            KINDS[0],
            where,
            accuracy[best],
            n=len(others),
            mask_policy=rows.mask_policy,
            interval=balanced_interval(read[best].right, label, clusters, numpy_rng(seed, KINDS[0], where)),
            control=float(np.nanmean(read[best].control)),
            details={"layers": _curve(read, accuracy, rows, is_target, held, seed)},
            config={**facts, "site": best},
            seed=seed,
        )
    ]
    if not valid:
        return out + [missing(k, where, NO_LAYER, mask_policy=rows.mask_policy, config=facts) for k in KINDS[1:]]
    target = rows.where(is_target)
    for kind, who in ((KINDS[1], "original"), (KINDS[2], "fresh")):
        means = {
            phase: np.mean([read[s].called[phase, own] for s in valid], 0)
            for phase, own in (("before", "original"), ("after", who), ("gold", "fresh"))
            if (phase, own) in read[valid[0]].called
        }
        mine = means["after"][is_target]
        out.append(
            evidence(
                kind,
                where,
                float(mine.mean()),
                n=len(target),
                mask_policy=rows.mask_policy,
                interval=mean_interval(mine, (target.entity, target.template), numpy_rng(seed, kind, where)),
                control=float(means["after"][held].mean()),
                config={
                    **facts,
                    "before": float(means["before"][is_target].mean()),
                    "control_before": float(means["before"][held].mean()),
                    "known_eval": float(means["after"][rows.group == "known_eval"].mean()),
                    "lowest": float(min(read[s].called["after", who][is_target].mean() for s in valid)),
                    **({"gold": float(means["gold"][is_target].mean())} if "gold" in means else {}),
                },
                seed=seed,
            )
        )
    return out


def _better(site: _Site, clusters: tuple[np.ndarray, ...], seed: int) -> bool:
    """Whether the readout beats its control task, and chance: its interval lies above both."""
    use = np.isfinite(site.control)
    if not use.any():
        return False
    floor = max(float(site.control[use].mean()), 0.5)
    span = interval(bootstrap_means(site.right, clusters, numpy_rng(seed, "recognition valid"), 400))
    return span is not None and span[0] > floor


def _curve(
    read: Mapping[str, _Site],
    accuracy: Mapping[str, float],
    rows: Rows,
    is_target: np.ndarray,
    held: np.ndarray,
    seed: int,
) -> Labelled:
    names = (
        "accuracy",
        "control task",
        "target before",
        "target after",
        "unknown after",
        "fresh target",
        "fresh unknown",
    )
    gold = ("after", "fresh") in next(iter(read.values())).called and ("gold", "fresh") in next(
        iter(read.values())
    ).called
    values = []
    for site, found in read.items():
        c = found.called
        line = [
            accuracy[site],
            float(np.nanmean(found.control)),
            c["before", "original"][is_target].mean(),
            c["after", "original"][is_target].mean(),
            c["after", "original"][held].mean(),
            c["after", "fresh"][is_target].mean(),
            c["after", "fresh"][held].mean(),
        ]
        values.append(line + ([c["gold", "fresh"][is_target].mean()] if gold else []))
    return Labelled(
        "balanced accuracy, and share of rows called unknown",
        np.array(values),
        (Axis("site", tuple(read)), Axis("reading", names + (("target gold",) if gold else ()))),
        n=len(rows),
        mask_policy=rows.mask_policy,
        seed=seed,
        note="target and unknown are read by the original model's readout, fresh by the edited one's, gold by its own",
    )
