"""The steps that runs on graphs and on images share; a modality says how its models are opened and retrained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from interp_unlearn._core import ConfigError, DataError, Evidence, Labelled, ModelError
from interp_unlearn.attacks import ItemRelearnConfig, relearn_evidence, relearn_items
from interp_unlearn.diff import compare_activations
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics import (
    PromptScores,
    behaviour_by_group,
    behaviour_by_item,
    behaviour_change,
    behaviour_intervals,
)
from interp_unlearn.probes import run_probes
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._edited_checks import COLLAPSED
from interp_unlearn.runs._flow import Flow
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._workbench import Progress, Workbench
from interp_unlearn.unlearn import Recipe, merge_recipes
from interp_unlearn.worlds import LabelledTask


class LabelledFlow(Flow):
    """Models that sort nodes, edges or images into classes."""

    @abstractmethod
    def defaults(self, objective: str, bench: Workbench) -> dict[str, Any]:
        """Fields of the recipe where a config gives none."""

    def own_tables(self, config: RunConfig, bench: Workbench, phase: str) -> list[Labelled]:
        """Further tables of the model as it is now, named ``<name>.<phase>``."""
        return []

    def own_evidence(self, config: RunConfig, out: RunFolder, bench: Workbench) -> list[Evidence]:
        """Further evidence from saved results."""
        return []

    def task(self, bench: Workbench) -> LabelledTask:
        """The run's task.

        Raises:
            ConfigError: If it is one of a language model.
        """
        if not isinstance(bench.any_task, LabelledTask):
            raise ConfigError(f"{bench.any_task.world} is a world of language models, not of {self.modality} models")
        return bench.any_task

    def recipe(self, config: RunConfig, bench: Workbench, given: Mapping[str, Any]) -> Recipe:
        """The modality's defaults, with the config's fields over them (tables are merged field by field)."""
        rest = dict(given)
        objective = str(rest.pop("objective"))
        return Recipe.from_dict({"objective": objective, **merge_recipes(self.defaults(objective, bench), rest)})

    def sizes(self, model: HookedModel) -> dict[str, Any]:
        """The architecture's name and its number of weights."""
        weights = sum(p.numel() for p in model.module.parameters())
        return {"kind": type(model.module).__name__, "weights": weights}

    def check_data(self, bench: Workbench) -> None:
        """Refuse a target without items."""
        task = self.task(bench)
        if not len(task.forget_train):
            raise DataError(f"there is nothing to ask about the target: {task.forget_train.why_empty}")

    def check_fits(self, bench: Workbench, sizes: Mapping[str, Any], tokenizer: Any, who: str) -> None:
        """Refuse another architecture or number of weights."""
        mine = self.sizes(bench.model)
        for key, what in (("kind", "architecture"), ("weights", "number of weights")):
            if mine[key] != sizes.get(key):
                raise ModelError(
                    f"{who} has another {what} ({sizes.get(key)}) than the original ({mine[key]}); "
                    "only checkpoints of one architecture can be compared"
                )

    @torch.no_grad()
    def check_answers(self, bench: Workbench) -> None:
        """Refuse logits that are NaN, or the same for every item."""
        task = self.task(bench)
        logits = torch.cat([task.logits(bench.model, s.ids[:16]).float() for s in task.item_sets() if len(s)])
        if not bool(torch.isfinite(logits).all()):
            raise ModelError("the unlearned model is collapsed: its logits are NaN or infinite; it is broken")
        spread = (logits - logits.mean(0)).abs().max()
        if len(logits) > 1 and float(spread) <= COLLAPSED * max(float(logits.abs().max()), 1e-30):
            raise ModelError("the unlearned model is collapsed: its logits are the same for every item; it is broken")

    def check_gold(self, bench: Workbench, gold: HookedModel) -> None:
        """Nothing: a retrained model may well score what was deleted as the original does (see the docs)."""

    def parity(self, bench: Workbench) -> Evidence:
        """Bare against hooked logits on items of the task."""
        task = self.task(bench)
        ids = task.forget_train.ids[:8]
        with torch.no_grad():
            bare = task.logits(bench.model, ids)
            task.rows(bench.model, task.sites(bench.model))
            again = task.logits(bench.model, ids)
        return Evidence(
            name="parity",
            question="Are the logits of the hooked model those of the bare one?",
            value=float((bare - again).abs().max()),
            direction="low",
            n=len(ids),
            mask_policy="items",
            does_not_show="that the model's file is what its author published",
            control=0.0,
            control_name="bit-identical",
            config={"identical": bool(torch.equal(bare, again)), "sites_hooked": len(task.sites(bench.model))},
        )

    def measure(self, config: RunConfig, out: RunFolder, bench: Workbench, phase: str, progress: Progress) -> None:
        """Behaviour by item, set and group, and activations of the rows."""
        task = self.task(bench)
        progress(f"measuring behaviour ({phase})", 0, 0)
        scores = behaviour_by_item(bench.model, task)
        tables = {
            "behaviour_by_prompt": scores.table,
            "behaviour": scores.summary(),
            "behaviour_intervals": behaviour_intervals(scores, seed=config.seed),
            **{table.name: table for table in behaviour_by_group(scores, task)},
        }
        out.save_tables([replace(table, name=f"{name}.{phase}") for name, table in tables.items()])
        out.save_tables(self.own_tables(config, bench, phase))
        progress(f"capturing rows ({phase})", 0, 0)
        out.save_activations(phase, task.rows(bench.model, bench.sites(config.evidence.layer_stride)))

    @torch.no_grad()
    def look(self, bench: Workbench) -> dict[str, float]:
        """Share of right items by set."""
        task = self.task(bench)
        sets = [s for s in task.item_sets() if len(s)]
        right = [task.logits(bench.model, s.ids).argmax(1).cpu() == s.labels.cpu() for s in sets]
        return {f"{s.name}.exact": float(r.double().mean()) for s, r in zip(sets, right, strict=True)}

    def changes(self, config: RunConfig, out: RunFolder) -> list[Labelled]:
        """Changes of behaviour on the same items."""
        before, after = (out.table(f"behaviour_by_prompt.{phase}") for phase in ("before", "after"))
        if before is None or after is None:
            return []
        change = behaviour_change(PromptScores(before), PromptScores(after), seed=config.seed)
        return [replace(change, name="behaviour_change")]

    def relearn(self, config: RunConfig, bench: Workbench, who: str, progress: Progress) -> list[Labelled]:
        """Relearning of a part of the target; of the edited model also of what was never known."""
        task = self.task(bench)
        settings = ItemRelearnConfig(seed=config.seed)
        if len(task.forget_train) < 4:
            return []
        found = [replace(relearn_items(bench.model, task, settings, progress=progress), name=f"relearn.{who}")]
        if who == "after" and len(task.never_known) >= 4:
            items = task.never_known.take(range(min(len(task.never_known), len(task.forget_train))))
            control = relearn_items(bench.model, task, settings, items=items, who="never known", progress=progress)
            found.append(replace(control, name="relearn.control"))
        return found

    def evidence(self, config: RunConfig, out: RunFolder, bench: Workbench, progress: Progress) -> list[Evidence]:
        """What the rows' activations show, and relearning."""
        progress("probing what moved", 0, 0)
        before, after = out.activations("before"), out.activations("after")
        gold = out.activations("gold") if (out.path / "activations" / "gold").exists() else None
        found = run_probes(before, after, site=bench.site, layers=list(before.sites), gold=gold, seed=config.seed)
        out.save_tables(compare_activations(before, after))
        curves = {who: out.table(f"relearn.{who}") for who in ("after", "control", "before", "gold")}
        if curves["after"] is not None and (curves["control"] is not None or curves["gold"] is not None):
            found.append(_relearned(curves, config.seed))
        return [*found, *self.own_evidence(config, out, bench)]


def _relearned(curves: Mapping[str, Labelled | None], seed: int) -> Evidence:
    """The evidence of relearning, with how often bystanders are called the target's class at first and at last."""
    after = curves["after"]
    if after is None:
        raise DataError("relearning of the edited model was not saved; run it again")
    found = relearn_evidence(after, curves["control"], curves["before"], curves["gold"], seed=seed)
    apart: dict[str, Any] = {}
    for who, curve in curves.items():
        if curve is not None and "bystanders" in curve.config:
            beside = curve.config["bystanders"]
            wrong = torch.tensor([*beside["exact"].values()]).mean(0)
            recall = curve.config["recall"]["exact"]
            apart[who] = {"recall": [recall[0], recall[-1]], "bystanders": [float(wrong[0]), float(wrong[-1])]}
    control = "never-known items, taught alike" if curves["gold"] is None else found.control_name
    return replace(found, config={**found.config, "apart": apart}, control_name=control, mask_policy="items")
