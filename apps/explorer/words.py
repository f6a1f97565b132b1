"""Text that is not ours, made safe to show, and numbers as people read them."""

from __future__ import annotations

import math
import re

from interp_unlearn import __version__
from interp_unlearn.report import BoardRow

_MARKS = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&@])")

_JOINER = "\u2060"


def literal(text: object) -> str:
    """Text that markdown shows as it is: names may hold markup, links or pictures.

    An invisible joiner keeps addresses from becoming links, which escaping alone does not.
    """
    plain = str(text).replace("://", f":{_JOINER}//").replace("www.", f"www{_JOINER}.").replace("\n", " ")
    return _MARKS.sub(r"\\\1", plain)


def number(value: float, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def percent(value: float) -> str:
    """A share in per cent, or a dash where there is none."""
    if math.isnan(value):
        return "–"
    return "lost" if math.isinf(value) else f"{100 * value:.0f} %".replace("-", "−")


def state_of(row: BoardRow | None) -> str:
    """How far a run is, in a word or two."""
    if row is None:
        return "unreadable"
    if row.state == "done":
        return "done, with gaps" if row.problems else "done"
    return {"": "half written", "running": "being written"}.get(row.state, row.state)


def notices_of(row: BoardRow) -> list[str]:
    """What a reader must know before trusting a run's numbers."""
    said = []
    if row.state == "running":
        said.append("This run is being written, or was interrupted. What it has saved so far is shown.")
    elif not row.state:
        said.append("This run folder is half written: nothing says how far it is. What can be read is shown.")
    elif row.state != "done":
        said.append(f"This run is not finished (state: {row.state}{f'; {row.message}' if row.message else ''}).")
    if row.version != __version__:
        said.append(
            f"Written by version {row.version or 'unknown'}; this is {__version__}. What that version did not save is "
            "shown as missing."
        )
    if row.problems:
        said.append(f"Files that are missing or cannot be read: {'; '.join(row.problems)}.")
    return said
