"""Pictures of runs on graphs: what moved around deleted nodes and links."""

from __future__ import annotations

import numpy as np

from interp_unlearn.report import plots
from interp_unlearn.report._compare import Comparison
from interp_unlearn.report._details import by_model
from interp_unlearn.report._slices import Pictures

GOLD_LIKE = "Forgotten: as in gold. An edit that is local leaves far nodes alone; retraining does not."


def around_deletion(comparison: Comparison) -> Pictures:
    """What moved around deleted nodes and links."""
    maps = comparison.per_method("graph.map")
    # A few nodes turn far more than all others; up to the largest change all others would have one colour.
    top = max((float(np.nanquantile(t.at(column="change"), 0.95)) for t in maps.values()), default=None)
    figures = [plots.neighbourhood(table, method, top=top) for method, table in maps.items()]
    for name, title, y in (
        ("graph.hops", "Change of direction by hops", "1 − cosine"),
        ("graph.norms", "Norm of embeddings by hops", "norm over the original's"),
    ):
        tables = by_model(comparison.per_method(name), comparison.methods)
        sites = next((a.labels for t in tables.values() for a in t.axes if a.name == "site"), ("",))
        for site in sites:
            curves = {who: plots.pick(t, "site", site) if site else t for who, t in tables.items()}
            if curves:
                where = f"{title} ({site.removesuffix('.output')})" if site else title
                figures.append(plots.hop_curves(curves, where, y, forgotten=GOLD_LIKE, methods=comparison.methods))
    text = (
        "How far each node's embedding turned between the original and the edited model. Of a large deletion the first "
        "few deleted links or nodes are drawn, with their neighbours; the curves are over all nodes. One scale of "
        "colours for all methods, up to the change that 5 % of the nodes exceed."
    )
    return Pictures("Around the deletion", text, tuple(figures), "")
