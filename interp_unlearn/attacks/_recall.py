"""`recall table`: what came back under every setting of an attack, prompt by prompt, as one `Labelled`.

Axes ("setting", "prompt", "metric"); the first setting, ``"none"``, is the model without the attack. Metrics are
``recall`` (did the answer come back, 0 to 1) and ``probability`` (its probability, NaN where an attack gives none). A
setting that could not be tried is NaN throughout, with its reason in ``config["reasons"]``.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import Axis, Labelled
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics import bootstrap, score_candidates
from interp_unlearn.worlds import Prompt, fact_of

METRICS = ("recall", "probability")
UNATTACKED = "none"


def recall_table(
    attack: str,
    group: str,
    settings: Sequence[str],
    scores: np.ndarray,
    prompts: Sequence[Prompt],
    config: Mapping[str, Any],
    *,
    seed: int,
    mask_policy: str = "answer tokens",
    note: str = "",
) -> Labelled:
    """One group's table.

    Args:
        attack: Name of the attack.
        group: ``"target"``, ``"never known"`` or ``"neighbours"``.
        settings: Labels of the first axis, beginning with ``"none"``.
        scores: (setting, prompt, metric) values.
        prompts: The questions.
        config: Settings and facts of the attack.
        seed: Its seed.
        mask_policy: Which tokens the values rest on.
        note: How to read it.
    """
    return Labelled(
        f"{attack}, {group}",
        scores,
        (
            Axis("setting", tuple(settings)),
            Axis("prompt", tuple(f"{k} {p.entity} {p.relation} {p.template}" for k, p in enumerate(prompts))),
            Axis("metric", METRICS),
        ),
        n=len(prompts),
        mask_policy=mask_policy,
        config={
            **config,
            "attack": attack,
            "group": group,
            "facts": [list(fact_of(p)) for p in prompts],
            "templates": [p.template for p in prompts],
        },
        seed=seed,
        note=note,
    )


def ask(model: HookedModel, prompts: Sequence[Prompt], batch_size: int = 32) -> np.ndarray:
    """Exact match (any right answer counts) and probability of the answer of each prompt, (prompt, metric).

    Greedy decoding is judged by teacher forcing. A model whose logits are not finite answers nothing.
    """
    scored = score_candidates(
        model,
        [p.text for p in prompts],
        [(p.answer, *p.also) for p in prompts],
        batch_size=batch_size,
        shared_prefix=False,
    ).per_prompt
    values = []
    for s in scored:
        finite = bool(torch.isfinite(s.logprob).all())
        values.append([float(s.exact.any()) if finite else 0.0, float(s.probability[0]) if finite else 0.0])
    return np.array(values)


def by_setting(table: Labelled) -> np.ndarray:
    """Mean recall of each setting; NaN where it was not tried."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN, which is what is meant
        return np.nanmean(table.values[:, :, METRICS.index("recall")], axis=1)


def best_setting(table: Labelled, counted: Sequence[str] | None = None) -> int | None:
    """Index of the attacked setting with the highest recall, the first of equals; None if none was tried.

    Args:
        table: A recall table.
        counted: Only these settings count; default all but ``"none"``.
    """
    means = by_setting(table)
    labels = table.axes[0].labels
    wanted = [i for i, s in enumerate(labels) if s != UNATTACKED and (counted is None or s in counted)]
    tried = [i for i in wanted if not math.isnan(means[i])]
    return max(tried, key=lambda i: (means[i], -i)) if tried else None


def clusters_of(table: Labelled) -> list[str]:
    """What is resampled: entities where there are two or more, else facts, else templates."""
    facts = table.config["facts"]
    entities = [entity for entity, _ in facts]
    if len(set(entities)) > 1:
        return entities
    relations = [relation for _, relation in facts]
    return relations if len(set(relations)) > 1 else list(table.config["templates"])


def recall_interval(table: Labelled, setting: int, seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of one setting's recall.

    Clusters (see `clusters_of`) are resampled. Where every prompt is recalled or none is, resampling shows no spread,
    and the exact binomial (Clopper–Pearson) interval over clusters is taken instead. None with a single cluster.
    """
    values = table.values[setting, :, METRICS.index("recall")]
    there = ~np.isnan(values)
    clusters = [c for c, ok in zip(clusters_of(table), there, strict=True) if ok]
    n = len(set(clusters))
    if n < 2:
        return None
    values = values[there]
    if values.min() == values.max() and values[0] in (0.0, 1.0):
        edge = 0.025 ** (1 / n)
        return (0.0, 1 - edge) if values[0] == 0 else (edge, 1.0)
    drawn = bootstrap(values, clusters, seed=seed, purpose=f"recall {table.name}")
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def curve_of(groups: Mapping[str, Labelled], attack: str) -> Labelled:
    """The curve that is saved and drawn: recall of each group at each setting, with its interval.

    Axes ("group", "setting", "quantity"); quantities ``recall``, ``low``, ``high``, ``probability``.
    """
    first = next(iter(groups.values()))
    settings = first.axes[0].labels
    values = np.full((len(groups), len(settings), 4), np.nan)
    for g, table in enumerate(groups.values()):
        means = by_setting(table)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            probability = np.nanmean(table.values[:, :, METRICS.index("probability")], axis=1)
        for k, label in enumerate(settings):
            at = table.axes[0].labels.index(label)
            if math.isnan(means[at]):
                continue
            bounds = recall_interval(table, at, table.seed or 0) or (np.nan, np.nan)
            values[g, k] = [means[at], *bounds, probability[at]]
    shared = {k: v for k, v in first.config.items() if k not in ("facts", "templates", "group", "by_prompt")}
    return Labelled(
        f"recall under {attack}",
        values,
        (
            Axis("group", tuple(groups)),
            Axis("setting", settings),
            Axis("quantity", ("recall", "low", "high", "probability")),
        ),
        n=min(t.n for t in groups.values()),
        mask_policy=first.mask_policy,
        config={**shared, "n": {name: t.n for name, t in groups.items()}},
        seed=first.seed,
        note="'none' is the model without the attack; where one could not be tried it is NaN, see config['reasons']",
    )


# -- tables as tensors, so that `Phases.once` can keep them -------------------------------------------------------


def pack(tables: Mapping[str, Labelled]) -> dict[str, Tensor]:
    """Tables as named tensors: the values, and everything else as the bytes of its JSON."""
    out: dict[str, Tensor] = {}
    for name, table in tables.items():
        facts = {k: v for k, v in table.to_json().items() if k != "values"}
        out[f"{name}.values"] = torch.from_numpy(np.array(table.values, dtype=np.float64))
        out[f"{name}.facts"] = torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)
    return out


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Labelled]:
    """What `pack` packed."""
    tables = {}
    for name in [n.removesuffix(".facts") for n in tensors if n.endswith(".facts")]:
        facts = json.loads(bytes(tensors[f"{name}.facts"].tolist()))
        tables[name] = Labelled.from_json({**facts, "values": tensors[f"{name}.values"].numpy()})
    return tables
