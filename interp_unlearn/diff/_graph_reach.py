"""How far a deletion reaches: change of every node's embedding by hops, similarity to other models, shrunken ends.

A node more than L hops from every deleted edge cannot tell, in a network of L layers, that an edge is gone: its
embedding is then the same unless the weights moved. Retraining moves weights too, so gold's curve is the one to
compare with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import Axis, Evidence, Labelled
from interp_unlearn.hooked import HookedModel, capture, fresh_weights, linear_cka
from interp_unlearn.metrics import bootstrap
from interp_unlearn.metrics._resample import percentile_interval
from interp_unlearn.probes import Found, Part, Phases, register_part, swapped
from interp_unlearn.probes._catalogue import Kind
from interp_unlearn.probes._catalogue import evidence as catalogued
from interp_unlearn.probes._parts import Progress
from interp_unlearn.worlds import EdgeTask, GraphTask, labelled_task, without_deleted
from interp_unlearn.worlds.graphs import both_ways, hop_distance

HOPS = ("0", "1", "2", "3+", "out of reach")
MAP_NODES = 160
"""Nodes of the picture at most, the nearest ones first."""
MIN_CKA = 8

KINDS: Mapping[str, Kind] = {
    "reach.change": Kind(
        "How far did the embeddings at the deletion turn (1 - cosine, before against after)?",
        "near control",
        "the same of gold",
        "Independently trained networks differ by more than the deletion: gold's own change is large for that reason.",
    ),
    "reach.locality": Kind(
        "How far did the embeddings of nodes three and more hops away turn?",
        "near control",
        "the same of gold",
        "A small value says that the edit is local, not that it worked.",
    ),
    "reach.norm": Kind(
        "By what factor did the norm of embeddings at the deletion change?",
        "near control",
        "the same of nodes three and more hops away, in the edited model",
        "A score of 0.5 can be had by shrinking the ends to 0, which takes their other edges along: read it beside the "
        "scores of the set 'near'.",
    ),
    "reach.cka_gold": Kind(
        "How similar is the geometry of all embeddings to gold's (linear CKA)?",
        "high",
        "the original's similarity to gold",
        "CKA compares whole sets of nodes; a few deleted ones hardly weigh in it.",
    ),
}


def measure(model: HookedModel, task: GraphTask, site: str) -> dict[str, Tensor]:
    """Embeddings of every node at the layers, as float32 tensors by site; ``final`` is the main one."""
    acts = capture(model, task.inputs(model), task.sites(model))
    return {**{s: acts[s].flatten(1).float().cpu() for s in acts.sites}, "final": acts[site].flatten(1).float().cpu()}


def destroyed(model: HookedModel, task: GraphTask, site: str, seed: int) -> dict[str, Tensor]:
    """The same of an untrained network on what remains: what D2DGN calls the destroyer."""
    with without_deleted(task, model), swapped(model, fresh_weights(model.module, seed)):
        return measure(model, task, site)


def graph_reach(phases: Phases, progress: Progress) -> Found:
    """Hop curves, CKA, norms, and the data of the node-link picture."""
    task = labelled_task(phases.any_task, GraphTask, "the reach of a deletion")
    with phases.open("before") as model:
        site = task.main_site(model)
    z: dict[str, Mapping[str, Tensor]] = {}
    for i, phase in enumerate(phases.names):
        progress(f"embeddings of {phase}", i, len(phases.names))
        z[phase] = phases.once(phase, "graph_embeddings", lambda m: measure(m, task, site))
    z["destroyer"] = phases.once(
        "before", f"graph_destroyer.{phases.seed}", lambda m: destroyed(m, task, site, phases.seed)
    )
    bands = _bands(task)
    change = {p: _turned(z["before"]["final"], z[p]["final"]) for p in phases.names if p != "before"}
    norms = {p: _norm_ratio(z["before"]["final"], z[p]["final"]) for p in phases.names if p != "before"}
    tables = {
        "graph.hops": _hop_table(z, bands, phases.names, phases.seed),
        "graph.norms": _norm_table(norms, bands, phases.seed),
        "graph.cka": _cka_table({p: v["final"] for p, v in z.items()}, bands, phases.seed),
        "graph.map": _map(task, change["after"], phases.seed),
    }
    return Found(tuple(_evidence(change, norms, z, bands, site, phases.seed)), tables)


def _evidence(
    change: Mapping[str, np.ndarray],
    norms: Mapping[str, np.ndarray],
    z: Mapping[str, Mapping[str, Tensor]],
    bands: Mapping[str, np.ndarray],
    site: str,
    seed: int,
) -> list[Evidence]:
    near, far = bands["0"], bands["3+"]
    gold = change.get("gold")
    found = [
        _mean("reach.change", site, change["after"][near], None if gold is None else float(gold[near].mean()), seed),
        _mean(
            "reach.locality",
            site,
            change["after"][far],
            None if gold is None or not len(far) else float(gold[far].mean()),
            seed,
        ),
        _mean("reach.norm", site, norms["after"][near], float(norms["after"][far].mean()) if len(far) else None, seed),
    ]
    if gold is not None:
        everything = {phase: of_phase["final"] for phase, of_phase in z.items()}
        value = linear_cka(everything["after"], everything["gold"])
        control = linear_cka(everything["before"], everything["gold"])
        found.append(
            catalogued(
                "reach.cka_gold",
                site,
                value,
                n=len(everything["after"]),
                mask_policy="items",
                catalogue=KINDS,
                control=control,
                config={"before": control, "gold": 1.0},
                seed=seed,
                reason="" if math.isfinite(value) else "embeddings do not vary",
            )
        )
    return found


def _mean(kind: str, site: str, values: np.ndarray, control: float | None, seed: int) -> Evidence:
    """Mean over nodes with its interval."""
    finite = len(values) > 0 and bool(np.isfinite(values).all())
    drawn = bootstrap(values, [str(i) for i in range(len(values))], seed=seed, purpose=kind) if finite else None
    return catalogued(
        kind,
        site,
        float(values.mean()) if finite else math.nan,
        n=len(values),
        mask_policy="items",
        catalogue=KINDS,
        control=control,
        interval=percentile_interval(drawn) if drawn is not None else None,
        reason="" if finite else "no node lies that far" if not len(values) else "embeddings are not finite",
        seed=seed,
        config={} if control is None or "gold" not in KINDS[kind].control else {"gold": control},
    )


def _bands(task: GraphTask) -> dict[str, np.ndarray]:
    """Nodes by distance from the deletion."""
    hops = task.hops().numpy()
    masks = (hops == 0, hops == 1, hops == 2, hops >= 3, hops < 0)
    return {name: mask.nonzero()[0] for name, mask in zip(HOPS, masks, strict=True)}


def _turned(one: Float[Tensor, "n d"], other: Float[Tensor, "n d"]) -> Float[np.ndarray, " n"]:
    """1 - cosine of each node; 0 where both are 0."""
    both = one.norm(dim=1) * other.norm(dim=1)
    cosine = torch.where(both > 0, (one * other).sum(1) / both.clamp(min=1e-12), torch.ones_like(both))
    return (1 - cosine).double().numpy()


def _norm_ratio(one: Float[Tensor, "n d"], other: Float[Tensor, "n d"]) -> Float[np.ndarray, " n"]:
    """Norm after over norm before of each node; 1 where both are 0."""
    before, after = one.norm(dim=1), other.norm(dim=1)
    return torch.where(before > 0, after / before.clamp(min=1e-12), torch.ones_like(before)).double().numpy()


def _hop_table(
    z: Mapping[str, Mapping[str, Tensor]], bands: Mapping[str, np.ndarray], names: tuple[str, ...], seed: int
) -> Labelled:
    phases = tuple(p for p in names if p != "before")
    sites = tuple(s for s in z["before"] if s != "final")
    used = tuple(h for h in HOPS if len(bands[h]))
    turned = {(p, s): _turned(z["before"][s], z[p][s]) for p in phases for s in sites}
    values = [[[turned[p, s][bands[h]].mean() for h in used] for s in sites] for p in phases]
    return Labelled(
        "change of direction by hops",
        np.array(values),
        (Axis("phase", phases), Axis("site", sites), Axis("hop", used)),
        n=min(len(bands[h]) for h in used),
        mask_policy="items",
        config={"n": {h: len(bands[h]) for h in used}},
        seed=seed,
        note="mean of 1 - cosine to the original's embedding, by hops from the deletion; forgotten: as in gold",
    )


def _norm_table(norms: Mapping[str, np.ndarray], bands: Mapping[str, np.ndarray], seed: int) -> Labelled:
    used = tuple(h for h in HOPS if len(bands[h]))
    return Labelled(
        "norm over the original's by hops",
        np.array([[n[bands[h]].mean() for h in used] for n in norms.values()]),
        (Axis("phase", tuple(norms)), Axis("hop", used)),
        n=min(len(bands[h]) for h in used),
        mask_policy="items",
        seed=seed,
        note="norm of embeddings over the original's; a collapse at hop 0 drags other edges of these nodes along",
    )


def _cka_table(z: Mapping[str, Tensor], bands: Mapping[str, np.ndarray], seed: int) -> Labelled:
    groups = {"at the deletion": bands["0"], "elsewhere": np.concatenate([bands[h] for h in HOPS[1:]])}
    phases = tuple(p for p in ("before", "after", "gold") if p in z)
    references = tuple(r for r in ("before", "gold", "destroyer") if r in z)
    words = {"before": "to the original", "gold": "to gold", "destroyer": "to an untrained network"}
    values = np.array([[[_cka(z[p][g], z[r][g]) for r in references] for g in groups.values()] for p in phases])
    return Labelled(
        "CKA of embeddings",
        values,
        (Axis("phase", phases), Axis("group", tuple(groups)), Axis("reference", tuple(words[r] for r in references))),
        n=min(len(g) for g in groups.values()),
        mask_policy="items",
        seed=seed,
        note="debiased linear CKA: 1 is the same geometry up to rotation and scale, 0 unrelated",
    )


def _cka(one: Float[Tensor, "n d"], other: Float[Tensor, "n d"]) -> float:
    usable = len(one) >= MIN_CKA and bool(one.isfinite().all() and other.isfinite().all())
    return linear_cka(one, other) if usable else math.nan


def _map(task: GraphTask, change: Float[np.ndarray, " n"], seed: int) -> Labelled:
    """The neighbourhood of the deletion: where each node is drawn, how far it is, how much it moved; edges in config.

    Of a large deletion a few deleted edges, or nodes, with what is near them, so that single nodes can be seen.
    """
    nodes = _neighbourhood(task)
    inside = torch.isin(task.messages, nodes).all(0)
    edges = torch.searchsorted(nodes, task.messages[:, inside])
    gone = torch.searchsorted(nodes, task.deleted_edges[:, torch.isin(task.deleted_edges, nodes).all(0)])
    place = _layout(edges, len(nodes), seed)
    values = np.column_stack([place, task.hops()[nodes].numpy(), change[nodes.numpy()]])
    return Labelled(
        "neighbourhood of the deletion",
        values,
        (Axis("node", tuple(str(n) for n in nodes.tolist())), Axis("column", ("x", "y", "hop", "change"))),
        n=len(nodes),
        mask_policy="items",
        config={
            "edges": edges.T.tolist(),
            "deleted": gone.T.tolist(),
            "classes": [task.graph.classes[c] if c >= 0 else "" for c in task.graph.labels[nodes].tolist()],
            "of": task.graph.n_nodes,
        },
        seed=seed,
        note="change: 1 - cosine to the original's embedding; deleted edges are dashed",
    )


def _neighbourhood(task: GraphTask) -> Tensor:
    """At most `MAP_NODES` nodes: deleted items are added one by one, each with its neighbours, while there is room."""
    starts = task.deleted_edges.T if isinstance(task, EdgeTask) else task.deleted_nodes[:, None]
    pairs = both_ways(task.messages)
    chosen = torch.empty(0, dtype=torch.long)
    for start in starts:
        beside = pairs[1, torch.isin(pairs[0], start)]
        more = torch.cat([chosen, start, beside]).unique()
        if len(more) > MAP_NODES and len(chosen):
            break
        chosen = more[:MAP_NODES] if len(more) > MAP_NODES else more
    if len(chosen) < MAP_NODES // 2:
        hops = hop_distance(task.messages, chosen, task.graph.n_nodes)
        second = (hops == 1).nonzero()[:, 0][: MAP_NODES - len(chosen)]
        chosen = torch.cat([chosen, second]).unique()
    return chosen


def _layout(edges: Tensor, n: int, seed: int) -> Float[np.ndarray, "n 2"]:
    """Force-directed places (Fruchterman and Reingold, 1991), between -1 and 1, the same for a seed."""
    random = np.random.default_rng(seed)
    place = random.uniform(-1, 1, (n, 2))
    one, other = edges.numpy()
    ideal = 1.4 / math.sqrt(max(n, 1))
    for step in range(150):
        apart = place[:, None] - place[None]
        distance = np.maximum(np.linalg.norm(apart, axis=-1), 1e-3)
        move = (apart * (ideal**2 / distance**2)[..., None]).sum(1)
        pull = place[one] - place[other]
        strength = pull * np.linalg.norm(pull, axis=1, keepdims=True) / ideal
        np.subtract.at(move, one, strength)
        np.add.at(move, other, strength)
        move -= 0.1 * place
        length = np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-9)
        place += move / length * np.minimum(length, 0.15 * (1 - step / 150))
    return place / max(float(np.abs(place).max()), 1e-9)


register_part(
    Part(
        "graph_reach",
        "how far embeddings moved by hops from the deletion, and how like gold they are",
        "probe",
        "quick",
        graph_reach,
        modalities=("graph",),
    )
)
