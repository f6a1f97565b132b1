"""Facts of the metrics that ask whether the target was in the training data: scores of one example, AUC, PrivLeak."""

from __future__ import annotations

import math

from interp_unlearn.metrics._facts import MetricFacts, register_metric

SIGNED = "higher = less likely a member"
HOLDOUT = "examples that were never seen, of the same distribution"
UNITS = {
    "mia_zlib": "nats per token and byte",
    "mia_min_k_pp": "standard deviations",
    "mia_gradnorm": "nats per token and unit of weight",
}
SHORT = "with answers of a few tokens the lowest share of them is one token"


def _score(
    name: str, title: str, formula: str, *, failure_modes: tuple[str, ...], low: float = 0.0, **more: str
) -> MetricFacts:
    """Facts of the score of one example; scores are compared, never read alone."""
    return MetricFacts(
        name,
        title,
        f"{formula}; {SIGNED}",
        unit=UNITS.get(name, "nats per token"),
        low=low,
        high=math.inf,
        on_forget="near",
        on_retain="-",
        reference=HOLDOUT,
        failure_modes=failure_modes,
        **more,
    )


PRIVACY_FACTS = (
    _score(
        "mia_loss",
        "loss",
        "L = -(1/T) Σ l_t",
        failure_modes=("frequent answers have a low loss whether or not they were members",),
    ),
    _score(
        "mia_zlib",
        "loss over compressed length",
        "L / length in bytes of the zlib-compressed answer",
        failure_modes=(
            "the header of a compressed short answer outweighs its content, so this is nearly the loss",
            "whole text or answer only: an option, published code takes the answer",
        ),
    ),
    _score(
        "mia_min_k",
        "Min-k",
        "-mean of the lowest k share of l_t, at least one token; k = 0.4",
        failure_modes=(SHORT, "k is 0.4 in published configurations of TOFU and MUSE and 0.2 in the class default"),
    ),
    _score(
        "mia_min_k_pp",
        "Min-k++",
        "as Min-k on z_t = (l_t - μ_t)/sqrt(v_t), mean and variance of log p under p (v at least 1e-6)",
        low=-math.inf,
        failure_modes=(SHORT, "a sharp distribution has a tiny variance, and then z explodes"),
    ),
    _score(
        "mia_gradnorm",
        "gradient norm",
        "mean over parameter tensors of the 2-norm of the gradient of L, one example at a time",
        failure_modes=("one backward pass per example", "large tensors and small ones count alike"),
        missing_when="the weights are quantised or frozen in a format without gradients",
    ),
    _score(
        "mia_reference",
        "loss against a reference model",
        "L(model) - L(reference model)",
        low=-math.inf,
        failure_modes=("the reference must never have seen the data; a smaller model of other data is another test",),
        missing_when="there is no model that never saw the target",
    ),
    MetricFacts(
        "mia_auc",
        "membership AUC",
        "P(score of a non-member > score of a member) + ½ P(equal)",
        on_forget="near",
        on_retain="-",
        reference="gold's AUC; else AUCs of never-known entities in the members' place (their spread is the floor)",
        failure_modes=(
            "1 = remembered, 0.5 = chance, below 0.5 = over-forgotten, which leaks just as well",
            "with non-members of another distribution it measures the mismatch",
            "few members: compare with the floor, not with 0.5",
        ),
        not_to_be_confused="some published code calls 1 - AUC the AUC",
        missing_when="there are no members or no non-members, or a score is not a number",
    ),
    MetricFacts(
        "privleak",
        "PrivLeak",
        "100 ((1 - AUC) - (1 - AUC_ref)) / (1 - AUC_ref + 1e-10), with the AUC of Min-40 %",
        unit="%",
        low=-100.0,
        high=math.inf,
        on_forget="near",
        on_retain="-",
        reference="gold's AUC, else 0.5",
        failure_modes=(
            "strongly negative = still a member, strongly positive = over-unlearned; 0 is right",
            "explodes where gold's AUC is near 1, which a mismatched holdout gives",
        ),
        missing_when="the AUC cannot be computed",
    ),
    MetricFacts(
        "s_mia",
        "bounded privacy score",
        "clip(1 - |AUC - AUC_ref| / AUC_ref, 0, 1)",
        on_forget="up",
        on_retain="-",
        reference="gold's AUC",
        failure_modes=("does not tell still a member from over-unlearned", "0.5 against 0.5 is 1 for any broken model"),
        missing_when="there is no gold model",
    ),
)

for _facts in PRIVACY_FACTS:
    register_metric(_facts)
