"""One HTML file that needs nothing else: style, scripts, plotly and every figure's data are inside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from plotly.utils import PlotlyJSONEncoder

from interp_unlearn._core import FileFormatError, atomic

TEMPLATES = Path(__file__).parent / "templates"
DIGITS = 6
HEAD = 8192
GENERATOR = b'<meta name="generator" content="interp-unlearn'
"""In the first `HEAD` bytes of every page."""


class Figures:
    """Gives each figure of one page an id, and its data as JSON that cannot end the script it lies in."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, figure: go.Figure, alt: str = "") -> dict[str, Any]:
        """What the template needs to show a figure: its title is set in HTML, where it wraps."""
        self.count += 1
        spec = json.loads(json.dumps(figure.to_plotly_json(), cls=PlotlyJSONEncoder))
        spec = _lists(spec)
        layout = spec["layout"]
        title = layout.pop("title", {})
        layout.get("template", {}).get("layout", {}).pop("title", None)
        top = layout.get("margin", {}).get("t", 64)
        layout["margin"] = {**layout.get("margin", {}), "t": min(top, 24)}
        text, subtitle = title.get("text") or alt, (title.get("subtitle") or {}).get("text") or ""
        data = json.dumps({"data": spec["data"], "layout": layout}, allow_nan=False, separators=(",", ":"))
        return {
            "id": f"figure-{self.count}",
            "title": html.unescape(text),  # it was escaped for plotly; the template escapes it for HTML
            "subtitle": html.unescape(subtitle),
            "name": re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:60] or "figure",
            "height": int(layout.get("height", 380)),
            "json": Markup(data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")),
        }


def _lists(value: Any) -> Any:
    """Plain lists in place of plotly's packed arrays, numbers to a few digits, no NaN."""
    if isinstance(value, dict):
        if "bdata" in value and "dtype" in value:
            array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]))
            if "shape" in value:
                array = array.reshape([int(n) for n in str(value["shape"]).split(",")])
            return _lists(array.tolist())
        return {k: _lists(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_lists(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
    return value


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template; everything that is not `Markup` is escaped.

    The page's policy forbids every request and every script but the two below, which it names by their hashes.
    """
    scripts = [_script_text(get_plotlyjs()), _script_text((TEMPLATES / "report.js").read_text(encoding="utf-8"))]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["figure"] = Figures()
    return environment.get_template(template).render(
        **values,
        policy=policy,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        plotly=Markup(scripts[0]),
        script=Markup(scripts[1]),
    )


def _script_text(text: str) -> str:
    """Script text as the browser's parser will see it, so that its hash holds."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def page_path(out: str | Path, name: str = "report.html") -> Path:
    """Where a page is written: the file ``out``, or ``name`` in the folder ``out``.

    Raises:
        FileFormatError: If a file is there that this package did not make: it is not replaced.
    """
    path = Path(out) / name if Path(out).is_dir() else Path(out)
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(HEAD)
        if start and GENERATOR not in start:
            raise FileFormatError(
                f"{path} was not made by interp-unlearn and is not replaced; move it, or write elsewhere"
            )
    return path


def write_page(path: Path, text: str) -> None:
    """Write a page or another text file; a reader sees the old one or the whole new one."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
