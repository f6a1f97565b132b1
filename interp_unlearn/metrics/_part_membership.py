"""The parts ``mia`` and ``mia_gradnorm``: can the target be told from entities that were never known, by likelihood?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import Axis, ConfigError, Evidence, Labelled
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics._evidence import evidence, missing
from interp_unlearn.metrics._membership import (
    ATTACKS,
    K,
    auc_floor,
    auc_interval,
    gradient_norms,
    membership_auc,
    membership_scores,
    privleak,
    s_mia,
)
from interp_unlearn.metrics._never_known import NeverKnown, never_known, thin, why_no_never_known
from interp_unlearn.metrics._resample import cluster_unit
from interp_unlearn.metrics._tokens import token_scores
from interp_unlearn.probes import Found, Part, Phases, register_part
from interp_unlearn.probes._parts import Progress
from interp_unlearn.worlds import Prompt, Task

PRIVLEAK = "min_k"
NO_GOLD = "there is no gold model, so nothing that surely never saw the target"
Scores = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""By attack: scores of members and of non-members."""


@dataclass(frozen=True)
class MembershipConfig:
    """What is compared.

    Attributes:
        members: Questions about the target at most, both kinds of templates.
        others: Questions about never-known entities at most.
        k: Share of the tokens in Min-k and Min-k++.
    """

    members: int = 64
    others: int = 96
    k: float = K

    def __post_init__(self) -> None:
        for name in ("members", "others"):
            if getattr(self, name) < 2:
                raise ConfigError(f"membership.{name} is {getattr(self, name)}; use at least 2")

    @property
    def key(self) -> str:
        """The settings that a measurement depends on."""
        return f"{self.members}.{self.others}.{self.k:g}"


def membership(phases: Phases, progress: Progress, config: MembershipConfig | None = None) -> Found:
    """Membership inference on answers: members = the target's questions, non-members = never-known entities'.

    Evidence ``mia.auc/<attack>`` for loss, zlib, min_k, min_k_pp and (with gold as the reference model) reference;
    ``mia.privleak/min_k`` and ``mia.s_mia/min_k``. ``config`` of an AUC has the same before and in gold, and the floor:
    the 5 % and 95 % quantiles of AUCs of never-known entities in the target's place.
    """
    config = config or MembershipConfig()
    rows = _rows(phases, config)
    if isinstance(rows, str):
        named = [("mia.auc", attack) for attack in (*ATTACKS, "reference")]
        named += [("mia.privleak", PRIVLEAK), ("mia.s_mia", PRIVLEAK)]
        return Found(tuple(missing(kind, where, rows, seed=phases.seed) for kind, where in named))
    members, others = rows
    key = f"mia.{config.key}"
    found = _measured(phases, progress, key, ATTACKS, lambda m: _scores(m, phases.task, members, others, config))
    if "gold" in found:
        gold = found["gold"]["loss"]
        for phase in phases.names:
            own = found[phase]["loss"]
            found[phase]["reference"] = (own[0] - gold[0], own[1] - gold[1])
    compared = _Compared(found, members, others, phases.seed, {"k": config.k})
    aucs = [compared.evidence("mia.auc", attack) for attack in ATTACKS]
    if "gold" in found:
        aucs.append(compared.evidence("mia.auc", "reference"))
    else:
        aucs.append(missing("mia.auc", "reference", NO_GOLD, seed=phases.seed))
    table = compared.table((*ATTACKS, *(("reference",) if "gold" in found else ())))
    return Found((*aucs, *_against_gold(compared)), {"mia": table})


def gradient_membership(phases: Phases, progress: Progress, config: MembershipConfig | None = None) -> Found:
    """The same with gradient norms; one backward pass per question, so it asks fewer of them."""
    config = config or MembershipConfig(members=16, others=32)
    rows = _rows(phases, config)
    if isinstance(rows, str):
        return Found((missing("mia_gradnorm.auc", "gradnorm", rows, seed=phases.seed),))
    members, others = rows

    def measure(model: HookedModel) -> dict[str, Tensor]:
        asked = (members, others.prompts(model, phases.task))
        norms = [gradient_norms(model, [p.text for p in side], [p.answer for p in side]) for side in asked]
        return {"members": torch.tensor(norms[0])[:, None], "others": torch.tensor(norms[1])[:, None]}

    found = _measured(phases, progress, f"mia_gradnorm.{config.members}.{config.others}", ("gradnorm",), measure)
    compared = _Compared(found, members, others, phases.seed, {})
    return Found((compared.evidence("mia_gradnorm.auc", "gradnorm"),), {"mia_gradnorm": compared.table(("gradnorm",))})


def _rows(phases: Phases, config: MembershipConfig) -> tuple[tuple[Prompt, ...], NeverKnown] | str:
    """Members and non-members, or why there are none."""
    task = phases.task
    every = (*task.forget_train.prompts, *task.forget_heldout.prompts)
    why = why_no_never_known(task, every)
    if not why and len(task.unknown_eval) < 2:
        why = "the floor needs at least 2 unknown entities held out for evaluation; make the task with more (n_unknown)"
    if why:
        return why
    members = tuple(every[i] for i in thin(len(every), config.members, phases.seed, "members"))
    return members, never_known(task, members, at_most=config.others, seed=phases.seed)


def _scores(
    model: HookedModel, task: Task, members: tuple[Prompt, ...], others: NeverKnown, config: MembershipConfig
) -> dict[str, Tensor]:
    measured = {}
    for name, asked in (("members", members), ("others", others.prompts(model, task))):
        answers = [p.answer for p in asked]
        scored = token_scores(model, [p.text for p in asked], answers)
        columns = [membership_scores(scored, attack, texts=answers, k=config.k) for attack in ATTACKS]
        measured[name] = torch.tensor(np.stack(columns, axis=1))
    return measured


