"""What follows from a forgotten target and is still answered: found, counted from gold, said, and never a label."""

import math

import numpy as np
import pytest

from interp_unlearn._core import Axis, Labelled
from interp_unlearn.verdict import Findings, LabelRules, inferred, judge

PHASES = ("before", "after", "gold")


def with_set(found: Findings, name: str, before: float, after: float, gold: float = math.nan) -> Findings:
    """The findings of a run that asked one more set of four questions; NaN for gold means that there is none."""
    tables = {k: v for k, v in found.tables.items() if k != "behaviour.gold"}
    for phase, level in zip(PHASES, (before, after, gold), strict=True):
        if math.isnan(level):
            continue
        key = f"behaviour.{phase}"
        old = found.tables[key]
        sets, metrics = old.axes
        tables[key] = Labelled(
            key,
            np.concatenate([old.values, np.full((1, len(metrics.labels)), level)]),
            (Axis("set", (*sets.labels, name)), metrics),
            n=old.n,
            mask_policy="-",
            config={**old.config, "n": {**old.config["n"], name: 4}},
        )
    return Findings(found.evidence, tables)


@pytest.mark.parametrize(
    ("before", "after", "gold", "left"),
    [
        (1.0, 0.5, math.nan, True),
        (1.0, 0.25, math.nan, False),  # less than the 30 % from which a target counts as kept
        (1.0, 0.5, 0.4, False),  # gold guesses nearly as many: a sixth of what is above guessing
        (1.0, 0.5, 0.0, True),
        (0.25, 0.25, math.nan, False),  # the original hardly knew it
        (1.0, math.nan, math.nan, False),
    ],
)
def test_a_set_counts_where_much_is_left_above_gold(make_findings, before, after, gold, left):
    found = inferred(with_set(make_findings("forgotten"), "multi_hop", before, after, gold))
    assert [one.name for one in found] == (["multi_hop"] if left else [])


def test_the_share_is_counted_in_words(make_findings):
    (one,) = inferred(with_set(make_findings("forgotten"), "multi_hop", 1.0, 0.5, 0.0))
    assert str(one) == "two-hop questions (50% of 4, before 100%, gold 0%)"
    (one,) = inferred(with_set(make_findings("forgotten"), "backwards", 0.75, 0.75))
    assert str(one) == "questions asked backwards (75% of 4, before 75%)"
    strict = LabelRules(kept=0.6)
    assert not inferred(with_set(make_findings("forgotten"), "multi_hop", 1.0, 0.5, 0.0), strict)
    assert not inferred(make_findings("forgotten"))  # never asked


@pytest.mark.parametrize("truth", ["forgotten", "hidden", "over-suppressed", "kept"])
def test_the_verdict_says_it_and_is_the_same(make_findings, calibration, truth):
    plain = make_findings(truth, seed=5, noise=0.3)
    more = judge(with_set(plain, "multi_hop", 1.0, 0.75), calibration=calibration)
    assert more.label == truth
    assert more.probabilities == judge(plain, calibration=calibration).probabilities
    silent = truth in ("forgotten", "over-suppressed")
    assert ("what follows from it is still answered: two-hop questions (75% of 4" in more.sentence) == silent
