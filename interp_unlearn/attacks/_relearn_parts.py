"""Relearning variants: what is taught differs; steps, optimiser and questions are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from interp_unlearn._core import (
    ConfigError,
    DataError,
    Evidence,
    Labelled,
    MissingPackageError,
    ModelError,
    TrainingDivergedError,
    config_hash,
)
from interp_unlearn.attacks._asked import NEVER_KNOWN, TARGET, target_prompts
from interp_unlearn.attacks._catalogue import evidence, missing
from interp_unlearn.attacks._config import RelearnConfig
from interp_unlearn.attacks._evidence import relearn_evidence
from interp_unlearn.attacks._protocol import AttackResult, Progress
from interp_unlearn.attacks._recall import UNATTACKED, ask, curve_of, pack, recall_table, unpack
from interp_unlearn.attacks._recovery import WHY, recovery_evidence
from interp_unlearn.attacks._relearn import relearn
from interp_unlearn.hooked import HookedModel
from interp_unlearn.probes import Found, Level, Part, Phases
from interp_unlearn.worlds import Prompt, Task, fact_of

Tables = dict[str, Labelled]
CANNOT = (DataError, ConfigError, MissingPackageError, ModelError, TrainingDivergedError)
"""What makes a variant impossible for a target, model or machine; as a part it is then a missing evidence."""


@dataclass(frozen=True)
class RelearnVariant:
    """A relearning variant. It is an `Attack`, and makes a `Part`.

    Attributes:
        name: Registered name.
        what: What it does, in a few words.
        level: The cheapest evidence level that includes it.
        defaults: Its settings.
        suppression: Whether it also says if the target is relearned more slowly than never-known facts.
    """

    name: str
    what: str
    level: Level
    defaults: RelearnConfig
    suppression: bool = False

    config_type = RelearnConfig

    def __call__(
        self, model: HookedModel, task: Task, config: Any = None, *, progress: Progress | None = None
    ) -> AttackResult:
        """Relearn; the control is what the same effort does for facts that were never known.

        Raises:
            ConfigError: If a part of the facts is to be taught and there is only one.
            DataError: If there is nothing to teach or to test, or too few unknown entities.
        """
        config = config or replace(self.defaults, seed=task.seed)
        tables = relearn(model, task, config, progress=progress).tables()
        return AttackResult(self.name, self._evidence(tables, None, None), self._saved(tables, None))

    def part(self, config: RelearnConfig | None = None) -> Part:
        """The variant as a part of the evidence, with settings of one's own if given."""
        return Part(self.name, self.what, "attack", self.level, lambda p, progress: self.look(p, progress, config))

    def look(self, phases: Phases, progress: Progress, config: RelearnConfig | None = None) -> Found:
        """Relearn the edited model and, where it exists, gold."""
        task = phases.task
        config = replace(config or self.defaults, seed=phases.seed)
        why = ""
        if config.fact_share < 1 and len({fact_of(p) for p in task.forget_train.prompts}) < 2:
            why = "the target is a single fact: if it is taught there is no rest to test"
            if not self.suppression:
                return Found((missing(f"recovery/{self.name}", why, seed=phases.seed),))
            config = replace(config, fact_share=1.0)
        n_target = len({p.entity for p in task.forget_train.prompts})
        unknown = len(getattr(task, config.control_entities))
        no_control = ""
        if unknown < (n_target if config.teach == "target" else 1):
            no_control = f"{n_target} unknown entities are needed to teach never-known facts, the task has {unknown}"
            config = replace(config, controls=0)
        try:
            after = self._measured(phases, "after", config, progress)
            gold = None
            if "gold" in phases.names:
                gold = self._measured(phases, "gold", replace(config, controls=0), progress)
            full = _full_level(phases, config)
        except CANNOT as error:
            ids = [f"recovery/{self.name}", *(["suppression/relearn"] if self.suppression else [])]
            return Found(tuple(missing(name, str(error), seed=phases.seed) for name in ids))
        found = self._evidence(after, gold, full, no_control)
        if why:
            found = (missing(f"recovery/{self.name}", why, seed=phases.seed), *found[1:])
        return Found(found, self._saved(after, gold))

    def _measured(self, phases: Phases, phase: str, config: RelearnConfig, progress: Progress) -> Tables:
        def tell(what: str, done: int, total: int) -> None:
            progress(f"{what}, {phase}", done, total)

        key = f"{self.name}.{config_hash(config.to_dict())}"
        return unpack(
            phases.once(phase, key, lambda model: pack(relearn(model, phases.task, config, progress=tell).tables()))
        )

    def _evidence(
        self, after: Tables, gold: Tables | None, full: float | None, no_control: str = ""
    ) -> tuple[Evidence, ...]:
        """Recovery, the area between the curves, and suppression."""
        recalls = self._recalls(after, no_control)
        found = [recovery_evidence(self.name, recalls, None if gold is None else self._recalls(gold, ""))]
        seed = after["relearn.target"].seed or 0
        if "relearn.control" in after:
            area = relearn_evidence(
                after["relearn.target"],
                after["relearn.control"],
                gold=_alike(gold, "relearn.target", after),
                full_level=full,
                seed=seed,
            )
            found.append(replace(area, name=f"{self.name}.area", details={}))
        if self.suppression:
            found.append(_suppression(after, gold, full, no_control, seed))
        return tuple(found)

    def _recalls(self, tables: Tables, no_control: str) -> Tables:
        """Recall tables of target and never-known facts, the steps as settings."""
        out = {TARGET: self._recall(tables["relearn.target"], TARGET, no_control)}
        if "relearn.control" in tables:
            out[NEVER_KNOWN] = self._recall(tables["relearn.control"], NEVER_KNOWN, no_control)
        return out

    def _recall(self, curve: Labelled, group: str, no_control: str) -> Labelled:
        kept = curve.config["by_prompt"]
        scores = np.stack([np.array(kept["exact"]), np.array(kept["probability"])], axis=2)
        steps = [f"step {label}" for label in curve.axes[0].labels[1:]]
        prompts = [
            Prompt("", "", entity, relation, template, (0, 0))
            for (entity, relation), template in zip(curve.config["facts"], curve.config["templates"], strict=True)
        ]
        facts = {k: curve.config[k] for k in ("relearn", "learning_rate", "n_relearned", "trained", "set")}
        return recall_table(
            self.name,
            group,
            (UNATTACKED, *steps),
            scores,
            prompts,
            {**facts, **({WHY: no_control} if no_control else {})},
            seed=curve.seed or 0,
        )

    def _saved(self, after: Tables, gold: Tables | None) -> Tables:
        """The curve of every group, and the curves with every prompt."""
        groups = self._recalls(after, "")
        if gold is not None:
            groups["target, gold"] = self._recalls(gold, "")[TARGET]
        named = {f"attack.{self.name}.{name.removeprefix('relearn.')}": table for name, table in after.items()}
        named |= {f"attack.{self.name}.gold": gold["relearn.target"]} if gold is not None else {}
        return {f"attack.{self.name}": curve_of(groups, self.name), **named}


