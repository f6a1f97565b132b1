"""How one number is read from evidence or a table so that it means the same in models of any size.

Shares of what the original model had, distances in standard deviations over unknown entities, and thirds of the depth
travel from one model to another; raw distances and layer numbers do not. Every transform returns NaN where it cannot be
read. None of them sees gold: they get findings from which `gold_free` took it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from interp_unlearn._core import ConfigError, Evidence, Labelled, nearest
from interp_unlearn.verdict._behaviour import BASE, HELDOUT, change_of
from interp_unlearn.verdict._findings import Findings

NAN = float("nan")
THIRDS = ("early", "middle", "late")
GRID = np.linspace(0.0, 1.0, 13)
_LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")

OfEvidence = Callable[[Evidence], float]
OfTables = Callable[[Findings, str], float]


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else NAN


def _clip(value: float, low: float = -2.0, high: float = 3.0) -> float:
    return value if math.isnan(value) else min(max(value, low), high)


def _ratio(top: float, bottom: float) -> float:
    return NAN if math.isnan(bottom) or abs(bottom) < 1e-9 else top / bottom


def _control(item: Evidence) -> float:
    return NAN if item.control is None else float(item.control)


def _before(item: Evidence) -> float:
    """The target's value in the original model: a setting, or the control where that is the original model."""
    levels = item.config.get("levels")
    noted = levels.get("before") if isinstance(levels, dict) else None
    saved = _number(item.config.get("before", noted))
    return _control(item) if math.isnan(saved) and "original" in item.control_name.casefold() else saved


def _spread(item: Evidence) -> float:
    return _number(item.config.get("control_sd_entities"))


# -- of one evidence ---------------------------------------------------------------------------------------------------


def gap(item: Evidence) -> float:
    """Value minus control."""
    return item.value - _control(item)


def spread(item: Evidence) -> float:
    """Value minus control, in standard deviations over unknown entities."""
    return _clip(_ratio(item.value - _control(item), _spread(item)), -10.0, 10.0)


def moved(item: Evidence) -> float:
    """How far the target moved from the original's value, in standard deviations over unknown entities, unsigned."""
    return _clip(abs(_ratio(item.value - _before(item), _spread(item))), 0.0, 10.0)


def left(item: Evidence) -> float:
    """Share of the original model's value that is left."""
    return _clip(_ratio(item.value, _before(item)))


def left_over_control(item: Evidence) -> float:
    """Share left of what the original had above the control: 1 is all of it, 0 is the control's level."""
    return _clip(_ratio(item.value - _control(item), _before(item) - _control(item)))


def change(item: Evidence) -> float:
    """Value minus the original model's."""
    return item.value - _before(item)


def log_value(item: Evidence) -> float:
    """Decimal logarithm of the value, at least −4."""
    return NAN if math.isnan(item.value) else math.log10(max(item.value, 1e-4))


def from_half(item: Evidence) -> float:
    """Distance of an AUC from chance, with its sign."""
    return item.value - 0.5


OF_EVIDENCE: dict[str, OfEvidence] = {
    "value": lambda item: float(item.value),
    "gap": gap,
    "spread": spread,
    "moved": moved,
    "left": left,
    "left_over_control": left_over_control,
    "change": change,
    "log": log_value,
    "is_zero": lambda item: NAN if math.isnan(item.value) else float(item.value == 0),
    "from_half": from_half,
    "rank": lambda item: _number(item.config.get("percentile_among_unknown")),
    "selectivity": lambda item: _number(item.config.get("selectivity")),
}


# -- of tables ---------------------------------------------------------------------------------------------------------


def layer_of(label: str) -> int | None:
    """The block's number in a site, a parameter's name or a plain layer label."""
    found = _LAYER.search(label)
    return int(found.group(1)) if found else None


