"""Many runs in one table: every method over targets and seeds, relative to the original and to gold.

Each number of a run is a cell of the headline table; here they are averaged, which is all the arithmetic there is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from interp_unlearn._core import ConfigError
from interp_unlearn.report._compare import GOLD, ORIGINAL, Comparison, compare, group_key
from interp_unlearn.report._estimate import Estimate, Interval, Where, estimate
from interp_unlearn.report._headline import Column, headline, nearest
from interp_unlearn.report._read import RunView

FEW = 6  # units below which a bootstrap interval is far too narrow
EMPTY = Estimate()


@dataclass(frozen=True)
class Measure:
    """One question of the headline table.

    Attributes:
        group: Heading shared with its neighbours.
        label: Its own heading.
        forgotten: What a forgotten target, or an unharmed model, looks like.
        ranked: Whether nearness to gold is marked.
    """

    group: str
    label: str
    forgotten: str
    ranked: bool

    @property
    def name(self) -> str:
        """Both headings."""
        return f"{self.group}: {self.label}"

    def text(self, value: float, *, signed: bool = False) -> str:
        """A number of this measure as shown; the text loss is a relative change."""
        if math.isnan(value):
            return "–"
        sign = "+" if signed or self.group == "Text" else ""
        if self.group == "Text":
            shown = f"{100 * value:{sign}.1f} %"
        elif self.group == "Cost":
            shown = f"{value:{sign}.0f}" if abs(value) >= 10 else f"{value:{sign}.1f}"
        else:
            shown = f"{value:{sign}.{3 if self.label == 'prob.' else 2}f}"
        return shown.replace("-", "−")


@dataclass(frozen=True)
class Entry:
    """One model in one measure.

    Attributes:
        value: The measure itself.
        change: Difference from the original, taken within each target and seed.
        gap: Difference from gold, taken within each target and seed.
        nearest: Whether no other method is nearer to gold, on the targets and seeds that all methods have.
    """

    value: Estimate = EMPTY
    change: Estimate = EMPTY
    gap: Estimate = EMPTY
    nearest: bool = False


@dataclass(frozen=True)
class RunNumber:
    """One number of one run, beside those of the original and of gold."""

    target: str
    seed: str
    method: str
    measure: Measure
    value: float
    original: float
    gold: float
    folder: str


@dataclass(frozen=True)
class Summary:
    """All runs on one model and world.

    Attributes:
        model: The model's name.
        world: The world's name.
        targets: What was forgotten, in order of appearance.
        seeds: Seeds, likewise.
        methods: Names of the runs, likewise.
        measures: The measures that have any number.
        entries: By row (``"original"``, a method, ``"gold"``) and the measure's name.
        numbers: Every number of every run.
        notices: What a reader must know before trusting the table.
    """

    model: str
    world: str
    targets: tuple[str, ...]
    seeds: tuple[str, ...]
    methods: tuple[str, ...]
    measures: tuple[Measure, ...]
    entries: Mapping[tuple[str, str], Entry]
    numbers: tuple[RunNumber, ...]
    notices: tuple[str, ...]

    @property
    def rows(self) -> tuple[str, ...]:
        """The original, the methods, and gold if there is one."""
        gold = any(not self.at(GOLD, m).value.missing for m in self.measures)
        return (ORIGINAL, *self.methods, *([GOLD] if gold else []))

    @property
    def title(self) -> str:
        """What this table is about."""
        return f"{self.model}, {self.world}: {_count(self.targets, 'target')}, {_count(self.seeds, 'seed')}"

    def at(self, row: str, measure: Measure) -> Entry:
        """One cell; empty where there is no number."""
        return self.entries.get((row, measure.name), Entry())

    def only(self, wanted: Sequence[str]) -> Summary:
        """The same table with the measures whose names hold one of these texts (in any case), in their order.

        A table without any number stays as it is.

        Raises:
            ConfigError: If a text is in no name; all names are shown.
        """
        found: list[Measure] = []
        for text in wanted if self.measures else ():
            new = [m for m in self.measures if text.casefold() in m.name.casefold()]
            if not new:
                names = ", ".join(m.name for m in self.measures)
                raise ConfigError(f"no measure of {self.title} has {text!r} in its name; measures: {names}")
            found += [m for m in new if m not in found]
        return replace(self, measures=tuple(found), numbers=tuple(n for n in self.numbers if n.measure in found))


@dataclass
class _Values:
    """Numbers of one model and world, by row and measure, then by target and seed, which differ for each comparison."""

    comparisons: list[Comparison] = field(default_factory=list)
    places: list[Where] = field(default_factory=list)
    measures: dict[str, Measure] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    by: dict[tuple[str, str], dict[Where, float]] = field(default_factory=dict)


def summarise(runs: Iterable[RunView], interval: Interval = "t") -> tuple[Summary, ...]:
    """Average runs over targets and seeds, separately for each model and world.

    Runs that are not finished are left out, which the notices say.

    Args:
        runs: As read by `read_run`.
        interval: See `estimate`.
    """
    groups: dict[str, list[RunView]] = {}
    for run in runs:
        groups.setdefault(group_key(run.config, ("model", "world")), []).append(run)
    return tuple(_summary(group, interval) for group in groups.values())


def _summary(runs: Sequence[RunView], interval: Interval) -> Summary:
    whole = [run for run in runs if run.done]
    values = _collect(compare(whole))
    first = (values.comparisons or list(compare(runs)))[0]
    methods = tuple(dict.fromkeys(m for c in values.comparisons for m in c.methods))
    entries = {key: _entry(values, *key, interval) for key in values.by}
    for measure in values.measures.values():
        if measure.ranked:
            for method in _nearest(values, methods, measure):
                old = entries[method, measure.name]
                entries[method, measure.name] = Entry(old.value, old.change, old.gap, nearest=True)
    measures = tuple(m for name in values.order if (m := values.measures[name]) and _any(entries, name))
    return Summary(
        model=first.model,
        world=first.world,
        targets=tuple(dict.fromkeys(_target(c) for c in values.comparisons)),
        seeds=tuple(dict.fromkeys(str(c.seed) for c in values.comparisons)),
        methods=methods,
        measures=measures,
        entries=entries,
        numbers=tuple(_numbers(values, measures)),
        notices=(*_unfinished(runs), *_doubts(values, methods, interval)),
    )


def _collect(comparisons: Sequence[Comparison]) -> _Values:
    values = _Values(list(comparisons), _places(comparisons))
    for comparison, where in zip(values.comparisons, values.places, strict=True):
        head = headline(comparison, wide=True)
        place = 0
        for i, column in enumerate(head.columns):
            for measure, part in zip(_measures(column), ("value", "beside"), strict=False):
                if measure.name not in values.measures:  # one that only this comparison has goes where it has it
                    values.measures[measure.name] = measure
                    values.order.insert(place, measure.name)
                place = values.order.index(measure.name) + 1
                for row in head.rows:
                    cell = row.cells[i]
                    if not cell.missing and not math.isnan(getattr(cell, part)):
                        values.by.setdefault((row.name, measure.name), {})[where] = getattr(cell, part)
    return values


def _places(comparisons: Sequence[Comparison]) -> list[Where]:
    """Target and seed of each comparison; where two look alike, the second gets another seed's name."""
    places: list[Where] = []
    for comparison in comparisons:
        target, seed = _target(comparison), str(comparison.seed)
        place, number = (target, seed), 2
        while place in places:
            place, number = (target, f"{seed} ({number})"), number + 1
        places.append(place)
    return places


