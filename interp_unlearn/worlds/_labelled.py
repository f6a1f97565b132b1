"""Tasks of models that sort things into classes: nodes and edges of a graph, images. Their interface is that of `Task`.

What a graph and an image task share is all that the rest of the package sees of them: sets of labelled items, logits
for items, and labelled rows of activations. So objectives, samplers, probes, diffs and attacks know neither graphs nor
images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.hooked import Activations, HookedModel, Intervention
from interp_unlearn.worlds._types import Modality, Split, Target, Task


@dataclass(frozen=True)
class ItemSet:
    """Items that are asked about together.

    Attributes:
        name: ``"forget_train"``, ``"forget_heldout"``, ``"retain_train"``, ``"neighbours"`` …
        ids: Which node or image, (n,), or the two ends of an edge, (n, 2).
        labels: The true class of each, (n,).
        names: A name of each item for people.
        groups: Further labels of each item, by label name, e.g. ``{"bias": ("aligned", …)}``.
        why_empty: If there are none, the reason, for reports.

    Raises:
        DataError: If lengths differ, a label is negative, or the set is empty without a reason.
    """

    name: str
    ids: Int[Tensor, "n ..."]
    labels: Int[Tensor, " n"]
    names: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    why_empty: str = ""

    def __post_init__(self) -> None:
        n = len(self.ids)
        for what, size in (("labels", len(self.labels)), ("names", len(self.names))):
            if size != n:
                raise DataError(f"the set {self.name!r} has {n} items but {size} {what}; give one per item")
        for key, values in self.groups.items():
            if len(values) != n:
                raise DataError(f"the set {self.name!r} has {n} items but {len(values)} labels {key!r}")
        if n and int(self.labels.min()) < 0:
            raise DataError(f"the set {self.name!r} has a negative class; classes are counted from 0")
        if not n and not self.why_empty:
            raise DataError(f"the set {self.name!r} is empty; give items, or say why there are none")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, which: Sequence[int] | Int[Tensor, " k"], name: str | None = None) -> ItemSet:
        """The chosen items, in that order."""
        index = torch.as_tensor(which, dtype=torch.long)
        picked = index.tolist()
        return ItemSet(
            name or self.name,
            self.ids[index],
            self.labels[index],
            tuple(self.names[i] for i in picked),
            {key: tuple(values[i] for i in picked) for key, values in self.groups.items()},
            self.why_empty or "no item was chosen",
        )

    def facts(self) -> dict[str, Any]:
        """Plain JSON values: what was asked, by name and class."""
        items = {"ids": self.ids.tolist(), "labels": self.labels.tolist(), "names": list(self.names)}
        groups = {key: list(values) for key, values in self.groups.items()}
        return {"name": self.name, **items, "groups": groups, "why_empty": self.why_empty}


class LabelledTask(ABC):
    """What one unlearning run on a graph or image model needs to know about its data.

    Attributes:
        modality: What the model reads.
        world: Name of the data set.
        target: What must be forgotten.
        seed: Seed of the splits.
        classes: Names of the classes; an edge task has the classes *absent* and *present*.
        forget_train: The target, as a recipe may see it.
        forget_heldout: More of the target that no recipe sees (other images of the class); may be empty.
        retain_train: What a recipe may use to keep the rest.
        neighbours: What is like the target, must survive, and is for evaluation only.
        never_known: What is like the target but was never trained on, with its true classes (true edges outside the
            training graph): attacks teach it alike, as their control. Empty, with the reason, where there is none.
        sources: Provenance sentences of the data.
    """

    modality: Modality
    world: str
    target: Target
    seed: int
    classes: tuple[str, ...]
    forget_train: ItemSet
    forget_heldout: ItemSet
    retain_train: ItemSet
    neighbours: ItemSet
    never_known: ItemSet
    sources: tuple[str, ...] = ()

    def item_sets(self) -> tuple[ItemSet, ...]:
        """All sets, in reporting order; a task with more of them adds to these."""
        return (self.forget_train, self.forget_heldout, self.retain_train, self.neighbours, self.never_known)

    def removal(self) -> Intervention | None:
        """What the deletion does to a model's input, whatever the method: deleted edges pass no messages.

        It is applied while a recipe trains, and whenever the edited or the gold model runs. None if nothing is taken
        away.
        """
        return None

    @abstractmethod
    def logits(self, model: HookedModel, ids: Int[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:
        """What the model says of each item, with graph where gradients are on."""

    @abstractmethod
    def rows(self, model: HookedModel, sites: Sequence[str], split: Split = "heldout") -> Activations:
        """Activations with one row per node, edge or image.

        Returns:
            Rows with the labels ``entity`` (the item's name), ``group`` (one of `ROW_GROUPS`) and ``template`` (what
            is read, e.g. ``"node"``), and whatever else the task can say of a row (hops, bias).
        """

    @abstractmethod
    def sites(self, model: HookedModel, stride: int = 1) -> list[str]:
        """Sites captured for evidence, from first to last."""

    @abstractmethod
    def main_site(self, model: HookedModel) -> str:
        """The site where evidence is read first."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What the task was made from, as plain values; two tasks with equal settings are the same task."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values for the run folder and for hashes."""
        return {
            "kind": f"{self.modality} task",
            "modality": self.modality,
            "world": self.world,
            "target": {"entities": list(self.target.entities), "relations": list(self.target.relations)},
            "seed": self.seed,
            "classes": list(self.classes),
            "sets": [found.facts() for found in self.item_sets()],
            "settings": dict(self.settings()),
            "sources": list(self.sources),
        }


AnyTask = Task | LabelledTask
"""The data of a run, whatever its model reads."""


def without_deleted(task: AnyTask, model: HookedModel) -> AbstractContextManager[HookedModel]:
    """The model without what the task's deletion takes out of its input, inside the block."""
    removal = task.removal() if isinstance(task, LabelledTask) else None
    return nullcontext(model) if removal is None else removal.applied(model)


Wanted = TypeVar("Wanted", bound=LabelledTask)


def labelled_task(task: AnyTask, kind: type[Wanted], who: str) -> Wanted:
    """The task, if it is one of a kind.

    Args:
        task: Any task.
        kind: The class that is wanted.
        who: What needs it, as the subject of a sentence.

    Raises:
        ConfigError: If the task is of another kind.
    """
    if isinstance(task, kind):
        return task
    raise ConfigError(
        f"{who} works on a task of the kind {kind.__name__}, but the task is about {task.world} ({task.modality})"
    )


def text_task(task: AnyTask, who: str) -> Task:
    """The task, if it is one of a language model.

    Args:
        task: Any task.
        who: What needs text, as the subject of a sentence.

    Raises:
        ConfigError: If the task is about a graph or images.
    """
    if isinstance(task, Task):
        return task
    raise ConfigError(f"{who} works on text, but the task is about {task.world} ({task.modality})")
