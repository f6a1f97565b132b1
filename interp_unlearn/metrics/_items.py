"""Behaviour on labelled items: what a graph or image model says of nodes, edges and images."""

from __future__ import annotations

import numpy as np
import torch

from interp_unlearn._core import Axis, DataError, Labelled
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics._prompts import BEHAVIOUR_METRICS, PROMPT_METRICS, PromptScores, mean_of
from interp_unlearn.worlds import LabelledTask

BATCH = 256


@torch.no_grad()
def behaviour_by_item(model: HookedModel, task: LabelledTask, *, batch_size: int = BATCH) -> PromptScores:
    """Scores of each item of each set, in the form that language models' prompts have.

    An item is a question whose answer is its class: ``probability`` is that of the true class, ``exact`` and ``choice``
    whether it has the highest logit, ``choice_margin`` by how many nats it leads (or trails) the best other class,
    ``chance`` one over the number of classes.

    Args:
        model: The opened model.
        task: Its sets are measured, but for the empty ones.
        batch_size: Items per forward pass.

    Raises:
        DataError: If every set is empty.
    """
    sets = [found for found in task.item_sets() if len(found)]
    if not sets:
        raise DataError(f"{task.world} has no item to ask about: every set of the task is empty")
    rows, columns = [], {name: [] for name in ("set", "entity", "relation", "template", "text", "answer")}
    for items in sets:
        logits = torch.cat([task.logits(model, ids) for ids in items.ids.split(batch_size)]).double().cpu()
        rows.append(_scores(logits, items.labels))
        answers = [task.classes[int(label)] for label in items.labels]
        columns["set"] += [items.name] * len(items)
        columns["entity"] += list(items.names)
        columns["relation"] += answers
        columns["template"] += [task.modality] * len(items)
        columns["text"] += list(items.names)
        columns["answer"] += answers
    labels = tuple(f"{items.name}/{i}" for items in sets for i in range(len(items)))
    table = Labelled(
        "behaviour by prompt",
        np.concatenate(rows),
        (Axis("prompt", labels), Axis("metric", PROMPT_METRICS)),
        n=1,
        mask_policy="items",
        config={
            "world": task.world,
            "target": list(task.target.entities),
            "relations": list(task.target.relations),
            "scoring": "classes",
            "columns": columns,
        },
        seed=task.seed,
        note="one row per item; the answer is its class, logprob in nats",
    )
    return PromptScores(table)


def _scores(logits: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """`PROMPT_METRICS` of each item, (item, metric); not right where the logits are not finite."""
    logprob = logits.log_softmax(-1)
    index = torch.arange(len(labels))
    true = logprob[index, labels]
    others = logprob.clone()
    others[index, labels] = -torch.inf
    margin = true - others.max(-1).values
    right = (margin > 0).double()
    chance = torch.full_like(true, 1 / logits.shape[1])
    return torch.stack([true.exp(), right, right, margin, true, torch.ones_like(true), chance], 1).numpy()


def behaviour_by_group(scores: PromptScores, task: LabelledTask) -> list[Labelled]:
    """Means by the further labels of the items, e.g. of aligned and conflicting images apart.

    Returns:
        One array per label name, axes (set, <label name>, metric), named ``behaviour_by_<label name>``; NaN where a set
        has no item with that label. ``config["n"]`` has the numbers of items, as nested lists (set, label).
    """
    sets = {found.name: found for found in task.item_sets() if len(found)}
    names = dict.fromkeys(key for found in sets.values() for key in found.groups)
    out = []
    for key in names:
        labels = tuple(dict.fromkeys(v for found in sets.values() for v in found.groups.get(key, ())))
        values = np.full((len(sets), len(labels), len(BEHAVIOUR_METRICS)), np.nan)
        counts = np.zeros((len(sets), len(labels)), dtype=int)
        for s, (name, found) in enumerate(sets.items()):
            if key not in found.groups:
                continue
            rows = scores.rows(name)
            mine = np.array(found.groups[key])
            for g, label in enumerate(labels):
                chosen = rows[mine == label]
                counts[s, g] = len(chosen)
                if len(chosen):
                    values[s, g] = [mean_of(scores.metric(m)[chosen], m) for m in BEHAVIOUR_METRICS]
        out.append(
            Labelled(
                f"behaviour_by_{key}",
                values,
                (Axis("set", tuple(sets)), Axis(key, labels), Axis("metric", BEHAVIOUR_METRICS)),
                n=int(counts[counts > 0].min()) if counts.any() else 0,
                mask_policy="items",
                config={"n": counts.tolist(), "world": task.world},
                seed=task.seed,
                note="mean over items; n is the smallest cell's, config['n'] has each cell's",
            )
        )
    return out
