"""Tokens as readers can see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp_unlearn.report.plots._style import plain


def visible(token: object, length: int = 24) -> str:
    """A token as text: blanks and line breaks shown, long ones cut, escaped."""
    text = str(token).replace("\n", "↵").replace("\t", "⇥")
    text = text.replace(" ", "·") if text.strip() == "" else text.strip()
    return plain(text if len(text) <= length else text[: length - 1] + "…")


def position_ticks(tokens: Sequence[str], panels: int = 1) -> dict[str, Any]:
    """Ticks of an x axis with one place for each token."""
    return {
        "tickvals": list(range(len(tokens))),
        "ticktext": [visible(token, 12) for token in tokens],
        "tickangle": -40 if panels == 1 else -60,
        "tickfont": {"size": 11},
        "showgrid": False,
    }
