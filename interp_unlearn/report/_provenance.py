"""How the numbers were made: settings, versions, seeds, token masks, data and prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interp_unlearn._core import Labelled
from interp_unlearn.report import plots
from interp_unlearn.report._compare import Comparison
from interp_unlearn.report._read import RunView

MAX_PROMPTS = 150
NOT_SETTINGS = ("kind", "version", "versions", "name")


@dataclass(frozen=True)
class PromptRow:
    """One question, its answer, and the answer's probability in each model (empty where it was not saved)."""

    text: str
    answer: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one question set, for reading."""

    name: str
    words: str
    count: int
    models: tuple[str, ...]
    rows: tuple[PromptRow, ...]
    why_empty: str


@dataclass(frozen=True)
class Provenance:
    """Everything about how one comparison was made.

    Attributes:
        differences: Settings that differ: name, then one text per method.
        settings: Method to its whole config, as JSON text.
        versions: Package to one version per method.
        policies: Token-mask policy to the results that used it.
        seeds: Method to seed.
        sources: Provenance sentences of the data.
        sets: The prompts.
        mentions: Templates in which names were read.
        texts: Number of general texts for measuring.
    """

    differences: tuple[tuple[str, tuple[str, ...]], ...]
    settings: Mapping[str, str]
    versions: tuple[tuple[str, tuple[str, ...]], ...]
    policies: tuple[tuple[str, str], ...]
    seeds: Mapping[str, str]
    sources: tuple[str, ...]
    sets: tuple[PromptSet, ...]
    mentions: tuple[str, ...]
    texts: int


def provenance(comparison: Comparison) -> Provenance:
    """Collect it from the saved files."""
    runs = comparison.runs
    settings = {m: _settings(run) for m, run in runs.items()}
    task = next((run.task for run in runs.values() if run.task), {})
    return Provenance(
        differences=_differences({m: _flat(s) for m, s in settings.items()}),
        settings={m: json.dumps(s, indent=2, ensure_ascii=False, default=str) for m, s in settings.items()},
        versions=_versions(comparison),
        policies=_policies(comparison),
        seeds={m: str(run.config.get("seed", "not saved")) for m, run in runs.items()},
        sources=_sources(comparison),
        sets=tuple(
            _prompts(key, value, comparison)
            for key, value in task.items()
            if isinstance(value, Mapping) and "prompts" in value
        ),
        mentions=_mentions(task),
        texts=len(task.get("text_eval") or ()),
    )


def _settings(run: RunView) -> dict[str, Any]:
    """The config, with the recipe as it was run where that was saved (every default filled in)."""
    kept = {k: v for k, v in run.config.items() if k not in NOT_SETTINGS}
    return {**kept, "recipe": run.recipe} if run.recipe else kept


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        found: dict[str, str] = {}
        for key, item in value.items():
            found |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
        return found
    return {prefix: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)}


def _differences(flat: Mapping[str, Mapping[str, str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    rows = ((key, tuple(settings.get(key, "–") for settings in flat.values())) for key in keys)
    return tuple((key, values) for key, values in rows if len(set(values)) > 1)


def _versions(comparison: Comparison) -> tuple[tuple[str, tuple[str, ...]], ...]:
    own = []
    for run in comparison.runs.values():
        saved = run.config.get("versions")
        packages = {str(k): str(v) for k, v in saved.items()} if isinstance(saved, Mapping) else {}
        own.append({"interp-unlearn": str(run.config.get("version", "not saved")), **packages})
    names = dict.fromkeys(name for packages in own for name in packages)
    rows = []
    for name in names:
        values = tuple(packages.get(name, "–") for packages in own)
        rows.append((name, values[:1] if len(set(values)) == 1 else values))
    return tuple(rows)


def _policies(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    used: dict[str, dict[str, None]] = {}
    for run in comparison.runs.values():
        for name, table in run.tables.items():
            used.setdefault(table.mask_policy, {})[name.split(".")[0]] = None
        for name, item in run.evidence.items():
            used.setdefault(item.mask_policy, {})[name.split("/")[0]] = None
    return tuple((policy, ", ".join(names)) for policy, names in used.items() if policy != "-")


def _sources(comparison: Comparison) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for run in comparison.runs.values():
        saved = run.task.get("sources")
        found |= dict.fromkeys(str(s) for s in saved or () if isinstance(saved, (list, tuple)))
    return tuple(found)


def _prompts(key: str, saved: Mapping[str, Any], comparison: Comparison) -> PromptSet:
    name = str(saved.get("name") or key)
    prompts = [p for p in saved.get("prompts") or () if isinstance(p, Mapping)]
    tables = {w: t for w, t in comparison.by_model("behaviour_by_prompt").items() if _by_prompt(t)}
    rows = tuple(
        PromptRow(
            str(p.get("text", "")),
            str(p.get("answer", "")),
            tuple(_asked(table, f"{name}/{i}") for table in tables.values()),
        )
        for i, p in enumerate(prompts[:MAX_PROMPTS])
    )
    return PromptSet(name, plots.set_words(name), len(prompts), tuple(tables), rows, str(saved.get("why_empty") or ""))


def _by_prompt(table: Labelled) -> bool:
    return [a.name for a in table.axes] == ["prompt", "metric"] and {"probability", "exact"} <= set(
        table.axes[1].labels
    )


def _asked(table: Labelled, prompt: str) -> str:
    if prompt not in table.axes[0].labels:
        return ""
    value, exact = (float(table.at(prompt=prompt, metric=m)) for m in ("probability", "exact"))
    return f"{'✓ ' if exact else ''}{value:.3f}"


def _mentions(task: Mapping[str, Any]) -> tuple[str, ...]:
    saved = task.get("mention_heldout") or ()
    return tuple(str(t.get("text", "")) for t in saved if isinstance(t, Mapping))
