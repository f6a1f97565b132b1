"""The pages that look inside: each asks the run what it can show, and shows one view at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from explorer.draw import show_pictures
from explorer.kept import Kept
from explorer.picks import choose, pick
from explorer.words import literal
from interp_unlearn.report import Comparison, Pictures, View, missing_views, views_of

_DRAWN: Kept[Pictures] = Kept(100)


@dataclass(frozen=True)
class Look:
    """One such page: which views it shows, its heading, and what it is about."""

    page: str
    title: str
    text: str


LOOKS = (
    Look("inside", "Inside", "Where activations and weights moved, and where they did not."),
    Look("latents", "Latents", "Which features of a sparse autoencoder changed, and what they stand for."),
    Look("neurons", "Neurons", "Which neurons hold the answer, and which ones the method moved."),
    Look("lens", "Lens", "What the model would say at each layer."),
    Look("attacks", "Attacks", "Attempts to bring the target back, beside the same attempt where nothing was known."),
)


def show(root: Path, look: Look) -> None:
    """Show one page."""
    st.caption(look.text)
    comparison = pick(root)
    views = views_of(comparison, look.page)
    if not views:
        st.info("Nothing on this page was saved by this run.")
    show_views(comparison, views, look.page)
    absent = missing_views(comparison, look.page)
    if absent:
        with st.expander(f"Not saved by this run ({len(absent)})"):
            st.markdown("\n".join(f"- **{literal(view.title)}** {literal(view.missing)}" for view in absent))


def show_views(comparison: Comparison, views: Sequence[View], page: str) -> None:
    """One of several views, chosen by the reader."""
    if not views:
        return
    by_name = {view.name: view for view in views}
    name = choose("view", "View", list(by_name), page=page, shown=lambda n: literal(by_name[n].title), pills=True)
    view, chosen = by_name[name], {}
    choices = view.choices(comparison)
    for column, (what, options) in zip(st.columns(max(1, len(choices))), choices.items(), strict=False):
        with column:
            chosen[what] = choose(what, what.capitalize(), options, page=page)
    drawn = _DRAWN.get(comparison, (page, name, tuple(chosen.items())), lambda: view.draw(comparison, chosen))
    show_pictures(drawn, f"{page}-{name}")
