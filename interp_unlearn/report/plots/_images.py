"""Pictures of image runs: bars by group, probes by block, and maps over the images themselves.

Tables that are drawn (see `docs/images.md`): ``bias.<phase>`` with axes (split, quantity), ``class_probe.<phase>`` and
``bias_probe.<phase>`` with axes (site, group), ``maps.pictures`` with axes (image, y, x, channel) and ``maps.<phase>``
with axes (image, y, x).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer, has
from interp_unlearn.report.plots._style import finish, plain, styles

BARS = ("forget aligned", "forget conflicting", "kept")
WORDS = {
    "forget aligned": "forgotten class, aligned",
    "forget conflicting": "forgotten class, conflicting",
    "kept": "other classes",
}
HEAT = ("#000000", "#7B1E5A", "#E8602D", "#FCFFA4")
LONGEST = 22


def group_bars(tables: Mapping[str, Labelled], split: str = "test", *, methods: Sequence[str] = ()) -> go.Figure:
    """Accuracy of each model on aligned and conflicting images of the forgotten class, and on other classes.

    Args:
        tables: Model to an array with the axes (split, quantity).
        split: ``"test"`` or ``"train"``.
        methods: See `styles`.
    """
    fig = go.Figure()
    looks = styles(list(tables), methods)
    for name, table in tables.items():
        shown = [q for q in BARS if has(table, "quantity", q)]
        fig.add_bar(
            x=[WORDS[q] for q in shown],
            y=[float(table.at(split=split, quantity=q)) for q in shown],
            name=plain(name),
            marker={"color": looks[name].colour, "line": {"width": 0}},
            hovertemplate=f"<b>{plain(name)}</b>, %{{x}}: %{{y:.3f}}{footer(table)}<extra></extra>",
        )
    fig.update_layout(barmode="group", bargap=0.25)
    fig.update_yaxes(range=[0, 1.02])
    title = "Accuracy by group, " + ("evaluation images" if split == "test" else "training images")
    return finish(
        fig, title, "Forgotten: the first two groups are both low; the last stays.", "", "accuracy", height=360
    )


CHECKS = {
    "spearman_loss": "rank correlation with the loss",
    "spearman_gradient_norm": "rank correlation with the gradient's norm",
    "auc_conflicting": "AUC for conflicting images",
}
"""What the table ``cupid.partition`` says of its ranking in ``config``, in words."""


def partition_bars(tables: Mapping[str, Labelled], *, methods: Sequence[str] = ()) -> go.Figure:
    """How CUPID's sharpness ranks images, beside cheaper rankings.

    Args:
        tables: Method to its table ``cupid.partition``.
        methods: See `styles`.
    """
    fig = go.Figure()
    looks = styles(list(tables), methods)
    for name, table in tables.items():
        values = {k: float(table.config.get(k, np.nan)) for k in CHECKS}
        known = {k: v for k, v in values.items() if np.isfinite(v)}
        fig.add_bar(
            x=[CHECKS[k] for k in known],
            y=list(known.values()),
            name=plain(name),
            marker={"color": looks[name].colour, "line": {"width": 0}},
            hovertemplate=f"<b>{plain(name)}</b>, %{{x}}: %{{y:.3f}}{footer(table)}<extra></extra>",
        )
    fig.update_layout(barmode="group", bargap=0.25)
    wanted = "Above 0.99 in the first two: sharpness says no more than they. An AUC of 0.5 finds no conflicting image."
    return finish(fig, "How sharpness ranks the images of the class", wanted, "", "", height=360)


def probe_curves(
    tables: Mapping[str, Labelled], title: str, forgotten: str, *, methods: Sequence[str] = ()
) -> go.Figure:
    """Accuracy of a linear probe at every block: all images, with the shuffled control dotted.

    Args:
        tables: Model to an array with the axes (site, group).
        title: What the probe reads.
        forgotten: Which direction means forgotten.
        methods: See `styles`.
    """
    fig = go.Figure()
    looks = styles(list(tables), methods)
    for name, table in tables.items():
        sites = [plain(site.removesuffix(".output")) for site in table.axes[0].labels]
        for group, dash, width in (("all", looks[name].dash, 2.0), ("control", "dot", 1.0)):
            if group == "control" and name != next(iter(tables)):
                continue
            fig.add_scatter(
                x=sites,
                y=table.at(group=group),
                mode="lines+markers" if group == "all" else "lines",
                name=plain(name) if group == "all" else "labels shuffled",
                line={"color": looks[name].colour, "dash": dash, "width": width},
                marker={"symbol": looks[name].symbol, "size": 7},
                hovertemplate=f"<b>{plain(name)}</b> ({group}), %{{x}}: %{{y:.3f}}{footer(table)}<extra></extra>",
            )
    fig.update_yaxes(range=[0, 1.03])
    fig.update_xaxes(type="category")
    return finish(fig, title, forgotten, "block", "accuracy", height=360)


def picture_grid(pictures: Labelled, maps: Mapping[str, Labelled], title: str = "Where the class is seen") -> go.Figure:
    """Images in columns; below each the map of every model, in one unit for all models.

    Args:
        pictures: Pixels, axes (image, y, x, channel), 0 to 255.
        maps: Model to maps of the same images, axes (image, y, x).
        title: Heading.
    """
    labels, n = pictures.axes[0].labels, len(pictures.axes[0].labels)
    rows = ["image", *maps]
    fig = make_subplots(
        len(rows),
        n,
        horizontal_spacing=0.008,
        vertical_spacing=0.015,
        column_titles=["<br>".join(textwrap.wrap(plain(label.partition(":")[0]), LONGEST)) for label in labels],
        row_titles=[plain(row) for row in rows],
    )
    top = max((float(np.nanmax(t.values)) for t in maps.values() if np.isfinite(t.values).any()), default=1.0) or 1.0
    pixels = pictures.values.astype(np.uint8)
    for column in range(n):
        own = {"hovertemplate": f"{plain(labels[column])}<extra></extra>"}
        fig.add_trace(go.Image(z=pixels[column], **own), row=1, col=column + 1)
        for row, (name, table) in enumerate(maps.items(), 2):
            fig.add_trace(
                go.Heatmap(
                    z=np.nan_to_num(table.values[column]),
                    zmin=0,
                    zmax=top,
                    colorscale=[[i / (len(HEAT) - 1), c] for i, c in enumerate(HEAT)],
                    showscale=row == 2 and column == 0,
                    colorbar={"thickness": 8, "len": 0.5, "x": 1.04},
                    hovertemplate=f"<b>{plain(name)}</b>, {plain(labels[column])}: %{{z:.3g}}<extra></extra>",
                ),
                row=row,
                col=column + 1,
            )
    finish(
        fig,
        title,
        "Bright: what speaks for the forgotten class. Forgotten: as dark as gold, on and off the object.",
        height=130 + 88 * len(rows),
    )
    fig.update_layout(margin_t=84)  # the columns' titles stand below the subtitle
    fig.update_xaxes(visible=False, constrain="domain")
    fig.update_yaxes(visible=False, autorange="reversed", constrain="domain")
    for i in range(1, len(rows) * n + 1):
        suffix = "" if i == 1 else str(i)
        fig.layout[f"yaxis{suffix}"].update(scaleanchor=f"x{suffix}", scaleratio=1)
    fig.update_annotations(font_size=11)
    return fig