def _measures(column: Column) -> tuple[Measure, ...]:
    """A column's measure, and its control or floor as another one, e.g. ``"level / control"``."""
    label, _, control = column.label.partition(" / ")
    main = Measure(column.group, label, column.forgotten, column.ranked)
    return (main, Measure(column.group, control, "", False)) if control else (main,)


def _entry(values: _Values, row: str, measure: str, interval: Interval) -> Entry:
    mine = values.by[row, measure]

    def less(other: str) -> Estimate:
        theirs = values.by.get((other, measure), {})
        return estimate({w: v - theirs[w] for w, v in mine.items() if w in theirs}, interval)

    return Entry(
        estimate(mine, interval),
        EMPTY if row == ORIGINAL else less(ORIGINAL),
        EMPTY if row == GOLD else less(GOLD),
    )


def _nearest(values: _Values, methods: Sequence[str], measure: Measure) -> list[str]:
    """Methods with the smallest mean distance to gold, on what all methods with a number have in common."""
    gold = values.by.get((GOLD, measure.name), {})
    having = [m for m in methods if (m, measure.name) in values.by]
    shared = set(gold).intersection(*(values.by[m, measure.name] for m in having)) if having else set()
    if len(having) < 2 or not shared:
        return []
    far = {m: sum(abs(values.by[m, measure.name][w] - gold[w]) for w in sorted(shared)) / len(shared) for m in having}
    return nearest(far)