def _measured(
    phases: Phases,
    progress: Progress,
    key: str,
    attacks: tuple[str, ...],
    measure: Callable[[HookedModel], dict[str, Tensor]],
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Scores of members and non-members by phase and attack."""
    found = {}
    for i, phase in enumerate(phases.names):
        progress(f"membership inference ({phase})", i, len(phases.names))
        kept = phases.once(phase, key, measure)
        sides = [kept[side].double().numpy() for side in ("members", "others")]
        found[phase] = {attack: (sides[0][:, k], sides[1][:, k]) for k, attack in enumerate(attacks)}
    return found


@dataclass(frozen=True)
class _Compared:
    """Scores of every phase, who they belong to, and what is made of them."""

    scores: Mapping[str, Scores]
    members: tuple[Prompt, ...]
    others: NeverKnown
    seed: int
    settings: Mapping[str, float]

    def auc(self, phase: str, attack: str) -> float:
        return membership_auc(*self.scores[phase][attack])

    def clusters(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        unit = cluster_unit([p.entity for p in self.members], [p.template for p in self.members])
        return unit[1], tuple(e.id for e in self.others.entities)

    def interval(self, attack: str) -> tuple[float, float] | None:
        scores = self.scores["after"][attack]
        return auc_interval(*scores, *self.clusters(), seed=self.seed) if _finite(scores) else None

    def evidence(self, kind: str, attack: str) -> Evidence:
        scores = self.scores["after"][attack]
        n_entities, n_others = len({p.entity for p in self.members}), len(set(self.clusters()[1]))
        floor = auc_floor(scores[1], self.clusters()[1], n_entities, seed=self.seed) if _finite(scores) else None
        # As a reference model gold scores 0 everywhere, so that its own AUC would say nothing.
        gold = self.auc("gold", attack) if "gold" in self.scores and attack != "reference" else None
        value = self.auc("after", attack)
        low, high = (None, None) if floor is None else (float(q) for q in np.quantile(floor, [0.05, 0.95]))
        return evidence(
            kind,
            attack,
            value,
            n=len(self.members),
            interval=self.interval(attack),
            control=None if floor is None else float(np.median(floor)),
            config={
                "before": self.auc("before", attack),
                "gold": gold,
                "floor": [low, high],
                "outside_floor": None if low is None or high is None else not low <= value <= high,
                "n_members": len(self.members),
                "n_others": len(self.others),
                "n_entities": [n_entities, n_others],
                "questions_per_entity": [len(self.members) / n_entities, len(self.others) / n_others],
                **self.settings,
            },
            seed=self.seed,
        )

    def table(self, attacks: tuple[str, ...]) -> Labelled:
        """AUC of every phase and attack, with every score in ``config``, so that curves can be drawn."""
        phases = tuple(self.scores)
        return Labelled(
            "membership AUC",
            np.array([[self.auc(p, a) for a in attacks] for p in phases]),
            (Axis("phase", phases), Axis("attack", attacks)),
            n=len(self.members) + len(self.others),
            mask_policy="answer tokens",
            config={
                "members": {p: {a: self.scores[p][a][0].tolist() for a in attacks} for p in phases},
                "others": {p: {a: self.scores[p][a][1].tolist() for a in attacks} for p in phases},
            },
            seed=self.seed,
            note="1 = the target is remembered, 0.5 = chance, below it over-forgotten; a high score = never seen",
        )


def _against_gold(compared: _Compared) -> tuple[Evidence, Evidence]:
    """PrivLeak and the bounded score of Min-k."""
    auc, interval = compared.auc("after", PRIVLEAK), compared.interval(PRIVLEAK)
    before = compared.auc("before", PRIVLEAK)
    gold = compared.auc("gold", PRIVLEAK) if "gold" in compared.scores else None
    reference = 0.5 if gold is None else gold
    shared: dict[str, Any] = {"n": len(compared.members), "seed": compared.seed}
    leak = evidence(
        "mia.privleak",
        PRIVLEAK,
        privleak(auc, reference),
        interval=None if interval is None else (privleak(interval[1], reference), privleak(interval[0], reference)),
        control=0.0,
        config={
            "auc": auc,
            "reference_auc": reference,
            "reference": "gold" if gold is not None else "0.5 (chance): there is no gold model",
            "before": privleak(before, reference),
            **compared.settings,
        },
        **shared,
    )
    if gold is None:
        return leak, missing("mia.s_mia", PRIVLEAK, NO_GOLD, seed=compared.seed)
    ends = None if interval is None else [s_mia(a, gold) for a in interval]
    covered = interval is not None and interval[0] <= gold <= interval[1]
    bounded = evidence(
        "mia.s_mia",
        PRIVLEAK,
        s_mia(auc, gold),
        interval=None if ends is None else (min(ends), 1.0 if covered else max(ends)),
        control=s_mia(before, gold),
        config={"auc": auc, "reference_auc": gold, **compared.settings},
        **shared,
    )
    return leak, bounded


def _finite(scores: tuple[np.ndarray, np.ndarray]) -> bool:
    return bool(not np.isnan(scores[0]).any() and not np.isnan(scores[1]).any())


register_part(
    Part(
        "mia",
        "membership inference: target against never-known entities, by likelihood of the answers",
        "behaviour",
        "standard",
        membership,
    )
)
register_part(
    Part(
        "mia_gradnorm",
        "membership inference by gradient norms",
        "behaviour",
        "full",
        gradient_membership,
    )
)
