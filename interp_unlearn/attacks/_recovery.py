"""The small record that every attack gives: how much of the target came back, and how much comes back of nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp_unlearn._core import Evidence, Labelled
from interp_unlearn.attacks._asked import NEIGHBOURS, NEVER_KNOWN, TARGET
from interp_unlearn.attacks._catalogue import GOLD, NEVER, evidence, missing
from interp_unlearn.attacks._recall import METRICS, best_setting, by_setting, recall_interval

WHY = "why_no_control"
"""Where a target's table says why there is no never-known group."""


def recovery_evidence(
    attack: str,
    after: Mapping[str, Labelled],
    gold: Mapping[str, Labelled] | None = None,
    *,
    counted: Sequence[str] | None = None,
    control_from: str = "",
) -> Evidence:
    """Recovered recall of the target, with the same on gold (else on facts that were never known) as its control.

    Value and control are each the best recall over the settings of the attack, 0 to 1, so both profit alike from there
    being several settings. ``value − control`` is what the attack brought back.

    Args:
        attack: Registered name; the evidence is named ``recovery/<attack>``.
        after: Recall tables of the edited model: ``"target"``, and ``"never known"`` and ``"neighbours"`` where there
            are such.
        gold: The same of the gold model; its ``"target"`` counts.
        counted: Settings that count; default those that the target's table names as ``config["counted"]``, else all but
            ``"none"``.
        control_from: ``"never known"`` passes gold over, for instance where its layers do not fit the original's.

    Returns:
        The evidence. ``config`` has ``recovered`` (value − control), ``best_setting``, ``control_interval``,
        ``unattacked`` (recall of each group without the attack), ``neighbours`` (their recall under the best setting),
        ``controls`` (every control there is) and ``reasons`` of settings that could not be tried.
    """
    name = f"recovery/{attack}"
    table = after[TARGET]
    counted = table.config.get("counted") if counted is None else counted
    best = best_setting(table, counted)
    facts: dict[str, Any] = {
        "unattacked": {group: float(by_setting(t)[0]) for group, t in after.items()},
        "reasons": dict(table.config.get("reasons", {})),
        "settings": list(table.axes[0].labels),
        **{k: table.config[k] for k in ("chance", attack) if k in table.config},
    }
    if best is None:
        why = "; ".join(f"{k}: {v}" for k, v in facts["reasons"].items()) or "no setting of the attack could be tried"
        return missing(name, why, config=facts, seed=table.seed, mask_policy=table.mask_policy)
    controls: dict[str, tuple[float, tuple[float, float] | None]] = {}
    tables = {"gold": (gold or {}).get(TARGET), NEVER_KNOWN: after.get(NEVER_KNOWN)}
    for who, control in tables.items():
        at = None if control is None else best_setting(control, counted)
        if control is not None and at is not None:
            controls[who] = float(by_setting(control)[at]), recall_interval(control, at, control.seed or 0)
    chosen = next((who for who in ("gold", NEVER_KNOWN) if who in controls and control_from in ("", who)), None)
    value = float(by_setting(table)[best])
    label = table.axes[0].labels[best]
    facts |= {
        "best_setting": label,
        "recovered": None if chosen is None else value - controls[chosen][0],
        "controls": {who: level for who, (level, _) in controls.items()},
        "control_interval": None if chosen is None else controls[chosen][1],
    }
    if NEIGHBOURS in after:
        facts[NEIGHBOURS] = float(by_setting(after[NEIGHBOURS])[after[NEIGHBOURS].axes[0].labels.index(label)])
    probability = table.values[best, :, METRICS.index("probability")]
    if not np.isnan(probability).all():
        facts["probability"] = float(np.nanmean(probability))
    return evidence(
        name,
        value,
        n=table.n,
        interval=recall_interval(table, best, table.seed or 0),
        control=None if chosen is None else controls[chosen][0],
        control_name=_control_name(chosen, table),
        config=facts,
        seed=table.seed,
        mask_policy=table.mask_policy,
    )


def _control_name(chosen: str | None, table: Labelled) -> str:
    if chosen is None:
        return f"none: {table.config.get(WHY) or 'the attack could not be tried on never-known facts'}"
    return GOLD if chosen == "gold" else NEVER