def _numbers(values: _Values, measures: Sequence[Measure]) -> Iterable[RunNumber]:
    for comparison, where in zip(values.comparisons, values.places, strict=True):
        for method, run in comparison.runs.items():
            for measure in measures:
                value, original, gold = (
                    values.by.get((row, measure.name), {}).get(where, math.nan) for row in (method, ORIGINAL, GOLD)
                )
                if not math.isnan(value):
                    yield RunNumber(*where, method, measure, value, original, gold, str(run.path))


def _any(entries: Mapping[tuple[str, str], Entry], measure: str) -> bool:
    return any(name == measure and not entry.value.missing for (_, name), entry in entries.items())


# -- what a reader must know -------------------------------------------------------------------------------------------


def _unfinished(runs: Sequence[RunView]) -> list[str]:
    said = []
    for run in runs:
        if not run.done:
            message = run.status.get("message")
            state = run.status.get("state", "unknown")
            said.append(f"left out: {run.path} is not finished (state: {state}{f'; {message}' if message else ''})")
        elif run.problems:
            said.append(f"{run.path}: {'; '.join(run.problems)}")
    return said


def _doubts(values: _Values, methods: Sequence[str], interval: Interval) -> list[str]:
    said = [f"{c.title}, seed {c.seed}: {doubt}" for c in values.comparisons for doubt in c.doubts()]
    for (target, seed), comparison in zip(values.places, values.comparisons, strict=True):
        if (target, seed) != (_target(comparison), str(comparison.seed)):
            said.append(
                f"{target}, seed {comparison.seed} comes more than once, because the runs' configs write the target or "
                f"the seed in different ways; the further one counts as seed {seed}"
            )
        for name, run in comparison.runs.items():
            if name not in (run.name, f"run {run.name}"):
                said.append(
                    f"{run.name} was run more than once on {target}, seed {seed}; {run.path} is shown as {name}"
                )
    for method in methods:
        missing = [w for w, c in zip(values.places, values.comparisons, strict=True) if method not in c.runs]
        if missing:
            some = ", ".join(f"{target} seed {seed}" for target, seed in missing[:3])
            rest = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            said.append(f"{method} has no finished run for {some}{rest}, so its means are over fewer targets or seeds")
        recipes = {_key(c.runs[method].config.get("recipe")) for c in values.comparisons if method in c.runs}
        if len(recipes) > 1:
            said.append(f"{method} stands for {len(recipes)} different recipes under one name; compare them separately")
    versions = sorted({str(run.config.get("version")) for c in values.comparisons for run in c.runs.values()})
    if len(versions) > 1:
        said.append(f"runs of different versions of interp-unlearn are averaged: {', '.join(versions)}")
    if interval == "bootstrap" and len({target for target, _ in values.places}) < FEW:
        said.append(f"bootstrap intervals over fewer than {FEW} targets are too narrow; t-intervals are not")
    return said


def _target(comparison: Comparison) -> str:
    which = f" ({', '.join(comparison.relations)})" if comparison.relations else ""
    return ", ".join(comparison.target) + which


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _count(things: Sequence[str], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"
