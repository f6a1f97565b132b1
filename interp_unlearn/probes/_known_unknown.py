"""Linear known/unknown probe: what does a probe of recognition, trained on other entities, say of the target?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp_unlearn._core import Axis, Evidence, Labelled, numpy_rng
from interp_unlearn.hooked import Activations
from interp_unlearn.probes._bootstrap import balanced_interval
from interp_unlearn.probes._catalogue import evidence, missing
from interp_unlearn.probes._linear import LinearProbe, ProbeScore, fit_linear_probe, score_linear_probe
from interp_unlearn.probes._rows import GROUPS, Rows, check_pair, rows_of, why_missing
from interp_unlearn.probes._tables import SHOWN, group_table

KINDS = ("probe.accuracy", "probe.unknown_fraction", "probe.fresh_unknown_fraction")
MIN_ENTITIES = 4  # reference entities needed of each kind
SCORES = ("accuracy", "control", "template_accuracy", "template_control")


@dataclass(frozen=True)
class _Fitted:
    """Probes of one site: the original model's with its score, and one trained anew on every other phase."""

    phases: dict[str, Rows]
    score: ProbeScore
    original: LinearProbe
    fresh: dict[str, LinearProbe]

    def unknown(self, phase: str, *, fresh: bool) -> np.ndarray:
        """1 where a row of ``phase`` is called unknown. Gold is only read by a probe of its own."""
        use = self.fresh[phase] if phase in self.fresh and (fresh or phase == "gold") else self.original
        return (use.predict(self.phases[phase].x) == "unknown").astype(np.float64)


def known_unknown_probe(
    before: Activations,
    after: Activations,
    site: str,
    *,
    sites: Sequence[str] | None = None,
    gold: Activations | None = None,
    seed: int = 0,
) -> list[Evidence]:
    """Train on the reference entities, check on entities and templates held out, apply to the target before and after.

    Args:
        before: Activations of the original model.
        after: The same rows in the edited model.
        site: Where the evidence is taken.
        sites: Sites of the layer curve; default every third captured one, and ``site``.
        gold: The same rows in a model that never knew the target, read by a probe of its own.
        seed: Seed of folds, control labels and intervals.

    Returns:
        ``probe.accuracy`` (control: labels shuffled among entities; config has the selectivities),
        ``probe.unknown_fraction`` (original's probe) and ``probe.fresh_unknown_fraction`` (probe trained on the edited
        model), each named with the site. Details: ``groups`` and ``layers``.
    """
    wanted = list(dict.fromkeys(sites)) if sites is not None else list(before.sites)[::3]
    curve = [s for s in before.sites if s in wanted or s == site]
    fitted: dict[str, _Fitted] = {}
    for name in dict.fromkeys([site, *curve]):
        check_pair(before, after, name)
        phases = {"before": rows_of(before, name), "after": rows_of(after, name)}
        if gold is not None:
            phases["gold"] = rows_of(gold, name)
        reason = why_missing(phases, GROUPS) or _too_few(phases["before"])
        if reason:
            return [missing(kind, site, f"{name}: {reason}", mask_policy=before.mask_policy) for kind in KINDS]
        fitted[name] = _fit(phases, seed, full=name == site)
    layers = _layers(fitted, curve, seed)
    scores = _scores(fitted, curve, seed)
    out = [_accuracy(fitted[site], site, scores, seed)]
    out += [_fraction(fitted[site], site, layers, seed, fresh=fresh) for fresh in (False, True)]
    return out


def _too_few(rows: Rows) -> str:
    for group in ("known_ref", "unknown_ref"):
        count = len(np.unique(rows.of(group).entity))
        if count < MIN_ENTITIES:
            return f"{count} entities of {group}; at least {MIN_ENTITIES} are needed to train a probe"
    return ""


def _references(rows: Rows) -> tuple[Rows, np.ndarray]:
    ref = rows.of("known_ref", "unknown_ref")
    return ref, np.where(ref.group == "known_ref", "known", "unknown")