def _alike(tables: Mapping[str, Labelled] | None, name: str, after: Tables) -> Labelled | None:
    """Gold's curve with the settings of the edited model's, from which it differs in the number of controls only."""
    if tables is None or name not in tables:
        return None
    settings = after["relearn.target"].config["relearn"]
    return replace(tables[name], config={**tables[name].config, "relearn": settings})


def _full_level(phases: Phases, config: RelearnConfig) -> float:
    """Mean probability that the original gives to the target's answers: what full recovery is."""
    prompts = target_prompts(phases.task, config.max_prompts, config.seed)
    key = f"target.level.{config.max_prompts}.{config.seed}"
    kept = phases.once("before", key, lambda model: {"scores": torch.from_numpy(ask(model, prompts))})
    return float(kept["scores"][:, 1].mean())


def _suppression(after: Tables, gold: Tables | None, full: float | None, no_control: str, seed: int) -> Evidence:
    """Area under the curve of the taught facts in wordings that are not taught, against never-known facts."""
    name = "suppression/relearn"
    part = "_heldout" if "relearn.target_heldout" in after else ""
    if f"relearn.control{part}" not in after:
        return missing(name, no_control or "no never-known facts were taught (relearn.controls is 0)", seed=seed)
    found = relearn_evidence(
        after[f"relearn.target{part}"],
        after[f"relearn.control{part}"],
        gold=_alike(gold, f"relearn.target{part}", after),
        full_level=full,
        seed=seed,
    )
    areas = found.config["areas"]
    return evidence(
        name,
        areas["target"],
        n=found.n,
        interval=found.interval,
        control=areas["never known"],
        control_name="never-known facts, taught alike to the same model",
        config=dict(found.config),
        seed=seed,
    )


REST = RelearnConfig(
    steps=24,
    eval_every=6,
    batch_size=16,
    pace=3.0,
    fact_share=0.5,
    templates_per_fact=2,
    controls=1,
    control_entities="unknown_eval",
)
WHOLE = replace(REST, fact_share=1.0, templates_per_fact=None, pace=1.0)

VARIANTS = (
    RelearnVariant("relearn_rest", "relearning a part", "standard", REST, suppression=True),
    RelearnVariant("relearn_templates", "relearning in other words", "full", WHOLE),
    RelearnVariant("relearn_neighbours", "relearning neighbours", "full", replace(WHOLE, teach="neighbours")),
    RelearnVariant("relearn_text", "training on unrelated text", "full", replace(WHOLE, teach="text")),
    RelearnVariant("relearn_lora", "relearning a part through a LoRA", "full", replace(REST, lora_rank=8)),
)
