"""The numbers of a figure as a table, for those who want to draw it themselves."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

COLUMNS = ("figure", "series", "x", "y", "z")


def figures_csv(figures: Sequence[go.Figure]) -> str:
    """Every point of every series as a line of CSV: figure, series, x, y and, of heat maps, z."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for figure in figures:
        title = html.unescape(str(figure.layout["title"]["text"] or ""))
        traces: Any = figure.data
        for trace in traces:
            writer.writerows([title, html.unescape(str(trace.name or "")), *point] for point in _points(trace))
    return out.getvalue()


def _points(trace: Any) -> Iterator[tuple[Any, Any, Any]]:
    x, y, z = (_list(getattr(trace, axis, None)) for axis in ("x", "y", "z"))
    if z:
        for i, row in enumerate(z):
            for j, value in enumerate(_list(row)):
                yield (x[j] if x else j, y[i] if y else i, value)
        return
    for i in range(max(len(x), len(y))):
        yield (x[i] if i < len(x) else i, y[i] if i < len(y) else i, "")


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(np.asarray(values, dtype=object))