def third(layers: Sequence[int], values: np.ndarray, which: str) -> float:
    """Mean over one third of the depth of a curve given at some layers, linear in between.

    Args:
        layers: Numbers of the blocks, ascending; the last one counts as depth 1.
        values: The curve; layers with NaN are passed over.
        which: ``early``, ``middle`` or ``late``.
    """
    at, values = np.asarray(layers, dtype=np.float64), np.asarray(values, dtype=np.float64)
    usable = np.isfinite(values)
    if not usable.any():
        return NAN
    curve = np.interp(GRID, at[usable] / max(at.max(), 1.0), values[usable])
    part = np.array_split(curve, len(THIRDS))[THIRDS.index(which)]
    return float(part.mean())


def _curve(table: Labelled | None, axis: str, **labels: str) -> tuple[list[int], np.ndarray] | None:
    """Layers and values of a table along its ``axis`` at fixed labels of the others."""
    axes = {a.name: a.labels for a in table.axes} if table is not None else {}
    if table is None or axis not in axes or any(v not in axes.get(k, ()) for k, v in labels.items()):
        return None
    numbers = [layer_of(label) for label in axes[axis]]
    layers = [n for n in numbers if n is not None]
    return None if len(layers) != len(numbers) or not layers else (layers, np.asarray(table.at(**labels)))


def moved_target(findings: Findings, which: str) -> float:
    """Log ratio: how far the target's mentions moved against known bystanders', in one third of the depth."""
    table = findings.tables.get("diff.displacement")
    target, known = (_curve(table, "site", group=g) for g in ("target", "known_eval"))
    if target is None or known is None:
        return NAN
    return third(target[0], np.log10((target[1] + 1e-4) / (known[1] + 1e-4)), which)


def displacement(findings: Findings, which: str) -> float:
    """How far the target's mentions moved, as a share of their norm (decimal logarithm), in one third of the depth."""
    curve = _curve(findings.tables.get("diff.displacement"), "site", group="target")
    return NAN if curve is None else third(curve[0], np.log10(curve[1] + 1e-4), which)


def cka_lost(findings: Findings, which: str) -> float:
    """1 − CKA of the target's mentions, original against edited, in one third of the depth."""
    curve = _curve(findings.tables.get("diff.cka"), "site", group="target")
    return NAN if curve is None else _clip(third(curve[0], 1 - curve[1], which), -1.0, 2.0)


def _lens(findings: Findings) -> tuple[list[int], np.ndarray, np.ndarray] | None:
    """Layers and the mean margin of the answer before and after, at each; None where a layer has no margin."""
    out = []
    for phase in ("before", "after"):
        table = findings.tables.get(f"lens_forget.{phase}")
        if table is None or [a.name for a in table.axes] != ["prompt", "layer", "measure"]:
            return None
        margin = np.asarray(table.at(measure="margin"))
        if not np.isfinite(margin).any(axis=0).all():
            return None
        out.append(np.nanmean(np.where(np.isfinite(margin), margin, np.nan), axis=0))
    numbers = [layer_of(label) for label in findings.tables["lens_forget.after"].axes[1].labels]
    layers = [n for n in numbers if n is not None]
    return (layers, out[0], out[1]) if len(layers) == len(numbers) == len(out[0]) else None


def lens_left(findings: Findings, which: str) -> float:
    """Margin of the answer under the logit lens in a third of the depth, as a share of the original's best margin."""
    found = _lens(findings)
    if found is None:
        return NAN
    layers, before, after = found
    peak = float(before.max())
    return _clip(third(layers, after, which) / peak) if peak > 0.1 else NAN


def lens_dip(findings: Findings, _which: str) -> float:
    """How much the answer's margin falls from its best layer to the last, as a share of the original's best margin."""
    found = _lens(findings)
    if found is None:
        return NAN
    _, before, after = found
    peak = float(before.max())
    return _clip(float(after.max() - after[-1]) / peak) if peak > 0.1 else NAN


