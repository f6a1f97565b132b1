"""What a run can show, page by page: each view says what it needs, what may be chosen in it, and how it is drawn.

The report draws every group of pictures below each other. A view that people click through draws one at a time, so it
asks first: `views_of` gives the views of one page for which a run has saved something. No view knows which method or
which kind of model made a run; it knows names of tables and of evidence.

Example:
    >>> comparison = compare([read_run("runs/japan")])[0]
    >>> [view.title for view in views_of(comparison, "lens")]
    ['Logit lens by layer', 'Logit lens on one prompt']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from interp_unlearn._core import Labelled, Registry
from interp_unlearn.report import plots
from interp_unlearn.report._compare import Comparison
from interp_unlearn.report._details import by_model, drawable, figures
from interp_unlearn.report._kinds import tables_of
from interp_unlearn.report._slices import Pictures

Choices = Mapping[str, tuple[str, ...]]
"""What may be chosen in a view: the name of each choice, and what there is to choose from."""
Chosen = Mapping[str, str]

EVENTS = "events.jsonl"
PAGES = ("run", "inside", "latents", "neurons", "lens", "attacks")


def no_choices(_comparison: Comparison) -> Choices:
    """Of views in which nothing is to be chosen."""
    return {}


@dataclass(frozen=True)
class View:
    """One thing to look at.

    Attributes:
        name: Stable, for links.
        page: One of `PAGES`.
        title: Heading.
        needs: Beginnings of names of tables or evidence, or `EVENTS`; a run that saved one of them has something to
            show. Without any, drawing tells.
        missing: What to do where a run saved none of them; empty if that is as it should be.
        draw: Makes the pictures, given what was chosen.
        choices: What may be chosen.
    """

    name: str
    page: str
    title: str
    needs: tuple[str, ...]
    missing: str
    draw: Callable[[Comparison, Chosen], Pictures]
    choices: Callable[[Comparison], Choices] = no_choices

    def ready(self, comparison: Comparison) -> bool:
        """Whether a run saved what this view needs."""
        if not self.needs:
            return bool(self.draw(comparison, {}).figures)
        events = [EVENTS] if any(run.events for run in comparison.runs.values()) else []
        names = (*comparison.names("tables"), *comparison.names("evidence"), *events)
        return any(name.startswith(self.needs) for name in names)


VIEWS: Registry[View] = Registry("view")


def register_view(view: View) -> View:
    """File a view under its name; it then appears on its page."""
    return VIEWS.register(view.name)(view)


def views_of(comparison: Comparison, page: str) -> tuple[View, ...]:
    """Views of one page for which these runs saved something, in the order in which they were registered."""
    own = [view for view in VIEWS.values() if view.page == page and view.ready(comparison)]
    return (*own, *_part_views(comparison, page))


def missing_views(comparison: Comparison, page: str) -> tuple[View, ...]:
    """Views of one page that these runs could show and for which they saved nothing."""
    return tuple(v for v in VIEWS.values() if v.page == page and v.missing and not v.ready(comparison))


# -- tables of parts of the evidence -----------------------------------------------------------------------------------

LEVELS = ["group", "setting", "quantity"]
"""Axes of tables with what an attack reaches at each of its settings."""
PAGE_OF_KIND = {"attack": "attacks", "probe": "inside", "behaviour": "run"}
"""Where the tables that a registered part of the evidence saved are shown, by the part's kind."""


def _part_views(comparison: Comparison, page: str) -> list[View]:
    """One view for each part of the evidence that saved tables which no registered view names."""
    shown = tuple(need for view in VIEWS.values() for need in view.needs)
    tables: dict[str, list[str]] = {}
    titles: dict[str, str] = {}
    for part, facts, table in tables_of(comparison):
        own = [t for t in comparison.per_method(table).values() if _is_levels(t) or drawable(t)]
        if own and PAGE_OF_KIND.get(str(facts.get("kind"))) == page and not table.startswith(shown):
            tables.setdefault(part, []).append(table)
            titles[part] = str(facts.get("what") or part)
    return [
        View(f"part-{part}", page, title[:1].upper() + title[1:], tuple(tables[part]), "", _draw(title, tables[part]))
        for part, title in titles.items()
    ]


def _draw(title: str, names: list[str]) -> Callable[[Comparison, Chosen], Pictures]:
    def draw(comparison: Comparison, _chosen: Chosen) -> Pictures:
        drawn = [figure for name in names for figure in _table_figures(comparison, name)]
        return Pictures(title, "", tuple(drawn), "")

    return draw


def _table_figures(comparison: Comparison, name: str) -> Sequence[go.Figure]:
    tables = comparison.per_method(name)
    if all(_is_levels(table) for table in tables.values()):
        return [plots.attack_levels(table, f"{name}: {method}") for method, table in tables.items()]
    return figures(by_model(tables, comparison.methods), name, comparison.methods)


def _is_levels(table: Labelled) -> bool:
    return [axis.name for axis in table.axes] == LEVELS