def _fit(phases: dict[str, Rows], seed: int, *, full: bool) -> _Fitted:
    ref, labels = _references(phases["before"])
    template = ref.template if full else None
    score = score_linear_probe(ref.x, labels, ref.entity, template, controls=2 if full else 1, seed=seed)
    fresh = {}
    for phase, rows in phases.items():
        if phase != "before":
            its, its_labels = _references(rows)
            fresh[phase] = fit_linear_probe(its.x, its_labels)
    return _Fitted(phases, score, fit_linear_probe(ref.x, labels), fresh)


def _layers(fitted: dict[str, _Fitted], curve: list[str], seed: int) -> Labelled:
    """Fraction called unknown, axes (site, probe, phase, group)."""
    first = fitted[curve[0]]
    names = tuple(first.phases)
    values = np.empty((len(curve), 2, len(names), len(SHOWN)))
    for s, site in enumerate(curve):
        for f, fresh in enumerate((False, True)):
            for p, phase in enumerate(names):
                called = fitted[site].unknown(phase, fresh=fresh)
                for g, group in enumerate(SHOWN):
                    values[s, f, p, g] = called[fitted[site].phases[phase].group == group].mean()
    return Labelled(
        "fraction called unknown",
        values,
        (Axis("site", tuple(curve)), Axis("probe", ("original", "fresh")), Axis("phase", names), Axis("group", SHOWN)),
        n=int(np.isin(first.phases["before"].group, SHOWN).sum()),
        mask_policy=first.phases["before"].mask_policy,
        seed=seed,
        note="before is always read by the original model's probe, gold always by its own",
    )


def _scores(fitted: dict[str, _Fitted], curve: list[str], seed: int) -> Labelled:
    """Cross-validated accuracies of the original model's probe, axes (site, score)."""
    first = _references(fitted[curve[0]].phases["before"])[0]
    return Labelled(
        "balanced accuracy of the known/unknown probe",
        np.array([[getattr(fitted[site].score, k) for k in SCORES] for site in curve]),
        (Axis("site", tuple(curve)), Axis("score", SCORES)),
        n=len(first),
        mask_policy=first.mask_policy,
        seed=seed,
        note="template scores (entities seen in training) are computed at the main site only",
    )


def _accuracy(fitted: _Fitted, site: str, scores: Labelled, seed: int) -> Evidence:
    ref, labels = _references(fitted.phases["before"])
    score = fitted.score
    return evidence(
        "probe.accuracy",
        site,
        score.accuracy,
        n=len(ref),
        mask_policy=ref.mask_policy,
        interval=balanced_interval(
            score.correct, labels, (ref.entity, ref.template), numpy_rng(seed, "probe.accuracy")
        ),
        control=score.control,
        details={"layers": scores},
        config={
            "selectivity": score.selectivity,
            "template_accuracy": score.template_accuracy,
            "template_control": score.template_control,
            "template_selectivity": score.template_selectivity,
            "entities": len(np.unique(ref.entity)),
        },
        seed=seed,
    )


def _fraction(fitted: _Fitted, site: str, layers: Labelled, seed: int, *, fresh: bool) -> Evidence:
    kind = "probe.fresh_unknown_fraction" if fresh else "probe.unknown_fraction"
    called = {phase: fitted.unknown(phase, fresh=fresh) for phase in fitted.phases}
    table = group_table("fraction called unknown", fitted.phases, called, numpy_rng(seed, kind), seed=seed)
    mean, low, high = table.at(phase="after", group="target")[:3]
    after = fitted.phases["after"]
    config = {
        "before": float(table.at(phase="before", group="target", statistic="mean")),
        "control_before": float(table.at(phase="before", group="unknown_eval", statistic="mean")),
    }
    if "gold" in fitted.phases:
        config["gold"] = float(table.at(phase="gold", group="target", statistic="mean"))
    return evidence(
        kind,
        site,
        mean,
        n=int((after.group == "target").sum()),
        mask_policy=after.mask_policy,
        interval=None if np.isnan(low) else (float(low), float(high)),
        control=float(table.at(phase="after", group="unknown_eval", statistic="mean")),
        details={"groups": table, **({} if fresh else {"layers": layers})},
        config=config,
        seed=seed,
    )
