"""Choose neurons by score, and as many random ones as a control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from interp_unlearn._core import Axis, ConfigError, DataError, FileFormatError, Labelled, check_choice, numpy_rng

Scope = Literal["global", "per_layer"]
Sign = Literal["positive", "absolute"]


@dataclass(frozen=True)
class NeuronSet:
    """Neurons, layer by layer.

    Attributes:
        by_layer: Layer index to its neurons, sorted; layers without any are left out.
        sites: Site of every layer, in order.
        width: Neurons per layer.
        how: How they were chosen.
        config: Settings behind it.
        seed: Seed, where they are random.
    """

    by_layer: Mapping[int, tuple[int, ...]]
    sites: tuple[str, ...]
    width: int
    how: str
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None

    def __len__(self) -> int:
        return sum(len(v) for v in self.by_layer.values())

    @property
    def ratio(self) -> float:
        """Share of all neurons."""
        return len(self) / (len(self.sites) * self.width)

    def to_labelled(self) -> Labelled:
        """1 at chosen neurons, axes (layer, neuron)."""
        values = np.zeros((len(self.sites), self.width))
        for layer, neurons in self.by_layer.items():
            values[layer, list(neurons)] = 1
        axes = (Axis("layer", self.sites), Axis("neuron", tuple(str(i) for i in range(self.width))))
        return Labelled(
            "neurons.chosen",
            values,
            axes,
            n=len(self),
            mask_policy="-",
            config=self.config,
            seed=self.seed,
            note=self.how,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary that `from_json` reads back."""
        by_layer = {str(layer): list(neurons) for layer, neurons in self.by_layer.items()}
        facts = {"sites": list(self.sites), "width": self.width, "how": self.how, "config": dict(self.config)}
        return {"kind": "neurons", "by_layer": by_layer, **facts, "seed": self.seed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NeuronSet:
        """Read what `to_json` wrote.

        Raises:
            FileFormatError: If it is something else.
        """
        if data.get("kind") != "neurons":
            raise FileFormatError("this is not a saved set of neurons")
        by_layer = {int(layer): tuple(neurons) for layer, neurons in data["by_layer"].items()}
        return cls(by_layer, tuple(data["sites"]), data["width"], data["how"], data["config"], data["seed"])


def share(ratio: float, total: int) -> int:
    """How many of ``total`` a ratio means, at least one."""
    return max(1, round(ratio * total))


def chosen(values: np.ndarray, count: int) -> np.ndarray:
    """True at the ``count`` largest values; ties go to the first."""
    mask = np.zeros(values.size, dtype=bool)
    mask[np.argsort(-values, axis=None, kind="stable")[:count]] = True
    return mask.reshape(values.shape)


def select_neurons(
    scores: Labelled,
    ratio: float,
    *,
    scope: Scope = "global",
    sign: Sign = "positive",
) -> NeuronSet:
    """The neurons with the largest scores.

    Args:
        scores: Axes (layer, neuron), as from `klue_scores` or `Attribution.over_prompts`.
        ratio: Share of all neurons, 0 < ratio ≤ 1; ``round(ratio · layers · neurons)`` are chosen.
        scope: Rank all layers together, or give each the same share.
        sign: Keep the sign (largest first: neurons that support the answer), or rank by magnitude.

    Raises:
        ConfigError: If the ratio is out of range, or scope or sign unknown.
        DataError: If scores are not numbers, all zero, or too many neurons are excluded.
    """
    if not 0 < ratio <= 1:
        raise ConfigError(f"ratio is {ratio}; use a share of the neurons above 0 and at most 1, e.g. 0.05")
    check_choice("scope", scope, Scope)
    check_choice("sign", sign, Sign)
    if [axis.name for axis in scores.axes] != ["layer", "neuron"]:
        raise DataError(f"neurons are chosen by scores with axes (layer, neuron); {scores.name!r} has others")
    values = scores.values
    if bool(np.isnan(values).any()):
        raise DataError(f"{scores.name} holds NaN; check the model's weights")
    if not bool(values.any()):
        raise DataError(
            f"every score in {scores.name} is exactly zero: no gradient reached a neuron, and any choice would be "
            "arbitrary; check that the answers depend on the scored site"
        )
    ranked = np.abs(values) if sign == "absolute" else values
    ranked = np.where(np.isneginf(values), -np.inf, ranked)
    if scope == "global":
        mask = chosen(ranked, share(ratio, ranked.size))
    else:
        mask = np.stack([chosen(row, share(ratio, row.size)) for row in ranked])
    if bool(np.isneginf(ranked[mask]).any()):
        raise DataError("fewer neurons are left than the ratio asks for; lower ratio or exclude")
    by_layer = {i: tuple(int(n) for n in np.flatnonzero(row)) for i, row in enumerate(mask) if row.any()}
    config = {"ratio": ratio, "scope": scope, "sign": sign, "scores": scores.name}
    return NeuronSet(by_layer, scores.axes[0].labels, values.shape[1], "largest scores", config)


def shared_neurons(scores: Labelled, *, threshold: float = 0.2, prompts: float = 0.7) -> NeuronSet:
    """Knowledge neurons as Dai et al. (arXiv 2104.08696) choose them: strong for most wordings of one fact.

    Args:
        scores: Axes (prompt, layer, neuron), all prompts asking the same fact.
        threshold: Per prompt, keep neurons with at least this share of its largest score.
        prompts: Keep neurons that are left for at least this share of the prompts.

    Raises:
        ConfigError: If a share is out of range.
        DataError: If scores have other axes, or no neuron is shared.
    """
    for name, value in (("threshold", threshold), ("prompts", prompts)):
        if not 0 < value <= 1:
            raise ConfigError(f"{name} is {value}; use a share above 0 and at most 1")
    if [axis.name for axis in scores.axes] != ["prompt", "layer", "neuron"]:
        raise DataError(f"shared neurons need scores with axes (prompt, layer, neuron); {scores.name!r} has others")
    values = scores.values
    largest = values.max((1, 2), keepdims=True)
    strong = (values >= threshold * largest) & (largest > 0)
    mask = strong.sum(0) >= prompts * len(values)
    if not mask.any():
        raise DataError("no neuron is strong for enough prompts; lower threshold or prompts")
    by_layer = {i: tuple(int(n) for n in np.flatnonzero(row)) for i, row in enumerate(mask) if row.any()}
    config = {"threshold": threshold, "prompts": prompts, "scores": scores.name}
    return NeuronSet(by_layer, scores.axes[1].labels, values.shape[2], "strong for most prompts", config)


def matched_random(neurons: NeuronSet, seed: int = 0, *, avoid: bool = True) -> NeuronSet:
    """As many random neurons in each layer: the control without which a localisation claim is empty.

    Args:
        neurons: The chosen set.
        seed: Decides the draw.
        avoid: Draw from the neurons that were not chosen, as far as there are enough of them.
    """
    by_layer = {}
    for layer, mine in neurons.by_layer.items():
        rng = numpy_rng(seed, "matched random neurons", layer)
        rest = np.setdiff1d(np.arange(neurons.width), mine) if avoid else np.arange(neurons.width)
        drawn = rng.permutation(rest)[: len(mine)]
        if len(drawn) < len(mine):  # more than half were chosen: some must be shared
            drawn = np.concatenate([drawn, rng.permutation(np.asarray(mine))[: len(mine) - len(drawn)]])
        by_layer[layer] = tuple(sorted(int(n) for n in drawn))
    config = {**neurons.config, "avoid": avoid}
    return NeuronSet(by_layer, neurons.sites, neurons.width, "random, matched per layer", config, seed)
