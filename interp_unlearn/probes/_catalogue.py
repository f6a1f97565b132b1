"""Every evidence of this room: its id, what it asks, where a forgotten target lies, and what it does not show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from interp_unlearn._core import Evidence, Labelled

Direction = Literal["low", "high", "near control"]


@dataclass(frozen=True)
class Kind:
    """One kind of evidence.

    Attributes:
        question: What it asks, in one sentence.
        direction: What a forgotten target looks like.
        control: What the control is.
        does_not_show: What a reader must not conclude.
    """

    question: str
    direction: Direction
    control: str
    does_not_show: str


_UNKNOWN = "unknown_eval in the edited model"
_OUTPUT = "It reads one position; the fact may still be read out elsewhere, or by later layers from other tokens."
_OFF = "A value off the known–unknown line can come with any value here: read alignment.r beside it."

CATALOGUE: Mapping[str, Kind] = {
    "alignment.t": Kind(
        "How far along the axis from known (0) to unknown (1) entities of the original model does the target lie?",
        "near control",
        _UNKNOWN,
        f"{_OFF} Values above those of unknown entities are overshoot, which is not forgetting.",
    ),
    "alignment.r": Kind(
        "How far off the known–unknown line does the target lie, in units of its length?",
        "near control",
        _UNKNOWN,
        "A usual distance says nothing about the position along the line, and nothing about answers.",
    ),
    "alignment.ratio": Kind(
        "Is the target nearer to the known (0) or the unknown (1) mean of the original model?",
        "near control",
        _UNKNOWN,
        _OFF,
    ),
    "alignment.separation": Kind(
        "Does the edited model still hold known and unknown entities (not the target) apart?",
        "near control",
        "the same in the original model",
        "It is about bystanders: a low value means that recognition is damaged; a good one says nothing of the target.",
    ),
    "alignment.layers_t": Kind(
        "At the worst layer, by how many standard deviations over unknown entities is the target's t off theirs?",
        "near control",
        "median of the same for each held-out unknown entity against the others",
        "A maximum over layers: look at the curve before naming a layer.",
    ),
    "alignment.layers_r": Kind(
        "At the worst layer, by how many standard deviations over unknown entities is the target's r off theirs?",
        "near control",
        "median of the same for each held-out unknown entity against the others",
        "A maximum over layers: look at the curve before naming a layer.",
    ),
    "firing.known": Kind(
        "How often do the latents that mark known entities fire on the target?",
        "near control",
        _UNKNOWN,
        "Latents that are silent do not mean that the residual stream is empty; below the control is over-suppression.",
    ),
    "firing.unknown": Kind(
        "How often do the latents that mark unknown entities fire on the target?",
        "near control",
        _UNKNOWN,
        "A flag for 'unknown' can be raised while the facts stay readable; above the control is overshoot.",
    ),
    "two_sample.auc": Kind(
        "How well does a linear classifier tell the target from held-out unknown entities, on unseen templates?",
        "near control",
        "median of the same for each held-out unknown entity against the others",
        "A name's own tokens set every entity apart, so the floor can be near 1 and then this test has no power.",
    ),
    "two_sample.auc_set": Kind(
        "How well does a linear classifier tell target entities it has not seen from unknown entities it has not seen?",
        "near control",
        "median of the same for random sets of unknown entities against the rest",
        "Differences that do not separate linearly, or that single entities alone have, go unseen.",
    ),
    "two_sample.energy": Kind(
        "How large is the energy distance (0 to 1) between the target and held-out unknown entities?",
        "near control",
        "median over sets of entities of the same size drawn without regard to the labels",
        "A large p-value with few unknown entities is weak evidence of sameness; see p_value and n_unknown in config.",
    ),
    "two_sample.mmd": Kind(
        "How large is the squared MMD (Gaussian kernel) between the target and held-out unknown entities?",
        "near control",
        "median over sets of entities of the same size drawn without regard to the labels",
        "A large p-value with few unknown entities is weak evidence of sameness; see p_value and n_unknown in config.",
    ),
    "sae.fvu": Kind(
        "What fraction of the target's variance does the SAE leave unexplained in the edited model?",
        "near control",
        _UNKNOWN,
        "It is a health check: when it jumps, the target left the SAE's domain and its latents mean little.",
    ),
    "sae.l0": Kind(
        "How many latents fire on the target in the edited model?",
        "near control",
        _UNKNOWN,
        "A health check; a TopK SAE fires the same number by construction.",
    ),
    "norm.ratio": Kind(
        "By what factor did the norm of the target's activations change?",
        "near control",
        "unknown_eval, edited over original",
        "A norm that stays says nothing about direction.",
    ),
    "probe.accuracy": Kind(
        "Does a linear probe tell known from unknown entities it was not trained on, in the original model?",
        "high",
        "the same probe on labels shuffled among entities",
        "It validates the probe, not the forgetting. Where the curve is high from the first layer on, the probe may "
        "read the names' own tokens (number, rarity) and not recognition.",
    ),
    "probe.unknown_fraction": Kind(
        "On what fraction of the target's mentions does the original model's known/unknown probe say 'unknown'?",
        "near control",
        _UNKNOWN,
        "A probe can be misled by a shift that leaves the knowledge in place; it sees one linear direction only.",
    ),
    "probe.fresh_unknown_fraction": Kind(
        "The same with a probe trained anew on the edited model's reference entities?",
        "near control",
        _UNKNOWN,
        "A fresh probe follows a moved representation, but still sees one linear direction only.",
    ),
    "lens.margin": Kind(
        "At the best layer, by how many nats does the logit lens prefer the answer to other answers of its type?",
        "low",
        "the same questions in the original model",
        "Early layers may hold the answer in a basis that the output head does not read, and their margin shows how "
        f"common the answer's token is. {_OUTPUT}",
    ),
}


def evidence(
    kind: str,
    where: str,
    value: float,
    *,
    n: int,
    mask_policy: str,
    catalogue: Mapping[str, Kind] = CATALOGUE,
    **fields: Any,
) -> Evidence:
    """An `Evidence` named ``"<kind>/<where>"`` with its catalogue entry; a control name of your own replaces its."""
    entry = catalogue[kind]
    filled = {"control_name": entry.control, **fields}
    return Evidence(
        name=f"{kind}/{where}",
        question=entry.question,
        value=float(value),
        direction=entry.direction,
        n=n,
        mask_policy=mask_policy,
        does_not_show=entry.does_not_show,
        **filled,
    )


def missing(kind: str, where: str, reason: str, *, mask_policy: str, **fields: Any) -> Evidence:
    """An `Evidence` without a value, and the reason why."""
    return evidence(kind, where, float("nan"), n=0, mask_policy=mask_policy, reason=reason, **fields)


def with_details(details: Mapping[str, Labelled | None]) -> dict[str, Labelled]:
    """The details that exist."""
    return {name: table for name, table in details.items() if table is not None}
