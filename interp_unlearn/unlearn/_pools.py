"""What the loop does with pools before anything is drawn: label retain items, refuse sets that contradict."""

from __future__ import annotations

from dataclasses import replace

from interp_unlearn._core import DataError
from interp_unlearn.unlearn._protocols import Item, Pools
from interp_unlearn.worlds import AnyTask, LabelledTask, labels_of


def label_pools(pools: Pools, task: AnyTask) -> Pools:
    """Say of every retain item whose neighbour it is, so that samplers can pair by topic.

    Labels come from `with_neighbours`; without them known reference entities count as indirect neighbours. Invented
    entities and text are general. Items of graphs and images keep the labels that their objective gave them.
    """
    if isinstance(task, LabelledTask):
        return pools
    labels = labels_of(task)

    def label(item: Item) -> Item:
        found = labels.get(item.entity)
        if found is None:
            return replace(item, neighbour="general")
        return replace(item, neighbour=found.kind, target=found.target)

    return replace(pools, retain=tuple(label(item) for item in pools.retain))


def check_apart(task: AnyTask) -> None:
    """Refuse a retain set that is the forget set.

    Raises:
        DataError: If every forget question is also a retain question, or the other way round.
    """
    forget, retain = _asked(task, "forget_train"), _asked(task, "retain_train")
    if forget and retain and (forget <= retain or retain <= forget):
        raise DataError(
            f"the retain set contains the forget set or lies inside it ({len(forget & retain)} questions are in both), "
            "so one term undoes the other; take the target's questions out of the retain set"
        )


def _asked(task: AnyTask, name: str) -> set[tuple[object, object]]:
    """The questions of one set, or its items, with their answers."""
    found = getattr(task, name)
    if isinstance(task, LabelledTask):
        which = (tuple(i) if isinstance(i, list) else i for i in found.ids.tolist())
        return set(zip(which, found.labels.tolist(), strict=True))
    return {(p.text, p.answer) for p in found.prompts}
