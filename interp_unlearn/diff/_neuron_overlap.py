"""Are the neurons that held the fact the ones that moved?

Fact neurons are those with the largest attribution to the answers in the original model. Moved neurons are, in every
block where anything moved, the share with the largest change of their weights or of their activations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn._core import Axis, ConfigError, DataError, Evidence, Labelled, ModelError, config_hash, numpy_rng
from interp_unlearn.diff._changed import Changed, changed_tensors
from interp_unlearn.hooked import HookedModel
from interp_unlearn.neurons import AttributionConfig, attribute
from interp_unlearn.neurons._weights import weight_names
from interp_unlearn.probes import Found, Measured, Part, Phases, forced, pick_prompts, register_part, states
from interp_unlearn.probes._bootstrap import cluster_weights, interval
from interp_unlearn.probes._catalogue import Kind, evidence, missing
from interp_unlearn.probes._parts import Progress
from interp_unlearn.worlds import Prompt

OVERLAP = "neurons.overlap"
SITE = "mlp.hook_post"
CATALOGUE: Mapping[str, Kind] = {
    OVERLAP: Kind(
        "Which share of the neurons that held the fact are among those that moved most?",
        "high",
        "as many random neurons of the same blocks",
        "Neurons that matter for an answer get large gradients in any training, for neighbours too: compare with "
        "neighbour_share. That they moved does not say that the fact is gone.",
    )
}


@dataclass(frozen=True)
class OverlapConfig:
    """Options of the neuron overlap.

    Attributes:
        fact_share: Share of all neurons that count as holding the fact.
        moved_share: Share of each block's neurons that count as moved.
        max_prompts: Questions about the target (and about neighbours), at most.
        draws: Resamples of the questions for the interval.
    """

    fact_share: float = 0.005
    moved_share: float = 0.05
    max_prompts: int = 8
    draws: int = 200

    def __post_init__(self) -> None:
        for name in ("fact_share", "moved_share"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; use a share between 0 and 1, e.g. 0.01")
        if self.max_prompts < 1 or self.draws < 1:
            raise ConfigError("max_prompts and draws must be at least 1")


@dataclass(frozen=True)
class Overlap:
    """Result of `neuron_overlap`.

    Attributes:
        share: Share of the fact neurons (of blocks where anything moved) that are among the moved ones.
        expected: The same for random neurons of the same blocks.
        p_value: Probability of at least this overlap by chance: hypergeometric in each block, blocks independent.
        covered: Share of the fact neurons that lie in blocks where anything moved.
        rank: Mean place of the fact neurons in their blocks' order by movement (0.5: like any, 1: moved most).
        n: Number of fact neurons that were compared.
        by_layer: (layer, quantity): fact neurons, moved neurons, both.
    """

    share: float
    expected: float
    p_value: float
    covered: float
    rank: float
    n: int
    by_layer: Labelled


def neuron_overlap(
    scores: Float[np.ndarray, "layer neuron"],
    moved: Float[np.ndarray, "layer neuron"],
    config: OverlapConfig | None = None,
) -> Overlap:
    """Overlap of the neurons with the largest scores and those that moved most.

    Args:
        scores: Attribution to the answers; only positive scores hold a fact.
        moved: How far each neuron moved; a block of zeros did not move.
        config: Options.
    """
    config = config or OverlapConfig()
    facts = top_neurons(scores, config.fact_share)
    hit = moved_neurons(moved, config.moved_share)
    live = np.asarray(hit.any(1))
    k, m, both = (x.sum(1)[live] for x in (facts, hit, facts & hit))
    n, width = int(k.sum()), scores.shape[1]
    places = _places(moved)[facts & live[:, None]]
    layers = tuple(str(i) for i in range(len(scores)))
    table = Labelled(
        "fact neurons and moved neurons",
        np.stack([facts.sum(1), hit.sum(1), (facts & hit).sum(1)], 1),
        (Axis("layer", layers), Axis("quantity", ("fact", "moved", "both"))),
        n=int(facts.sum()),
        mask_policy="-",
        config=asdict(config),
    )
    if not n:
        return Overlap(float("nan"), float("nan"), float("nan"), 0.0, float("nan"), 0, table)
    return Overlap(
        share=float(both.sum() / n),
        expected=float((k * m / width).sum() / n),
        p_value=chance(int(both.sum()), width, m.tolist(), k.tolist()),
        covered=float(n / facts.sum()),
        rank=float(places.mean()),
        n=n,
        by_layer=table,
    )


def top_neurons(scores: Float[np.ndarray, "layer neuron"], share: float) -> Bool[np.ndarray, "layer neuron"]:
    """The largest positive scores of all layers together, at most a share of all neurons."""
    count = max(1, round(share * scores.size))
    order = np.argsort(-scores, axis=None, kind="stable")[:count]
    mask = np.zeros(scores.size, dtype=bool)
    mask[order] = True
    return mask.reshape(scores.shape) & (scores > 0)


def moved_neurons(moved: Float[np.ndarray, "layer neuron"], share: float) -> Bool[np.ndarray, "layer neuron"]:
    """The neurons of each layer that moved most; none where nothing moved."""
    count = max(1, round(share * moved.shape[1]))
    order = np.argsort(-moved, axis=1, kind="stable")[:, :count]
    mask = np.zeros(moved.shape, dtype=bool)
    np.put_along_axis(mask, order, True, axis=1)
    return mask & (moved > 0)


def _places(moved: Float[np.ndarray, "layer neuron"]) -> Float[np.ndarray, "layer neuron"]:
    """Share of the layer's other neurons that moved less, ties counting half."""
    from scipy.stats import rankdata

    return (rankdata(moved, axis=1) - 1) / max(1, moved.shape[1] - 1)


