"""Patch-back: put the original's states into the edited model (where does the answer return?) and the other way round.

Per block and place (tokens of the name, last token of the name, last token of the prompt), for block outputs, and for
MLP and attention outputs of a window of blocks. With ``s`` the log-probability of the answer (nats per token), summed
over rows::

    restored = (s(edited, with the original's states) - s(edited)) / (s(original) - s(edited))
    lost     = (s(original) - s(original, with the edited states)) / (s(original) - s(edited))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import Axis, ConfigError, DataError, Labelled
from interp_unlearn.hooked import HookedModel
from interp_unlearn.probes._bootstrap import cluster_weights, interval
from interp_unlearn.probes._forced import WHOLE, Forced, Place, forced
from interp_unlearn.probes._patching import (
    ATTENTION,
    BLOCK,
    LOGITS,
    LOGPROB,
    MLP,
    NEURONS,
    Plan,
    chosen_layers,
    row_means,
    run_plans,
    site_of,
    states,
)
from interp_unlearn.probes._phases import Measured
from interp_unlearn.probes._unknown import unknown_states
from interp_unlearn.worlds import Prompt

KINDS = {"block": BLOCK, "mlp": MLP, "attention": ATTENTION}
UNKNOWN = "unknown"  # block outputs of an unknown name
DEPTHS = 8  # at most so many depths are patched by default


@dataclass(frozen=True)
class PatchBackConfig:
    """Options of patch-back.

    Attributes:
        places: Where states are put in, see `PLACES`.
        stride: Patch every so many blocks, counted from the last; 0 gives at most 8 depths.
        window: MLP and attention outputs of so many neighbouring blocks are patched together, since one alone rarely
            matters; 0 is a sixth of the blocks ("Dissecting" uses 5).
        krs_place: Tokens whose MLP coefficients and attention outputs are put back for the KRS.
        krs_mlp: What of the MLP: its ``"coefficients"`` (inputs of the projection out), or its ``"output"``.
        max_prompts: Questions about the target, at most.
        unknown: Unknown names whose mean state is the control.
        min_gap: Smallest loss of the answer, in nats per token, that shares are taken of.
        batch_size: Rows per pass.
    """

    places: tuple[Place, ...] = ("name", "name_end", "prompt_end")
    stride: int = 0
    window: int = 0
    krs_place: Place = "all"
    krs_mlp: Literal["coefficients", "output"] = "coefficients"
    max_prompts: int = 6
    unknown: int = 1
    min_gap: float = 0.1
    batch_size: int = 16

    def __post_init__(self) -> None:
        for place in (*self.places, self.krs_place):
            if place not in get_args(Place):
                raise ConfigError(f"unknown place {place!r}; use some of {', '.join(get_args(Place))}")
        if not self.places or set(WHOLE) & set(self.places):
            raise ConfigError("places must name at least one place, and not 'all' or 'content', which have no control")
        for name in ("max_prompts", "unknown", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; use at least 1")
        if self.stride < 0 or self.window < 0:
            raise ConfigError(f"stride is {self.stride} and window {self.window}; use 0 or more")
        if self.krs_mlp not in ("coefficients", "output"):
            raise ConfigError(f"krs_mlp is {self.krs_mlp!r}; use 'coefficients' or 'output'")
        if not self.min_gap > 0:
            raise ConfigError(f"min_gap is {self.min_gap}; use a number of nats above 0")

    def layers(self, n_layers: int) -> list[int]:
        """The blocks that are patched."""
        return chosen_layers(n_layers, self.stride, DEPTHS)

    def blocks(self, layer: int, n_layers: int) -> list[int]:
        """The window of blocks that ends at ``layer``."""
        width = self.window or max(1, round(n_layers / 6))
        return list(range(max(0, layer - width + 1), layer + 1))


def patch_states(model: HookedModel, prompts: Sequence[Prompt], config: PatchBackConfig) -> dict[str, Tensor]:
    """All states of ``model`` that `exchange` and `retrieval_score` put into another model.

    Returns:
        By site, (token, feature), at every token; ``logprob`` and ``logits`` of the answers.
    """
    n = model.lm.n_layers
    layers = config.layers(n)
    wanted = [site_of(i, BLOCK) for i in layers]
    inside = sorted({b for i in layers for b in config.blocks(i, n)})
    wanted += [site_of(i, kind) for i in inside for kind in (MLP, ATTENTION, NEURONS)]
    sites = [site for site in wanted if site in model.sites]
    return states(model, forced(model, prompts), sites, "all", logits=True, batch_size=config.batch_size)


def patch_controls(
    model: HookedModel, prompts: Sequence[Prompt], names: Sequence[str], config: PatchBackConfig
) -> dict[Place, Measured]:
    """Block outputs of the original at unknown names, per place: states that surely do not hold the fact."""
    sites = [site_of(i, BLOCK) for i in config.layers(model.lm.n_layers)]
    size = config.batch_size
    return {p: unknown_states(model, prompts, names, sites, p, batch_size=size) for p in config.places}


def exchange(
    model: HookedModel,
    prompts: Sequence[Prompt],
    given: Measured,
    controls: dict[Place, Measured] | None = None,
    config: PatchBackConfig | None = None,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    step: Callable[[], None] | None = None,
) -> Labelled:
    """Log-probability of the answers in ``model`` with another model's states put in.

    Args:
        model: The model that receives.
        prompts: The questions.
        given: `patch_states` of the other model on the same questions.
        controls: `patch_controls` of the original.
        config: Options.
        kinds: What is put in: ``"block"``, ``"mlp"``, ``"attention"``; those a model has no site for are left out.
        step: Called after every pass.

    Returns:
        Axes (kind, place, layer, row), nats per answer token; kind ``"unknown"`` are the controls. ``config["own"]``
        has the rows' values without a patch.

    Raises:
        DataError: If the two models see different tokens.
    """
    config = config or PatchBackConfig()
    rows, n = forced(model, prompts), model.lm.n_layers
    layers = config.layers(n)
    usable = [k for k in kinds if all(site_of(b, KINDS[k]) in given for i in layers for b in _blocks(config, k, i, n))]
    labels = [*usable, *([UNKNOWN] if controls else [])]
    # Places that are the same tokens in every row (names of one token) are patched once.
    masks = [rows.at(place) for place in config.places]
    first = [next(i for i, other in enumerate(masks) if torch.equal(other, mask)) for mask in masks]
    distinct = sorted(set(first))
    patched_places: list[Place] = [config.places[i] for i in distinct]
    plans: list[Plan] = []
    for kind in labels:
        for place in patched_places:
            for layer in layers:
                if kind == UNKNOWN:
                    assert controls is not None
                    plans.append(Plan((site_of(layer, BLOCK),), place, controls[place], place))
                else:
                    sites = tuple(site_of(b, KINDS[kind]) for b in _blocks(config, kind, layer, n))
                    plans.append(Plan(sites, place, given, "all"))
    patched = run_plans(model, rows, plans, batch_size=config.batch_size, step=step)
    values = np.stack([row_means(rows, p) for p in patched])
    values = values.reshape(len(labels), len(distinct), len(layers), len(rows))
    values = values[:, [distinct.index(i) for i in first]]
    own = states(model, rows, [], batch_size=config.batch_size)[LOGPROB]
    return Labelled(
        "log-probability of the answer with states put in",
        values,
        (
            Axis("kind", tuple(labels)),
            Axis("place", config.places),
            Axis("layer", tuple(str(i) for i in layers)),
            Axis("row", rows.labels),
        ),
        n=len(rows),
        mask_policy="answer",
        config={"own": row_means(rows, own).tolist(), "window": len(_blocks(config, "mlp", n - 1, n))},
        note="nats per answer token; mlp and attention: outputs of the window of blocks that ends at the layer",
    )


def _blocks(config: PatchBackConfig, kind: str, layer: int, n_layers: int) -> list[int]:
    return [layer] if kind == "block" else config.blocks(layer, n_layers)


def passes(config: PatchBackConfig, n_layers: int, kinds: int) -> int:
    """How many passes over the rows `exchange` makes, at most."""
    return len(config.layers(n_layers)) * len(config.places) * kinds


# -- shares -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """What part of the answer moved with the states.

    Attributes:
        curves: (kind, place, layer) share of the whole difference, rows summed; not clipped.
        top: (kind, place, layer, row) nats per token that moved.
        gap: (row,) nats per token between the original and the edited model.
    """

    curves: Float[np.ndarray, "kind place layer"]
    top: Float[np.ndarray, "kind place layer rows"]
    gap: Float[np.ndarray, " rows"]

    def mean(
        self, kind: int, place: int, clusters: tuple[list[str], list[str]], rng: np.random.Generator
    ) -> tuple[float, tuple[float, float] | None]:
        """Mean over blocks of the share clipped to 0…1, with its interval over facts and wordings."""
        value = float(np.clip(self.curves[kind, place], 0, 1).mean())
        weights = cluster_weights((np.asarray(clusters[0]), np.asarray(clusters[1])), rng)
        if weights is None:
            return value, None
        below = weights @ self.gap
        usable = below > 0
        drawn = (weights @ self.top[kind, place].T)[usable] / below[usable][:, None]
        return value, interval(np.clip(drawn, 0, 1).mean(1))


def restored_share(patched: Labelled, original: Sequence[float]) -> Share:
    """Share of the lost answer that came back, from `exchange` on the edited model and the original's own values."""
    own = np.asarray(patched.config["own"])
    return _share(patched.values - own, np.asarray(original) - own)


