"""Evidence from patching, tracing and gradients: ids, questions, directions and caveats, as in `_catalogue`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp_unlearn._core import Evidence
from interp_unlearn.probes._catalogue import Kind, evidence, missing

_DONOR = "Early states hold the name, later ones may hold the answer itself: look at the curve over layers."

PATCHING: Mapping[str, Kind] = {
    "uds.score": Kind(
        "Read by the original model, do the edited model's states carry the fact like the original's (0), or are they "
        "as empty of it as the reference's (1)?",
        "high",
        "the same for facts of neighbours, which should be 0, against states of unknown entities",
        "The original model reads the states: a fact that is still there in another basis counts as erased. It sees "
        "the tokens that predict the answer, in one wording per row.",
    ),
    "patch_back.restored": Kind(
        "How much of the lost answer comes back when the original's states are put into the edited model, on average "
        "over blocks?",
        "low",
        "the original's states of an unknown name in the same wording",
        f"{_DONOR} What comes back shows that the blocks above still read it, not that the edited model holds it.",
    ),
    "patch_back.lost": Kind(
        "How much of what the edit took away is lost when the edited model's states are put into the original, on "
        "average over blocks?",
        "high",
        "the original's states of an unknown name in the same wording, in the same unit",
        "States in another basis lose the answer too, although the edited model may still read them.",
    ),
    "patch_back.krs": Kind(
        "Which share of the change of the logits is undone by the original's MLP coefficients and attention outputs in "
        "the best window of blocks?",
        "low",
        "the median window",
        "A change that is spread over all blocks gives a low value whether knowledge is gone or not. The donors' "
        "states carry the answer in late blocks.",
    ),
    "trace.total": Kind(
        "By how many nats per token does noise on the name lower the answer in the edited model?",
        "low",
        "the same in the original model",
        "A low value says that this prompt no longer brings the answer, not why.",
    ),
    "trace.indirect": Kind(
        "Which share of the answer that noise on the name takes away comes back with one block's clean states, on "
        "average over blocks?",
        "near control",
        "the same in the original model",
        "Where states matter is not where a fact is stored (Hase et al., 2023).",
    ),
    "fisher.trace": Kind(
        "By how many powers of ten did the squared gradient of the answers change?",
        "high",
        "the same for questions about neighbours",
        "An answer that is merely suppressed has large gradients too.",
    ),
    "fisher.erasure": Kind(
        "On the weights that are more sensitive in gold than in the original, how far did the sensitivity move to "
        "gold's?",
        "high",
        "the same on the neighbours' questions",
        "Published as unstable under quantisation; a mask of few weights is noisy.",
    ),
}

WITHIN = "teacher-forced answer tokens"


def found(kind: str, where: str, value: float, *, n: int, **fields: Any) -> Evidence:
    """An `Evidence` of `PATCHING`."""
    fields.setdefault("mask_policy", WITHIN)
    return evidence(kind, where, value, n=n, catalogue=PATCHING, **fields)


def absent(kind: str, where: str, reason: str, **fields: Any) -> Evidence:
    """An `Evidence` without a value, and the reason why."""
    return missing(kind, where, reason, **{"mask_policy": WITHIN, **fields}, catalogue=PATCHING)
