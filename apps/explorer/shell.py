"""The frame around every page: look, links from page to page, and a sentence where a page cannot be shown."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from explorer import looks, playground, run, runs, tables
from explorer.draw import choose_format
from explorer.picks import carried
from explorer.words import literal
from interp_unlearn._core import InterpUnlearnError

STYLE = """<style>
.block-container {max-width: 1180px; padding-top: 3.2rem; padding-bottom: 4rem}
h1 {font-size: 1.7rem !important; padding-bottom: .2rem !important}
h2 {font-size: 1.3rem !important} h3 {font-size: 1.08rem !important}
p, li {max-width: 90ch; overflow-wrap: anywhere}
[data-testid="stMetricValue"] {font-size: 1.5rem}
@media (max-width: 640px) {.block-container {padding-left: 1rem; padding-right: 1rem}}
</style>"""


@dataclass(frozen=True)
class Page:
    """One page: its link, its heading, and what shows it given the folder of runs."""

    path: str
    title: str
    show: Callable[[Path], None]


PAGES = (
    Page("", "Runs", runs.show),
    Page("run", "Run", run.show),
    *(Page(look.page, look.title, partial(looks.show, look=look)) for look in looks.LOOKS),
    Page("tables", "Tables", tables.show),
    Page("playground", "Playground", playground.show),
)


def show(root: Path) -> None:
    """Show the page that the URL names."""
    st.set_page_config("interp-unlearn", layout="wide")
    st.html(STYLE)
    pages = [
        st.Page(_guarded(page, root), title=page.title, url_path=page.path, default=not page.path) for page in PAGES
    ]
    current = st.navigation(pages, position="hidden")
    with st.sidebar:
        st.markdown("**interp-unlearn**")
        for page in pages:
            st.page_link(page, query_params=carried())
        st.caption(literal(root.resolve().name))
        choose_format()
    current.run()


def _guarded(page: Page, root: Path) -> Callable[[], Any]:
    """A page that says in a sentence why it cannot be shown."""

    def guarded() -> None:
        st.title(page.title)
        try:
            page.show(root)
        except InterpUnlearnError as error:
            st.error(literal(error))
        except Exception as error:
            logging.getLogger(__name__).exception("the page %r failed", page.title)
            said = literal(error) or type(error).__name__
            st.error(f"This page could not be shown: {said}. The terminal has the details; the other pages still work.")

    guarded.__name__ = page.path or "runs"
    return guarded