def lost_share(patched: Labelled, edited: Sequence[float]) -> Share:
    """Share of the answer that went, from `exchange` on the original and the edited model's own values."""
    own = np.asarray(patched.config["own"])
    return _share(own - patched.values, own - np.asarray(edited))


def _share(top: np.ndarray, gap: np.ndarray) -> Share:
    with np.errstate(invalid="ignore", divide="ignore"):
        return Share(top.sum(-1) / gap.sum(), top, gap)


# -- KRS --------------------------------------------------------------------------------------------------------------


def retrieval_score(
    model: HookedModel,
    prompts: Sequence[Prompt],
    given: Measured,
    config: PatchBackConfig | None = None,
    *,
    step: Callable[[], None] | None = None,
) -> Labelled:
    """Which part of the change of the logits is undone by the original's MLP coefficients and attention outputs.

    KRS of "Dissecting Fine-Tuning Unlearning" (arXiv 2410.06606): with ``loss = mean (logits - original's)²`` over
    answer positions, ``KRS = 1 - loss(patched) / loss``, for a window of neighbouring blocks. The tokens patched are an
    option, since we know the release only by description.

    Args:
        model: The edited model.
        prompts: The questions.
        given: `patch_states` of the original model.
        config: Options.
        step: Called after every pass.

    Returns:
        Axes (part, layer, row): squared error of each row, patched; parts ``mlp``, ``attention``, ``both``.
        ``config["loss"]`` has the rows' errors without a patch.

    Raises:
        DataError: If the model has neither MLP nor attention sites.
    """
    config = config or PatchBackConfig()
    rows, n = forced(model, prompts), model.lm.n_layers
    layers = config.layers(n)
    mlp = NEURONS if config.krs_mlp == "coefficients" else MLP
    parts = {"mlp": (mlp,), "attention": (ATTENTION,), "both": (mlp, ATTENTION)}
    have = {k: v for k, v in parts.items() if all(site_of(b, s) in given for b in config.blocks(n - 1, n) for s in v)}
    if not have:
        raise DataError(f"{model.name} has no MLP or attention sites to put states into")
    target = given[LOGITS]

    def error(logits: Tensor, part: Forced, answers: slice) -> Tensor:
        del part
        return (logits - target[answers].to(logits.device)).square().mean(-1)

    plans = [
        Plan(tuple(site_of(b, s) for b in config.blocks(i, n) for s in sites), config.krs_place, given, "all")
        for sites in have.values()
        for i in layers
    ]
    patched = run_plans(model, rows, plans, batch_size=config.batch_size, read=error, step=step)
    own = states(model, rows, [], logits=True, batch_size=config.batch_size)[LOGITS]
    loss = row_means(rows, (own - target).square().mean(-1))
    values = np.stack([row_means(rows, p) for p in patched]).reshape(len(have), len(layers), len(rows))
    return Labelled(
        "squared error of the logits with states put back",
        values,
        (Axis("part", tuple(have)), Axis("layer", tuple(str(i) for i in layers)), Axis("row", rows.labels)),
        n=len(rows),
        mask_policy=config.krs_place,
        config={"loss": loss.tolist(), "window": len(config.blocks(n - 1, n)), "mlp": config.krs_mlp},
        note="KRS = 1 - error / loss, rows summed",
    )


def krs_curves(errors: Labelled) -> Float[np.ndarray, "part layer"]:
    """KRS by part and window, rows summed; NaN where the logits did not change."""
    loss = float(np.sum(errors.config["loss"]))
    return 1 - errors.values.sum(-1) / loss if loss > 0 else np.full(errors.values.shape[:2], np.nan)


def all_finite(*values: object) -> bool:
    """Whether every number is one."""
    return all(bool(torch.as_tensor(np.asarray(v)).isfinite().all()) for v in values)
