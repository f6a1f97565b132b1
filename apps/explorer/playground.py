"""Ask the original and the edited model anything, and change the edited one at a token while it answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from explorer.draw import show_figures
from explorer.folder import Listed, view_of
from explorer.kept import Kept
from explorer.picks import choose, listed_in, pick_one
from explorer.words import literal
from interp_unlearn.report import RunView, plots

if TYPE_CHECKING:
    from explorer.playground_model import Change, Opened

Progress = Callable[[str, int, int], None]
OPEN_AT_ONCE = 2
"""So many runs keep their models in memory; the one that was opened first makes room."""
LONGEST = 400
WHAT = ("Next token", "Text", "Lens", "Latents")


def show(root: Path) -> None:
    """Show the page."""
    st.caption("The only page that computes: it loads the run's model and asks it, before and after.")
    one = pick_one(listed_in(root))
    if one.row is None or one.row.state != "done":
        st.info("The playground needs a finished run. Finish it first: interp-unlearn resume RUN")
        return
    prompt = st.text_area("Prompt", _first_prompt(view_of(one)), max_chars=LONGEST, key=f"prompt-{one.id}", height=80)
    opened = _opened(one)
    if opened is None:
        return
    if not prompt.strip():
        st.info("Type a prompt, for instance the beginning of a sentence about the target.")
        return
    tokens = opened.tokens(prompt.rstrip())
    change = _change(opened, tokens)
    what = choose("show", "Show", WHAT, pills=True)
    with st.spinner("asking both models", show_time=True):
        _SHOW[what](opened, prompt.rstrip(), tokens, change)


def _first_prompt(run: RunView) -> str:
    """A question about the target, where the run asked any."""
    sets = [value for value in run.task.values() if isinstance(value, dict) and value.get("prompts")]
    return str(sets[0]["prompts"][0].get("text", ""))[:LONGEST] if sets else ""


def _opened(one: Listed) -> Opened | None:
    """The run's models, once the reader wants them; loading says how far it is."""
    key = f"opened-{one.id}"
    if not st.session_state.get(key):
        st.caption("Loading takes some seconds the first time, and memory for one model.")
        st.button("Load the models", type="primary", on_click=_want, args=(key,))
        return None
    bar = st.progress(0.0, "loading")

    def progress(what: str, done: int, total: int) -> None:
        bar.progress(min(1.0, done / total) if total else 0.0, literal(what))

    try:
        return _models().open(one, progress)
    finally:
        bar.empty()


def _want(key: str) -> None:
    st.session_state[key] = True


class Models:
    """Models of the last runs that were opened, shared by all readers.

    Streamlit's own cache would replay the progress bar, which it cannot: so it holds this object, and not the models.
    """

    def __init__(self) -> None:
        self._kept: Kept[Opened] = Kept(OPEN_AT_ONCE)
        self._lock = threading.Lock()

    def open(self, one: Listed, progress: Progress) -> Opened:
        """The models of a run, loaded if they are not there; two readers who want the same load it once."""
        from explorer.playground_model import open_run

        with self._lock:
            return self._kept.get(None, (str(one.path), one.stamp), lambda: open_run(one.path, progress))


@st.cache_resource(show_spinner=False)
def _models() -> Models:
    return Models()


def _change(opened: Opened, tokens: list[str]) -> Change | None:
    """What the reader changes in the edited model, if anything."""
    from explorer.playground_model import ACTIONS, Change

    with st.expander("Change the edited model while it answers"):
        action = st.radio(
            "Change", ["nothing", *ACTIONS], format_func=lambda a: f"{a}: {ACTIONS[a]}" if a in ACTIONS else a
        )
        if action == "nothing":
            return None
        left, middle, right = st.columns([2, 2, 1])
        site = left.selectbox("Site", opened.sites())
        token = middle.selectbox(
            "Token", range(len(tokens)), len(tokens) - 1, format_func=lambda i: f"{i}: {tokens[i]}"
        )
        strength = right.number_input("Times", -20.0, 20.0, 1.0, 0.5, disabled=action != "steer")
        return Change(str(action), str(site), int(token or 0), float(strength))


def _next(opened: Opened, prompt: str, _tokens: list[str], change: Change | None) -> None:
    from explorer.playground_model import next_tokens

    show_figures([plots.next_token_bars(next_tokens(opened, prompt, change), name=opened.name)], "next")


def _text(opened: Opened, prompt: str, _tokens: list[str], change: Change | None) -> None:
    from explorer.playground_model import generate

    length = st.slider("Tokens to generate", 1, 64, 16)
    for who, text in generate(opened, prompt, length, change).items():
        st.markdown(f"**{literal(who)}**")
        st.code(text or " ", language=None, wrap_lines=True)


def _lens(opened: Opened, prompt: str, _tokens: list[str], _changed: Change | None) -> None:
    from explorer.playground_model import lens

    show_figures([plots.lens_grid(grid, who) for who, grid in lens(opened, prompt).items()], "lens")


def _latents(opened: Opened, prompt: str, tokens: list[str], _changed: Change | None) -> None:
    from explorer.playground_model import latents

    if opened.sae is None:
        st.info("This run has no SAE; name one in its config: \\[latents\\] sae = …")
        return
    names = [f"{i}: {word}" for i, word in enumerate(tokens)]
    token = choose("token", "Token", names[::-1], page="playground", shown=literal, pills=True)
    found = latents(opened, prompt, names.index(token))
    st.caption(literal(f"Latents that fire most at this token, at {opened.sae.site}."))
    show_figures([plots.latent_bars(found, "typed", unit="activation")], "latents")


_SHOW = {"Next token": _next, "Text": _text, "Lens": _lens, "Latents": _latents}