def chance(overlap: int, width: int, moved: Sequence[int], facts: Sequence[int]) -> float:
    """Probability of at least ``overlap`` common neurons when each block's fact neurons are drawn at random."""
    from scipy.stats import hypergeom

    total = np.ones(1)
    for m, k in zip(moved, facts, strict=True):
        total = np.convolve(total, hypergeom.pmf(np.arange(k + 1), width, m, k))
    return float(min(1.0, total[overlap:].sum()))


def moved_weights(model: HookedModel, changed: Changed) -> Float[np.ndarray, "layer neuron"]:
    """Norm of the change of each neuron's weights: its column of the projection out, its rows of those in.

    Where the projections in are fused with others, only the column counts.
    """
    return neuron_norms(model, {name: new.float() - changed.old[name].float() for name, new in changed.new.items()})


def neuron_norms(model: HookedModel, weights: Mapping[str, Tensor]) -> Float[np.ndarray, "layer neuron"]:
    """Norm of the entries of ``weights`` that belong to each neuron, see `moved_weights`.

    Args:
        model: Says which matrices hold the neurons of each block.
        weights: Parameter name to values; matrices that are not named count as zero.
    """
    shape = model.lm
    out = np.zeros((shape.n_layers, shape.d_mlp))
    sites = [f"blocks.{i}.{SITE}" for i in range(shape.n_layers)]
    for layer in range(shape.n_layers):
        sides = [("down", name) for name in weight_names(model, sites, "down", layer)]
        try:
            sides += [("up", name) for name in weight_names(model, sites, "up", layer)]
        except ModelError:
            sides = sides[:1]
        for side, name in sides:
            if name not in weights:
                continue
            squares = weights[name].detach().float().square()
            conv = type(model.submodule(name.rpartition(".")[0])).__name__.startswith("Conv1D")
            keep_rows = (side == "down") == conv  # neurons are the rows of this matrix
            out[layer] += squares.sum(1 if keep_rows else 0).double().cpu().numpy()
    return np.sqrt(out)


# -- from phases ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NeuronReading:
    """What is read of the neurons of a run.

    Attributes:
        scores: Attribution of each answer about the target, in the original.
        neighbours: The same for neighbours, as a mean over their questions; None without any.
        weights: Norm of the change of each neuron's weights.
        activations: Mean absolute change of each neuron on the target's questions.
        target: The target's questions.
    """

    scores: Float[np.ndarray, "prompt layer neuron"]
    neighbours: Float[np.ndarray, "layer neuron"] | None
    weights: Float[np.ndarray, "layer neuron"]
    activations: Float[np.ndarray, "layer neuron"]
    target: tuple[Prompt, ...]


def read_neurons(phases: Phases, max_prompts: int = OverlapConfig.max_prompts) -> NeuronReading:
    """Attribution of the answers in the original, and how far each neuron moved.

    Args:
        phases: The models.
        max_prompts: Questions about the target (and about neighbours), at most.

    Raises:
        DataError: If the task asks nothing about the target.
        ModelError: If there are no neurons that can be read in every block.
    """
    task = phases.task
    target = pick_prompts(task.forget_heldout.prompts or task.forget_train.prompts, max_prompts)
    near = pick_prompts(task.neighbours.prompts, max_prompts)
    if not target:
        raise DataError("the task asks nothing about the target")
    with phases.open("after") as model:
        sites = [f"blocks.{i}.{SITE}" for i in range(model.lm.n_layers)]
        if not all(site in model.sites for site in sites):
            raise ModelError("the model has no neurons that can be read in every block")
        edited = _activations(model, target, sites)
    scores = phases.once("before", _key("target", target), lambda m: _scores(m, target))["scores"].double().numpy()
    others = None
    if near:
        others = phases.once("before", _key("neighbours", near), lambda m: _scores(m, near))["scores"]
        others = others.double().numpy().mean(0)
    changed = changed_tensors(phases)
    with phases.open("before") as model:
        original = _activations(model, target, sites)
        by_weight = moved_weights(model, changed)
    by_activation = np.stack([(edited[s] - original[s]).abs().mean(0).double().numpy() for s in sites])
    return NeuronReading(scores, others, by_weight, by_activation, tuple(target))


