"""What a reader has chosen (run, runs beside it, view, layer …): in the page, and in the URL, which links to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st

from explorer.folder import Listed, comparison_of, runs_in
from explorer.words import literal, notices_of
from interp_unlearn.report import Comparison

RUN, WITH = "run", "with"
EMPTY = """There is no run in this folder yet. Make one, then reload this page:

    interp-unlearn run CONFIG.toml --out {root}/NAME      # one run
    interp-unlearn sweep GRID.toml --out {root}           # many
    interp-unlearn demo                                   # a first look
"""


def carried() -> dict[str, str | list[str]]:
    """What links from page to page carry along."""
    chosen = {RUN: _asked(RUN)[:1], WITH: _asked(WITH)}
    return {key: values[0] if key == RUN else values for key, values in chosen.items() if values}


def choose(
    name: str,
    label: str,
    options: Sequence[str],
    *,
    page: str = "",
    shown: Callable[[str], str] = str,
    pills: bool = False,
) -> str:
    """One of several options; the URL holds it under ``name``.

    Args:
        name: Of the choice, in the URL.
        label: For people.
        options: What there is; the first is the default.
        page: Where another default is remembered than elsewhere.
        shown: Text of an option.
        pills: Whether all options are seen at once.
    """
    key = f"choose-{page}-{name}"
    asked = next((value for value in _asked(name) if value in options), None)
    before = st.session_state.get(f"{key}-last")
    moved = asked is not None and asked != before  # by a link, by the address bar, or by going back
    chosen = asked if moved else st.session_state.get(key)
    # Set every time: what a widget held on another page does not come along by itself.
    st.session_state[key] = next(value for value in (chosen, asked, before, options[0]) if value in options)
    if pills:
        value = st.segmented_control(
            label, options, format_func=shown, key=key, required=True, label_visibility="collapsed"
        )
    else:
        value = st.selectbox(label, options, format_func=shown, key=key)
    st.session_state[f"{key}-last"] = st.query_params[name] = str(value)
    return str(value)


def listed_in(root: Path) -> tuple[Listed, ...]:
    """Every run; where there is none, the page says what to do and ends."""
    found = runs_in(root)
    if not found:
        st.info(EMPTY.format(root=root))
        st.stop()
    return found


def pick_one(found: Sequence[Listed]) -> Listed:
    """The run that the page is about: the one in the URL, else a finished one."""
    by_id = {one.id: one for one in sorted(found, key=lambda one: one.row is None or one.row.state != "done")}
    for asked in _asked(RUN):
        if asked not in by_id:
            st.warning(f"There is no run “{literal(asked)}” in this folder.")
    return by_id[choose(RUN, "Run", list(by_id))]


def pick(root: Path) -> Comparison:
    """The run that the page is about, with those beside it; what a reader must know of them is said.

    Where the run cannot be read, the page says why and ends.
    """
    found = listed_in(root)
    left, right = st.columns(2)
    with left:
        one = pick_one(found)
    if one.row is None:
        st.error(literal(one.problem))
        st.stop()
    with right:
        beside = _pick_beside([other for other in found if other.group == one.group and other.id != one.id])
    for item in (one, *beside):
        for said in notices_of(item.row) if item.row else ():
            st.warning(f"{literal(item.id)}: {literal(said)}" if beside else literal(said))
    return comparison_of((one, *beside))


def _pick_beside(others: Sequence[Listed]) -> list[Listed]:
    by_id = {other.id: other for other in others}
    key = f"choose-{WITH}"
    asked = [name for name in _asked(WITH) if name in by_id]
    kept = [name for name in st.session_state.get(key) or () if name in by_id]
    moved = asked != st.session_state.get(f"{key}-last", [])
    st.session_state[key] = asked if moved or key not in st.session_state else kept
    words = "other runs on this target" if others else "no other run on this target"
    names = st.multiselect("Beside it", list(by_id), key=key, placeholder=words, disabled=not others)
    st.session_state[f"{key}-last"] = list(names)
    if names:
        st.query_params[WITH] = list(names)
    elif WITH in st.query_params:
        del st.query_params[WITH]
    return [by_id[name] for name in names]


def _asked(name: str) -> list[str]:
    return st.query_params.get_all(name)
