"""States of the original model where it knows nothing: the same questions about invented names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from interp_unlearn._core import DataError, numpy_rng
from interp_unlearn.hooked import HookedModel
from interp_unlearn.probes._forced import WHOLE, Forced, Place, forced
from interp_unlearn.probes._patching import states
from interp_unlearn.worlds import Entity, Prompt, Task, ask_about


def unknown_names(task: Task, n: int, seed: int) -> list[str]:
    """Names of held-out unknown entities, drawn by the seed."""
    pool = [e.name for e in task.unknown_eval]
    order = numpy_rng(seed, "unknown names to patch with").permutation(len(pool))
    return [pool[i] for i in order[:n]]


def unknown_states(
    model: HookedModel,
    prompts: Sequence[Prompt],
    names: Sequence[str],
    sites: Sequence[str],
    place: Place,
    *,
    batch_size: int = 16,
) -> dict[str, Tensor]:
    """Mean states over unknown names, laid out like those of `states` on ``forced(model, prompts)``.

    Every prompt is asked about every name, forced to the same answer. Tokens are matched from the last one of the place
    backwards; where an unknown name has fewer tokens, its first one stands for the rest.

    Args:
        model: The original model.
        prompts: The questions.
        names: Unknown names that take the place of the prompt's.
        sites: Where to read.
        place: ``"name"``, ``"name_end"``, ``"prompt_end"`` or ``"answer"``.
        batch_size: Rows per pass.

    Raises:
        DataError: If there are no names, or the place is ``"content"`` or ``"all"``, whose tokens have no counterpart.
    """
    if not names:
        raise DataError("states of unknown entities need at least one unknown name")
    if place in WHOLE:
        raise DataError("tokens of a whole prompt have no counterpart under another name; choose a place")
    rows = forced(model, prompts)
    counts = rows.at(place).sum(1).tolist()
    total: dict[str, Tensor] = {}
    for name in names:
        mine, order = _renamed(model, rows, prompts, name)
        values = states(model, mine, sites, place, batch_size=batch_size)
        ends = mine.at(place).sum(1).cpu().cumsum(0).tolist()
        starts = [0, *ends[:-1]]
        index: list[int] = []
        for row, count in enumerate(counts):
            start, end = starts[order[row]], ends[order[row]]
            index += [max(start, end - count + i) for i in range(count)]
        for site in sites:
            value = values[site][index].float()
            total[site] = total[site] + value if site in total else value
    return {site: value / len(names) for site, value in total.items()}


def _renamed(model: HookedModel, rows: Forced, prompts: Sequence[Prompt], name: str) -> tuple[Forced, list[int]]:
    """The prompts about another name, and where each row of ``rows`` is among them."""
    stranger = Entity(name, name, "", invented=True)
    by_text = {p.full: ask_about(p, stranger, p.answer) for p in prompts}
    wanted = [by_text[text] for text in rows.texts]
    renamed = forced(model, wanted)
    places: dict[str, list[int]] = {}
    for i, text in enumerate(renamed.texts):
        places.setdefault(text, []).append(i)
    order = [places[p.full].pop(0) for p in wanted]
    return renamed, order