def _moves(findings: Findings) -> tuple[list[str], np.ndarray] | None:
    """Matrices of the blocks and their relative change."""
    table = findings.tables.get("weights.relative_change")
    if table is None:
        return None
    names = table.axes[0].labels
    keep = [i for i, n in enumerate(names) if layer_of(n) is not None and "norm" not in n.rsplit(".", 2)[-2]]
    values = np.nan_to_num(np.asarray(table.values)[keep])
    return ([names[i] for i in keep], values) if keep and values.max() > 0 else None


def weights_attention(findings: Findings, _which: str) -> float:
    """Share of the squared relative change of the blocks that lies in attention."""
    found = _moves(findings)
    if found is None:
        return NAN
    attention = np.array(["attn" in n or "attention" in n for n in found[0]])
    return float((found[1] ** 2)[attention].sum() / (found[1] ** 2).sum())


def margin_left(findings: Findings, which: str) -> float:
    """Mean margin of the right answer over the best wrong one, as a share of the original's (negative: below)."""
    sets = BASE if which == "base" else HELDOUT
    means = []
    for phase in ("before", "after"):
        table = findings.tables.get(f"behaviour_by_prompt.{phase}")
        axes = {a.name: a.labels for a in table.axes} if table is not None else {}
        if table is None or "choice_margin" not in axes.get("metric", ()):
            return NAN
        rows = [i for i, label in enumerate(axes["prompt"]) if label.rsplit("/", 1)[0] in sets]
        values = np.asarray(table.at(metric="choice_margin"))[rows]
        means.append(float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else NAN)
    return _clip(_ratio(means[1], means[0]), -3.0, 3.0)


def choice_left(findings: Findings, which: str) -> float:
    """Share left of the multiple-choice accuracy above chance."""
    sets = BASE if which == "base" else HELDOUT
    table = findings.tables.get("behaviour.after")
    chances = table.config.get("chance") if table is not None else None
    for name in sets:
        chance = _number(chances.get(name)) if isinstance(chances, dict) else NAN
        if not math.isnan(chance):
            return _clip(change_of(findings, (name,), "choice").share(chance), -1.0, 2.0)
    return NAN


def probability_left(findings: Findings, which: str) -> float:
    """Decimal logarithm of the answer's mean probability after over before."""
    sets = {"base": BASE, "heldout": HELDOUT, "multi_hop": ("multi_hop",)}[which]
    found = change_of(findings, sets, "probability")
    return _clip(math.log10((found.after + 1e-4) / (found.before + 1e-4)), -4.0, 1.0) if found.after >= 0 else NAN


OF_TABLES: dict[str, OfTables] = {
    "moved_target": moved_target,
    "displacement": displacement,
    "cka_lost": cka_lost,
    "lens_left": lens_left,
    "lens_dip": lens_dip,
    "weights_attention": weights_attention,
    "margin_left": margin_left,
    "choice_left": choice_left,
    "probability_left": probability_left,
}


def read(findings: Findings, source: str, transform: str) -> tuple[float, tuple[str, ...]]:
    """One number and what it was read from.

    Args:
        findings: Without gold.
        source: A pattern of evidence names (alternatives with ``|``; several hits are averaged), or ``table:<name>``.
        transform: A name in `OF_EVIDENCE`; for tables one in `OF_TABLES`, with an argument after a colon.

    Raises:
        ConfigError: If there is no such transform.
    """
    name, _, argument = transform.partition(":")
    if source.startswith("table:"):
        if name not in OF_TABLES:
            raise ConfigError(f"there is no transform {name!r} of tables{nearest(name, OF_TABLES)}")
        value = OF_TABLES[name](findings, argument)
        return (value if math.isfinite(value) else NAN), (source,)
    if name not in OF_EVIDENCE:
        raise ConfigError(f"there is no transform {name!r} of evidence{nearest(name, OF_EVIDENCE)}")
    hits = findings.matching(source)
    values = [(OF_EVIDENCE[name](item), item.name) for item in hits]
    usable = [(v, n) for v, n in values if math.isfinite(v)]
    if not usable:
        return NAN, tuple(item.name for item in hits) or (source,)
    return float(np.mean([v for v, _ in usable])), tuple(n for _, n in usable)
