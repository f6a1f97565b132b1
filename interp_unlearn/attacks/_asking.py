"""`Asking`: an attack that asks the same questions under several settings, on one model or on the phases of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from interp_unlearn._core import DataError, Labelled, config_hash
from interp_unlearn.attacks._ask_config import AskConfig
from interp_unlearn.attacks._asked import NEVER_KNOWN, Groups, groups_of
from interp_unlearn.attacks._catalogue import missing
from interp_unlearn.attacks._protocol import AttackResult, Progress
from interp_unlearn.attacks._recall import METRICS, curve_of, pack, recall_table, unpack
from interp_unlearn.attacks._recovery import WHY, recovery_evidence
from interp_unlearn.hooked import HookedModel
from interp_unlearn.probes import Found, Level, Part, Phases
from interp_unlearn.worlds import Prompt, Task


@dataclass(frozen=True)
class Asked:
    """What an attack found by asking.

    Attributes:
        settings: Labels, beginning with ``"none"``.
        scores: (setting, prompt, metric) values of each group, metrics as in `METRICS`.
        facts: What belongs beside the numbers (``chance``, ``reasons`` of settings that could not be tried …).
        mask_policy: Which tokens the values rest on.
        prompts: Questions of the groups that were asked others than given.
    """

    settings: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    mask_policy: str = "answer tokens"
    prompts: Groups = field(default_factory=dict)


Tell = Callable[[int, int], None]
"""Called with how many steps are done and how many there are."""


@dataclass(frozen=True)
class Asking:
    """An attack on one model. It is an `Attack`, and makes a `Part`.

    Attributes:
        name: Registered name.
        what: What it does, in a few words.
        level: The cheapest evidence level that includes it.
        config_type: Its settings.
        ask: Asks the questions of every group under every setting; leaves the weights as they were.
    """

    name: str
    what: str
    level: Level
    config_type: type[AskConfig]
    ask: Callable[[HookedModel, Task, Groups, Any, Tell], Asked]

    def __call__(
        self, model: HookedModel, task: Task, config: Any = None, *, progress: Progress | None = None
    ) -> AttackResult:
        """Attack ``model``; the control asks the same of facts that were never known.

        Raises:
            DataError: If there is no question about the target.
        """
        config = config or self.config_type()
        tables = self.tables(model, task, config, progress, self.what)
        return AttackResult(self.name, (recovery_evidence(self.name, tables),), self._curves(tables))

    def tables(
        self,
        model: HookedModel,
        task: Task,
        config: AskConfig,
        progress: Progress | None,
        what: str,
        leave_out: Sequence[str] = (),
    ) -> dict[str, Labelled]:
        """The recall table of each group."""
        groups, why = groups_of(model, task, config.max_prompts, config.seed)
        asked = {name: prompts for name, prompts in groups.items() if name not in leave_out}

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(what, done, total)

        found = self.ask(model, task, asked, config, tell)
        facts = {self.name: config.to_dict(), **found.facts, **({WHY: why} if why else {})}
        return {
            name: recall_table(
                self.name,
                name,
                found.settings,
                found.scores[name],
                found.prompts.get(name, prompts),
                facts,
                seed=config.seed,
                mask_policy=found.mask_policy,
            )
            for name, prompts in asked.items()
        }

    def look(self, phases: Phases, progress: Progress, config: AskConfig | None = None) -> Found:
        """Attack the edited model and, where it exists, gold."""
        config = replace(config or self.config_type(), seed=phases.seed)
        key = f"{self.name}.{config_hash(config.to_dict())}"

        def measured(phase: str, leave_out: Sequence[str] = ()) -> dict[str, Labelled]:
            what = f"{self.what} ({phase})"
            return unpack(
                phases.once(phase, key, lambda m: pack(self.tables(m, phases.task, config, progress, what, leave_out)))
            )

        try:
            after = measured("after")
        except DataError as error:
            return Found((missing(f"recovery/{self.name}", str(error), seed=phases.seed),))
        gold = measured("gold", (NEVER_KNOWN,)) if "gold" in phases.names else None
        return Found((recovery_evidence(self.name, after, gold),), self._curves(after, gold))

    def part(self, config: AskConfig | None = None) -> Part:
        """The attack as a part of the evidence, with settings of one's own if given."""
        return Part(self.name, self.what, "attack", self.level, lambda p, progress: self.look(p, progress, config))

    def _curves(self, after: Mapping[str, Labelled], gold: Mapping[str, Labelled] | None = None) -> dict[str, Labelled]:
        groups = {**after, **{f"{name}, gold": table for name, table in (gold or {}).items()}}
        return {f"attack.{self.name}": curve_of(groups, self.name)}


def nothing(prompts: Sequence[Prompt]) -> np.ndarray:
    """Scores of a setting that could not be tried, (prompt, metric)."""
    return np.full((len(prompts), len(METRICS)), np.nan)
