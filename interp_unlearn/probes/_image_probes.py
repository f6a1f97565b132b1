"""The part ``image_probes``: can the forgotten class, and the setting, still be read at every block?

Two linear probes at each site, trained and tested on evaluation images of other folds: one tells the forgotten class
from the others, one tells the setting (the background). *Shortcut unlearning* is a bias probe that falls while the
class probe stays. Accuracies are given for four groups of images too; the group of retained images with the target's
setting shows whether the setting's cue itself was hurt.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from interp_unlearn._core import Axis, DataError, Evidence, Labelled
from interp_unlearn.benchmarks import QUARTERS, ImageTask
from interp_unlearn.hooked import HookedModel
from interp_unlearn.probes._catalogue import Kind, evidence, missing
from interp_unlearn.probes._linear import score_linear_probe
from interp_unlearn.probes._parts import Found, Part, Progress, register_part
from interp_unlearn.probes._phases import Phases
from interp_unlearn.worlds import labelled_task

MOST_SITES = 6
GROUPS = ("all", *QUARTERS, "control")
_LINEAR = "A linear probe that fails does not show absence, since other readings may succeed"
KINDS: Mapping[str, Kind] = {
    "class_probe": Kind(
        "How well does a linear probe tell the forgotten class from the others (balanced accuracy)?",
        "near control",
        "gold (retrained without the class)",
        f"{_LINEAR}; one that succeeds need not find what the model uses. Gold's features separate classes it never "
        "saw, so gold, not chance, is what to compare with.",
    ),
    "bias_probe": Kind(
        "How well does a linear probe tell the setting (balanced accuracy)?",
        "near control",
        "gold (retrained without the class)",
        f"{_LINEAR}. A fall beside a class probe that stays means that the shortcut was unlearned, not the class.",
    ),
}
NAMES = {"class": "class_probe", "bias": "bias_probe"}


def _features(model: HookedModel, task: ImageTask) -> dict[str, Tensor]:
    sites = task.sites(model)
    chosen = [sites[round(i)] for i in np.linspace(0, len(sites) - 1, min(MOST_SITES, len(sites)))]
    return dict(task.rows(model, chosen).values)


def labels_of_probes(task: ImageTask) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Label of each row for each probe, the rows' quarters, and which rows count (those of a class)."""
    groups = task.chosen()
    ids = torch.cat([items.ids for _, items in groups])
    role = np.array([group for group, items in groups for _ in items.names])
    counts = ~np.char.startswith(role, "unknown")
    setting = task.data.setting[ids].numpy()
    known = len(task.data.settings) > 0 and bool((setting[counts] >= 0).all())
    aligned = np.where(task.data.aligned[ids].numpy(), "aligned", "conflicting")
    names = np.array(task.data.settings)[setting] if known else aligned
    quarter = np.array([q for _, items in groups for q in items.groups.get("quarter", ("-",) * len(items))])
    return {"class": np.where(role == "target", "target", "other"), "bias": names}, quarter, counts


def _scores(x: np.ndarray, labels: np.ndarray, quarter: np.ndarray, seed: int) -> np.ndarray:
    """Accuracy of a probe over all rows (balanced), in each quarter, and of its control."""
    entity = np.array([f"{i}" for i in range(len(x))])
    score = score_linear_probe(x, labels, entity, controls=1, folds=4, seed=seed)
    each = [score.correct[quarter == q] for q in QUARTERS]
    return np.array([score.accuracy, *(c.mean() if len(c) else np.nan for c in each), score.control])


def look(phases: Phases, progress: Progress) -> Found:
    """Both probes at up to six sites, on every phase."""
    task = labelled_task(phases.any_task, ImageTask, "probing images")
    labels, quarter, counts = labels_of_probes(task)
    curves: dict[str, dict[str, Labelled]] = {name: {} for name in labels}
    for i, phase in enumerate(phases.names):
        progress(f"probing the blocks ({phase})", i, len(phases.names))
        values = phases.once(phase, "image_probes.rows", lambda m: _features(m, task))
        finite = all(bool(v.isfinite().all()) for v in values.values())
        for name, own in labels.items():
            rows = [v.numpy().astype(float)[counts] for v in values.values()]
            if not finite:
                continue
            try:
                with threadpool_limits(limits=1, user_api="blas"):
                    found = np.stack([_scores(x, own[counts], quarter[counts], phases.seed) for x in rows])
            except DataError as error:
                return Found(tuple(_absent(str(error))))
            curves[name][phase] = Labelled(
                f"{NAMES[name]}.{phase}",
                found,
                (Axis("site", tuple(values)), Axis("group", GROUPS)),
                n=int(counts.sum()),
                mask_policy="items",
                config={"labels": sorted(set(own[counts].tolist()))},
                seed=phases.seed,
                note="out-of-fold accuracy of a linear probe; all is balanced over labels, control has labels shuffled",
            )
    tables = {table.name: table for of_phase in curves.values() for table in of_phase.values()}
    where = _placeless(quarter[counts])
    return Found(tuple(_evidence(name, of_phase, phases.seed, where) for name, of_phase in curves.items()), tables)


def _absent(reason: str) -> list[Evidence]:
    return [missing(kind, "features", reason, mask_policy="items", catalogue=KINDS) for kind in KINDS]


def _placeless(quarter: np.ndarray) -> str:
    """Why groups lack images, where some images are in none."""
    lost, empty = int((quarter == "-").sum()), [q for q in QUARTERS if not (quarter == q).any()]
    if not lost:
        return ""
    without = f"; no image is left for: {', '.join(empty)}" if empty else ""
    return f"the setting of {lost} images is not known, so they are in none of the four groups{without}"


def _evidence(name: str, curves: Mapping[str, Labelled], seed: int, where: str = "") -> Evidence:
    if "after" not in curves:
        return missing(NAMES[name], "features", "activations are not finite", mask_policy="items", catalogue=KINDS)
    last = {phase: dict(zip(GROUPS, table.values[-1], strict=True)) for phase, table in curves.items()}
    after = last["after"]
    return evidence(
        NAMES[name],
        "features",
        after["all"],
        n=curves["after"].n,
        mask_policy="items",
        catalogue=KINDS,
        control=last["gold"]["all"] if "gold" in last else after["control"],
        control_name=KINDS[NAMES[name]].control if "gold" in last else "labels shuffled among images",
        config={
            "site": curves["after"].axes[0].labels[-1],
            "shuffled": after["control"],
            **{phase: values["all"] for phase, values in last.items()},
            "groups": {g: after[g] for g in QUARTERS},
            "groups_before": {g: last["before"][g] for g in QUARTERS},
            **({"groups_note": where} if where else {}),
        },
        seed=seed,
    )


register_part(
    Part("image_probes", "class and setting read at every block", "probe", "quick", look, modalities=("image",))
)
