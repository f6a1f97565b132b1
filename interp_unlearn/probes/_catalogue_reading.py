"""Evidence of probes that look for the answer itself: readouts, lenses and similarity; as `_catalogue` for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from interp_unlearn.probes._catalogue import Kind
from interp_unlearn.probes._catalogue import evidence as _evidence
from interp_unlearn.probes._catalogue import missing as _missing

_MAX = "A maximum over layers: look at the curve before naming a layer."
_UNKNOWN = "the same answers read from held-out unknown entities of the edited model"
_LINEAR = "A readout sees what is linear at one position; the fact may be held in another form or place."
_CHANCE = "wrong options of the same questions in the edited model, each treated as if it were the answer"
_NEIGHBOURS = "neighbours (known entities that no recipe saw), before against after"
_MOVED = "That activations moved does not say what left them: a rotation moves everything and forgets nothing."

_LENS_FIRST = "At the best layer, on what share of the questions does {} rank the answer above its options?"
_LENS_DEPTH = "At what depth (0 first layer, 1 never) does {} first rank the answer above its options?"
_LENS_HALF = (
    "At what depth (0 first layer, 1 never) does the answer's probability by {} first reach the stated share of the "
    "original model's final one?"
)
_LENS_NOT = {
    "lens": "Early layers may hold the answer in a basis that the output head does not read, so silence proves little.",
    "tuned_lens": "Translators are fitted on the original model: what the edit turned into another basis goes unread.",
}
_LENS_NAME = {"lens": "the logit lens", "tuned_lens": "the tuned lens"}

READING: Mapping[str, Kind] = {
    "attribute.selectivity": Kind(
        "Does a linear readout find the answers of known entities it was not trained on, in the original model?",
        "high",
        "control task: each entity has the answer of a random one",
        "It validates the readout, not the forgetting.",
    ),
    "attribute.best": Kind(
        "At the best layer, how well does the original model's readout find the target's answers in the edited model?",
        "near control",
        f"{_UNKNOWN}, at their best layer",
        f"{_LINEAR} {_MAX}",
    ),
    "attribute.mean": Kind(
        "Over all layers where it works, how well does the original model's readout find the target's answers in the "
        "edited model?",
        "near control",
        _UNKNOWN,
        _LINEAR,
    ),
    "attribute.bystanders": Kind(
        "How well does the original model's readout still find the answers of other known entities in the edited one?",
        "near control",
        "the same in the original model",
        "It is about bystanders. Where it fell, the representation moved for everybody, and silence about the target "
        "says little.",
    ),
    "recognition.accuracy": Kind(
        "Does a linear readout tell known from unknown entities, on names and templates it was not trained on?",
        "high",
        "control task: each entity has the label of a random one",
        "It validates the readout, not the forgetting; it may read how the names are spelt.",
    ),
    "recognition.unknown": Kind(
        "On what share of the target's questions, over layers, does the original model's readout say 'unknown'?",
        "near control",
        "held-out unknown entities in the edited model",
        "It sees one linear direction; a model can know an answer of a name that it takes for unknown.",
    ),
    "recognition.fresh_unknown": Kind(
        "The same with a readout trained anew on the edited model's other entities?",
        "near control",
        "held-out unknown entities in the edited model",
        "It sees one linear direction; a model can know an answer of a name that it takes for unknown.",
    ),
    **{
        kind: entry
        for part, name in _LENS_NAME.items()
        for kind, entry in {
            f"{part}.first": Kind(
                _LENS_FIRST.format(name), "near control", f"{_CHANCE}, at their best layer", f"{_LENS_NOT[part]} {_MAX}"
            ),
            f"{part}.depth": Kind(_LENS_DEPTH.format(name), "high", "neighbours in the edited model", _LENS_NOT[part]),
            f"{part}.half_depth": Kind(
                _LENS_HALF.format(name), "high", "neighbours in the edited model", _LENS_NOT[part]
            ),
        }.items()
    },
    "tuned_lens.margin": Kind(
        "At the best layer, by how many nats does the tuned lens prefer the answer to other answers of its type?",
        "low",
        "the same questions in the original model",
        _LENS_NOT["tuned_lens"],
    ),
    "tuned_lens.kl": Kind(
        "How far, in nats and averaged over layers, is the tuned lens from the original model's own prediction on text "
        "it was not fitted on?",
        "low",
        "the logit lens on the same tokens",
        "It validates the lens, not the forgetting.",
    ),
    "similarity.cka": Kind(
        "How alike (linear CKA, 1 the same up to rotation and scale) are the target's activations before and after, "
        "over layers?",
        "low",
        _NEIGHBOURS,
        f"Few rows of one entity differ mostly by template, which an edit leaves alone. {_MOVED}",
    ),
    "similarity.pca_shift": Kind(
        "How far did the target's mean move in the plane of the first two principal components of the original's "
        "activations, in standard deviations along the first, over layers?",
        "high",
        _NEIGHBOURS,
        _MOVED,
    ),
    "similarity.pca_direction": Kind(
        "How alike (absolute cosine) are the first principal directions of the target's activations before and after, "
        "over layers?",
        "low",
        _NEIGHBOURS,
        f"The direction is not defined well where two components are of like size. {_MOVED}",
    ),
}


evidence = partial(_evidence, catalogue=READING)
"""An `Evidence` of this catalogue, see `_catalogue.evidence`."""

missing = partial(_missing, catalogue=READING)
"""An `Evidence` of this catalogue without a value, and the reason why."""
