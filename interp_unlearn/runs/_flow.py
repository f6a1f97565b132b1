"""What differs between kinds of models in a run: how they are opened, asked, read, attacked and retrained.

`run` takes every model along the same road and knows none of them; a `Flow` fills in the steps for one modality. The
world that a config names decides which.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from interp_unlearn._core import Evidence, Labelled, Registry
from interp_unlearn.hooked import HookedModel
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._workbench import Progress, Workbench, silent
from interp_unlearn.unlearn import Recipe
from interp_unlearn.worlds import Modality


class Flow(ABC):
    """The steps of a run for one modality.

    Attributes:
        modality: What the models read.
    """

    modality: ClassVar[Modality]

    @abstractmethod
    def open(self, config: RunConfig, progress: Progress) -> Workbench:
        """Open model and task, and check that the model knows the target.

        Raises:
            NothingToForgetError: If it does not.
            ConfigError, DataError, ModelError: If something named does not exist or does not fit.
        """

    def reopen(self, config: RunConfig, out: RunFolder, progress: Progress) -> Workbench:
        """Open model and task of a run that is there already."""
        return self.open(config, progress)

    @abstractmethod
    def open_named(self, config: RunConfig, name: str, bench: Workbench | None, progress: Progress) -> HookedModel:
        """A model of the same kind as the original, by a name in the config: an edited one, or gold.

        Args:
            config: Of the run.
            name: A path, or whatever else names a model of this kind.
            bench: The original, where it is open already.
            progress: Told what is going on.

        Raises:
            ModelError: If it cannot be opened.
        """

    @abstractmethod
    def sizes(self, model: HookedModel) -> dict[str, Any]:
        """What two checkpoints of one architecture have in common, as plain values."""

    @abstractmethod
    def check_data(self, bench: Workbench) -> None:
        """Refuse a task that cannot decide an audit.

        Raises:
            DataError: If there is too little to compare the target with.
        """

    @abstractmethod
    def check_fits(self, bench: Workbench, sizes: Mapping[str, Any], tokenizer: Any, who: str) -> None:
        """Refuse a checkpoint of another architecture, or that reads its input otherwise.

        Raises:
            ModelError: Which says what differs.
        """

    @abstractmethod
    def check_answers(self, bench: Workbench) -> None:
        """Refuse a model that says NaN, or the same whatever it is asked.

        Raises:
            ModelError: Which says which of both.
        """

    @abstractmethod
    def check_gold(self, bench: Workbench, gold: HookedModel) -> None:
        """Refuse a gold model that knows the target.

        Raises:
            ModelError: With what it knows.
        """

    @abstractmethod
    def recipe(self, config: RunConfig, bench: Workbench, given: Mapping[str, Any]) -> Recipe:
        """The whole recipe, with defaults for this model."""

    @abstractmethod
    def parity(self, bench: Workbench) -> Evidence:
        """Whether hooks change what the model computes."""

    @abstractmethod
    def measure(self, config: RunConfig, out: RunFolder, bench: Workbench, phase: str, progress: Progress) -> None:
        """Behaviour and activations of the model as it is now, saved in ``out`` under ``phase``."""

    @abstractmethod
    def look(self, bench: Workbench) -> dict[str, float]:
        """Share of right answers by set, of the model as it is now: a look that costs little, while training."""

    @abstractmethod
    def relearn(self, config: RunConfig, bench: Workbench, who: str, progress: Progress) -> list[Labelled]:
        """Relearning curves of the model as it is now, ``relearn.<who>``; of the edited one also the control's.

        Empty where the config wants none, or there is nothing to teach.
        """

    @abstractmethod
    def changes(self, config: RunConfig, out: RunFolder) -> list[Labelled]:
        """Changes of behaviour, before against after, from saved tables."""

    @abstractmethod
    def evidence(self, config: RunConfig, out: RunFolder, bench: Workbench, progress: Progress) -> list[Evidence]:
        """Evidence from saved activations and tables; saves the diff tables."""

    @abstractmethod
    def makes_gold(self, config: RunConfig, bench: Workbench) -> bool:
        """Whether the model can be retrained without the target."""

    @abstractmethod
    def retrain(self, config: RunConfig, bench: Workbench, progress: Progress) -> HookedModel:
        """The model retrained without the target, cached."""

    def has_gold(self, config: RunConfig, bench: Workbench) -> bool:
        """Whether a gold model was named, or can be made."""
        return config.model.gold is not None or self.makes_gold(config, bench)

    def open_gold(self, config: RunConfig, bench: Workbench, progress: Progress) -> HookedModel:
        """The gold model that was named, else the retrained one.

        Raises:
            ModelError: If the one that was named cannot be opened.
        """
        if config.model.gold is not None:
            return self.open_named(config, config.model.gold, bench, progress)
        return self.retrain(config, bench, progress)


FLOWS: Registry[Flow] = Registry("modality")
"""Flows by modality."""

WORLDS: dict[str, Modality] = {}
"""Modality by world; a world that is not named here is one of a language model."""


def register_flow(flow: Flow, worlds: tuple[str, ...] = ()) -> Flow:
    """File a flow under its modality, for configs that name one of ``worlds``."""
    FLOWS.register(flow.modality)(flow)
    WORLDS.update(dict.fromkeys(worlds, flow.modality))
    return flow


def flow_of(config: RunConfig) -> Flow:
    """The flow of the world that a config names."""
    return FLOWS[WORLDS.get(config.world.name, "language")]


def open_workbench(config: RunConfig, progress: Progress = silent) -> Workbench:
    """Open what ``config`` names, and check that the model knows the target.

    Raises:
        NothingToForgetError: If it does not.
        ConfigError, DataError, ModelError: If something named does not exist or does not fit.
    """
    return flow_of(config).open(config, progress)


def reopen_workbench(config: RunConfig, out: RunFolder, progress: Progress = silent) -> Workbench:
    """Open what a run in a folder was made with, and what it saved of its task.

    Raises:
        FileFormatError: If the saved task is missing or cannot be read.
        ConfigError, DataError, ModelError: If something named does not exist any more or does not fit.
    """
    return flow_of(config).reopen(config, out, progress)