def overlap_evidence(phases: Phases, config: OverlapConfig | None = None) -> Found:
    """Overlap of fact neurons with those whose weights, and whose activations, moved most.

    Returns:
        ``neurons.overlap/weights`` and ``neurons.overlap/activations``.
    """
    config = config or OverlapConfig()
    try:
        read = read_neurons(phases, config.max_prompts)
    except (DataError, ModelError) as error:
        return Found((_absent("weights", str(error)), _absent("activations", str(error))))
    clusters = [f"{p.entity}|{p.relation}" for p in read.target], [p.template for p in read.target]
    out = []
    for where, moved, none in (
        ("weights", read.weights, "no neuron's weights moved"),
        ("activations", read.activations, "no neuron's activation moved"),
    ):
        if not np.isfinite(moved).all():
            out.append(_absent(where, "the edited model's numbers are not finite; the model is broken"))
        elif not moved.any():
            out.append(_absent(where, none))
        elif not (read.scores.mean(0) > 0).any():
            out.append(_absent(where, "no neuron has a positive attribution to the answers"))
        else:
            out.append(_evidence(where, read.scores, read.neighbours, moved, clusters, config, phases.seed))
    return Found(tuple(out))


def _key(which: str, prompts: list[Prompt]) -> str:
    return f"neurons.scores.{which}.{config_hash([p.full for p in prompts])}"


def _scores(model: HookedModel, prompts: list[Prompt]) -> Measured:
    """Attribution of the answers' log-probability, (prompt, layer, neuron)."""
    settings = AttributionConfig(target="logprob", completeness_prompts=0)
    found = attribute(model, [p.text for p in prompts], [p.answer for p in prompts], settings)
    return {"scores": torch.from_numpy(found.scores.values).float()}


def _activations(model: HookedModel, prompts: list[Prompt], sites: list[str]) -> dict[str, Tensor]:
    return states(model, forced(model, prompts), sites, "content")


def _evidence(
    where: str,
    scores: np.ndarray,
    others: np.ndarray | None,
    moved: np.ndarray,
    clusters: tuple[list[str], list[str]],
    config: OverlapConfig,
    seed: int,
) -> Evidence:
    result = neuron_overlap(scores.mean(0), moved, config)
    if not result.n:
        return _absent(
            where, "every fact neuron lies in a block where nothing moved", details={"layers": result.by_layer}
        )
    rng = numpy_rng(seed, OVERLAP, where)
    weights = cluster_weights((np.asarray(clusters[0]), np.asarray(clusters[1])), rng, config.draws)
    span = None
    if weights is not None:
        usable = weights[weights.sum(1) > 0]
        drawn = [neuron_overlap(np.tensordot(w / w.sum(), scores, 1), moved, config).share for w in usable]
        span = interval(np.asarray([d for d in drawn if np.isfinite(d)]))
    facts: dict[str, Any] = {
        **asdict(config),
        "p_value": result.p_value,
        "covered": result.covered,
        "mean_rank": result.rank,
        "neighbour_share": None if others is None else neuron_overlap(others, moved, config).share,
    }
    return evidence(
        OVERLAP,
        where,
        result.share,
        n=result.n,
        mask_policy="content" if where == "activations" else "-",
        interval=span,
        control=result.expected,
        details={"layers": result.by_layer},
        config=facts,
        seed=seed,
        catalogue=CATALOGUE,
    )


def _absent(where: str, reason: str, **fields: Any) -> Evidence:
    return missing(OVERLAP, where, reason, mask_policy="-", catalogue=CATALOGUE, **fields)


def look(phases: Phases, progress: Progress) -> Found:
    """Neuron overlap with its defaults."""
    progress("comparing fact neurons with moved neurons", 0, 0)
    return overlap_evidence(phases)


register_part(Part("neurons", "overlap of fact neurons and moved neurons", "probe", "standard", look))
