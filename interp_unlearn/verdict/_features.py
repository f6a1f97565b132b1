"""The evidence vector: cheap measures of behaviour and inside, none of which needs gold and none of which is an attack.

Recall of the target in any wording is no feature either, since the label counts it; what answers betray without being
given (probability, margin, confidence, entropy, membership) is.

A feature is a place (evidence names, or a table) and a transform that makes it comparable across models. Whatever a run
lacks is NaN here; the model puts the calibration's mean in its place and, where lacking is itself common, an indicator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from interp_unlearn._core import ConfigError
from interp_unlearn.verdict._findings import Findings, gold_free
from interp_unlearn.verdict._transforms import THIRDS, read

ATTACKS = ("recovery", "suppression", "relearn")
"""Beginnings of the names of evidence that a prediction must never read: they make its label."""


@dataclass(frozen=True)
class Feature:
    """One number of the evidence vector.

    Attributes:
        name: Stable name, in files.
        source: A pattern of evidence names (alternatives with ``|``), or ``table:<name>``.
        transform: How it is read, see `_transforms`.
        what: What it says, in words that end a sentence.
        single: Set on the measures that the verdict is compared with one by one: what the measure is called.
    """

    name: str
    source: str
    transform: str
    what: str
    single: str = ""

    def __post_init__(self) -> None:
        for part in self.source.split("|"):
            if part.startswith(ATTACKS) or "gold" in part:
                raise ConfigError(
                    f"feature {self.name!r} reads {part!r}: attacks make the label and gold is what users lack; "
                    "neither may predict a verdict"
                )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Feature:
        """Read what `to_json` wrote."""
        return cls(**data)


def _thirds(name: str, source: str, transform: str, what: str, single: str = "") -> list[Feature]:
    return [
        Feature(f"{name}.{which}", source, f"{transform}:{which}", f"{what} in the {which} third of the depth", single)
        for which in THIRDS
    ]


_T = "table:"
FEATURES: tuple[Feature, ...] = (
    # -- where the target lies between known and unknown entities
    Feature("alignment.t", "alignment.t/residual", "spread", "its place on the known–unknown line", "alignment t"),
    Feature("alignment.t.moved", "alignment.t/residual", "moved", "how far it moved along that line"),
    Feature("alignment.r", "alignment.r/residual", "spread", "its distance off that line", "alignment r"),
    Feature("alignment.r.moved", "alignment.r/residual", "moved", "how far it moved off that line"),
    Feature("alignment.ratio", "alignment.ratio/residual", "spread", "its nearness to unknown", "alignment ratio"),
    Feature("alignment.layers_t", "alignment.layers_t/residual", "gap", "its worst layer on the line"),
    Feature("alignment.layers_r", "alignment.layers_r/residual", "gap", "its worst layer off the line"),
    Feature("alignment.separation", "alignment.separation/residual", "left", "how bystanders are held apart"),
    Feature("two_sample.auc", "two_sample.auc/residual", "gap", "a classifier, target against unknown entities"),
    Feature("two_sample.energy", "two_sample.energy/residual", "gap", "its distance from unknown entities"),
    Feature("firing.known", "firing.known/sae", "gap", "latents that mark known entities"),
    Feature("firing.unknown", "firing.unknown/sae", "gap", "latents that mark unknown entities"),
    Feature("norm", "norm.ratio/*", "gap", "the norm of its activations"),
    Feature("recognition", "recognition.unknown/*|probe.unknown_fraction/*", "gap", "a probe of known against unknown"),
    Feature(
        "recognition.change", "recognition.unknown/*|probe.unknown_fraction/*", "change", "the change of that probe"
    ),
    Feature(
        "recognition.fresh",
        "recognition.fresh_unknown/*|probe.fresh_unknown_fraction/*",
        "gap",
        "the same probe, trained anew",
    ),
    # -- can the answer be read inside?
    Feature("attribute.best", "attribute.best/prompt", "gap", "a readout of the answer, best layer", "probe accuracy"),
    Feature("attribute.best.left", "attribute.best/prompt", "left_over_control", "that readout, as a share"),
    Feature("attribute.mean", "attribute.mean/prompt", "gap", "a readout of the answer, over layers", "probe mean"),
    Feature("attribute.mean.left", "attribute.mean/prompt", "left_over_control", "that readout, as a share"),
    Feature("attribute.class", "attribute.best/prompt.class", "gap", "a classifier of the answer, best layer"),
    Feature("attribute.name", "attribute.best/name", "gap", "a readout of the answer at the name"),
    Feature("attribute.bystanders", "attribute.bystanders/prompt", "gap", "the readout on bystanders"),
    Feature("lens.margin.left", "lens.margin/forget", "left", "the answer's margin under the logit lens", "logit lens"),
    Feature("lens.first.gap", "lens.first*", "gap", "the logit lens ranking the answer first"),
    Feature("lens.depth", "lens.depth*", "gap", "the depth where the logit lens finds the answer"),
    Feature("lens.half_depth", "lens.half_depth*", "gap", "the depth where the logit lens has half the probability"),
    *_thirds("lens.left", _T + "lens_forget", "lens_left", "the answer's margin under the logit lens"),
    Feature("lens.dip", _T + "lens_forget", "lens_dip", "the fall of the answer's margin in the last layers"),
    Feature("tuned_lens.margin.left", "tuned_lens.margin*", "left", "the answer's margin, tuned lens", "tuned lens"),
    Feature("tuned_lens.first.gap", "tuned_lens.first*", "gap", "the tuned lens ranking the answer first"),
    Feature("tuned_lens.depth", "tuned_lens.depth*", "gap", "the depth where the tuned lens finds the answer"),
    Feature("uds", "uds.score/unknown", "value", "how empty of the fact its states are (UDS)", "UDS"),
    Feature("uds.gap", "uds.score/unknown", "gap", "the same against neighbours' facts"),
    *(
        Feature(f"patch.{kind}.{place}", f"patch_back.{kind}/{place}", "gap", f"{said} at the {where}", single)
        for kind, said, single in (
            ("restored", "what the original's states restore", ""),
            ("lost", "what is lost with the edited model's states", "patch-back"),
        )
        for place, where in (("name", "name"), ("prompt_end", "end of the question"))
    ),
    Feature("patch.krs", "patch_back.krs/*", "value", "what one window of blocks restores", "KRS"),
    Feature("trace.total", "trace.total/*", "left", "what noise on the name takes away"),
    Feature("trace.indirect", "trace.indirect/*", "gap", "where the name's states matter"),
    # -- what moved
    Feature("similarity.cka.gap", "similarity.cka*", "gap", "the geometry of its activations (CKA)", "CKA"),
    Feature("similarity.pca_shift.gap", "similarity.pca_shift*", "gap", "the shift of its mean (PCA)", "PCA shift"),
    Feature("similarity.pca_direction.gap", "similarity.pca_direction*", "gap", "its first principal direction"),
    *_thirds("cka.lost", _T + "diff.cka", "cka_lost", "the change of geometry"),
    *_thirds("moved", _T + "diff.displacement", "moved_target", "how far the target moved against bystanders"),
    *_thirds("displaced", _T + "diff.displacement", "displacement", "how far the target moved"),
    Feature("weights.moved", "weights.moved/*", "log", "how far the weights moved", "weight change"),
    Feature("weights.untouched", "weights.moved/*", "is_zero", "whether it is edited only while it runs"),
    Feature("weights.depth", "weights.depth/*", "value", "the depth at which weights moved", "depth of the change"),
    Feature("weights.breadth", "weights.breadth/*", "value", "over how many blocks they moved"),
    Feature("weights.rank", "weights.rank/*", "value", "how many directions the change uses"),
    Feature("weights.attention", _T + "weights.relative_change", "weights_attention", "the share of it in attention"),
    Feature("fisher.trace", "fisher.trace/*", "value", "the change of the answers' squared gradient", "Fisher"),
    Feature("fisher.trace.gap", "fisher.trace/*", "gap", "the same against neighbours' answers"),
    Feature("neurons.weights", "neurons.overlap/weights", "gap", "whether the fact's neurons moved", "neuron overlap"),
    Feature("neurons.activations", "neurons.overlap/activations", "gap", "whether the fact's neurons fire otherwise"),
    # -- what the answers betray without being the answer
    *(
        Feature(f"{kind}_left.{which}", _T + "behaviour_by_prompt", f"{kind}_left:{which}", f"{said}, {where}")
        for kind, said in (("margin", "the margin of the right option"), ("choice", "picking the right option"))
        for which, where in (("base", "wordings of the recipe"), ("heldout", "other wordings"))
    ),
    Feature(
        "probability_left.base", _T + "behaviour", "probability_left:base", "the answer's probability", "probability"
    ),
    Feature(
        "probability_left.heldout", _T + "behaviour", "probability_left:heldout", "its probability in other wordings"
    ),
    Feature("probability_left.multi_hop", _T + "behaviour", "probability_left:multi_hop", "two-hop questions"),
    Feature("truth_ratio.gap", "memorisation.truth_ratio/*", "gap", "the truth ratio", "truth ratio"),
    Feature(
        "confidence.gap", "memorisation.confidence/*", "gap", "the confidence where the answer begins", "confidence"
    ),
    Feature("confidence.change", "memorisation.confidence/*", "change", "the change of that confidence"),
    Feature("entropy.gap", "memorisation.entropy/*", "gap", "the entropy where the answer begins", "entropy"),
    Feature("entropy.change", "memorisation.entropy/*", "change", "the change of that entropy"),
    Feature("mia.loss", "mia.auc/loss", "from_half", "membership inference by loss", "MIA (loss)"),
    Feature("mia.min_k", "mia.auc/min_k", "from_half", "membership inference (Min-k)", "MIA (Min-k)"),
    Feature("mia.min_k_pp", "mia.auc/min_k_pp", "from_half", "membership inference (Min-k++)", "MIA (Min-k++)"),
    Feature("mia.gradnorm", "mia_gradnorm.auc/*", "from_half", "membership inference by gradients", "MIA (gradient)"),
    Feature("fluency.gap", "fluency.entropy/target", "gap", "the variety of what it writes"),
)


@dataclass(frozen=True)
class Reading:
    """One feature of one run.

    Attributes:
        feature: Which.
        value: Its value, NaN where it cannot be read.
        sources: The evidence and tables it was read from.
    """

    feature: Feature
    value: float
    sources: tuple[str, ...]


def read_features(findings: Findings, features: Sequence[Feature] = FEATURES) -> tuple[Reading, ...]:
    """Every feature of a run, read as if there were no gold model."""
    free = gold_free(findings)
    return tuple(Reading(f, *read(free, f.source, f.transform)) for f in features)


def vector(findings: Findings, features: Sequence[Feature] = FEATURES) -> dict[str, float]:
    """The evidence vector: value by feature name, NaN where missing."""
    return {r.feature.name: r.value for r in read_features(findings, features)}


@dataclass(frozen=True)
class Scale:
    """How one column of the design matrix is made from its feature.

    Attributes:
        feature: The feature's name.
        mean: Mean over the calibration set; missing values take it.
        sd: Standard deviation there.
        low: Smallest value there.
        high: Largest value there.
        missing: Whether a second column says that the feature is missing.
        missing_mean: Share of the calibration set in which it is.
    """

    feature: str
    mean: float
    sd: float
    low: float
    high: float
    missing: bool
    missing_mean: float


MISSING = "missing: "
COMMON = 0.05
"""An indicator is added where a feature is missing in more than this share of runs, and present in as many."""
CLIP = 0.5
"""Standardised values are cut half a standard deviation outside the range seen in calibration."""


def fit_scales(values: np.ndarray, names: Sequence[str]) -> tuple[Scale, ...]:
    """Scales of a (run, feature) matrix; features that hardly vary, or are nearly always missing, are left out."""
    out = []
    for column, name in zip(np.asarray(values, dtype=np.float64).T, names, strict=True):
        there = np.isfinite(column)
        share = 1 - float(there.mean())
        if there.sum() < 5 or 1 - share < COMMON or not float(np.std(column[there])) > 1e-9:
            continue
        some = column[there]
        out.append(
            Scale(
                name,
                float(some.mean()),
                float(some.std()),
                float(some.min()),
                float(some.max()),
                COMMON < share < 1 - COMMON,
                share,
            )
        )
    return tuple(out)


def columns(scales: Sequence[Scale]) -> tuple[str, ...]:
    """Names of the columns that `design` makes."""
    return tuple(n for s in scales for n in ((s.feature, MISSING + s.feature) if s.missing else (s.feature,)))


def design_matrix(values: np.ndarray, names: Sequence[str], scales: Sequence[Scale]) -> np.ndarray:
    """Standardised columns of many runs.

    Args:
        values: (run, feature), NaN where missing.
        names: Of the features, in the order of ``values``; one that a scale wants and that is not there is missing.
        scales: From `fit_scales`.

    Returns:
        (run, column), in the order of `columns`.
    """
    place = {name: i for i, name in enumerate(names)}
    out = []
    for scale in scales:
        column = values[:, place[scale.feature]] if scale.feature in place else np.full(len(values), np.nan)
        absent = ~np.isfinite(column)
        slack = CLIP * scale.sd
        cut = np.where(absent, scale.mean, np.clip(column, scale.low - slack, scale.high + slack))
        out.append((cut - scale.mean) / scale.sd)
        if scale.missing:
            spread = math.sqrt(scale.missing_mean * (1 - scale.missing_mean))
            out.append((absent - scale.missing_mean) / spread)
    return np.stack(out, axis=1) if out else np.zeros((len(values), 0))


def design(values: Mapping[str, float], scales: Sequence[Scale]) -> np.ndarray:
    """Standardised columns of one run, (column,)."""
    row = np.array([list(values.values())], dtype=np.float64).reshape(1, len(values))
    return design_matrix(row, tuple(values), scales)[0]


def outside(values: Mapping[str, float], scales: Sequence[Scale]) -> tuple[str, ...]:
    """Features of a run that lie outside the calibrated range, or are missing though they never were there."""
    found = []
    for scale in scales:
        value, slack = values.get(scale.feature, math.nan), CLIP * scale.sd
        if not math.isfinite(value):
            if not scale.missing:
                found.append(f"{scale.feature} (missing)")
        elif not scale.low - slack <= value <= scale.high + slack:
            found.append(scale.feature)
    return tuple(found)
