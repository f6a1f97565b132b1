from dataclasses import replace

import numpy as np
import pytest

from interp_unlearn._core import Axis, DataError, Evidence, Labelled
from interp_unlearn.attacks import curve_area, relearn_evidence, steps_to_level

STEPS = ("0", "4", "8")


def curve(levels, who="target", facts=6, spread=0.01, test="heldout", steps=STEPS):
    """A headline curve whose prompts lie around ``levels``, one prompt per fact."""
    levels = np.array(levels, dtype=float)
    scores = levels[:, None] + spread * np.linspace(-1, 1, facts)[None]
    exact = (scores > 0.5).astype(float)
    return Labelled(
        f"relearning recall, {who}",
        exact.mean(1),
        (Axis("step", steps),),
        n=facts,
        mask_policy="answer tokens",
        config={
            "who": who,
            "set": test,
            "metric": "exact",
            "facts": [[f"{who}{i}", "capital"] for i in range(facts)],
            "templates": [f"t{i}" for i in range(facts)],
            "by_prompt": {"probability": scores.tolist(), "exact": exact.tolist()},
            "relearn": {"steps": 8, "seed": 0, "controls": 1},
            "learning_rate": 1e-5,
            "trained": {"tensors": 1, "weights": 1},
        },
        seed=0,
    )


def test_area_is_the_mean_level_over_the_budget():
    assert curve_area(curve([0, 0.5, 1])) == pytest.approx(0.5)
    assert curve_area(curve([0.2, 0.2, 0.2])) == pytest.approx(0.2)
    assert curve_area(curve([0, 0, 1])) == pytest.approx(0.25)
    assert curve_area(curve([0, 0.6, 1]), "exact") == pytest.approx(0.75)


def test_steps_to_a_level():
    rising = curve([0, 0.4, 0.8])
    assert steps_to_level(rising, 0.2) == pytest.approx(2)
    assert steps_to_level(rising, 0.6) == pytest.approx(6)
    assert steps_to_level(rising, 0.0) == 0
    assert np.isnan(steps_to_level(rising, 0.9))
    # recovery need not be monotone: the first time counts
    assert steps_to_level(curve([0, 0.8, 0.1]), 0.4) == pytest.approx(2)


def test_faster_than_never_known():
    found = relearn_evidence(curve([0, 0.8, 0.9]), curve([0, 0.2, 0.6], "never known"))
    assert found.value == pytest.approx(curve_area(curve([0, 0.8, 0.9])))
    assert found.control == pytest.approx(curve_area(curve([0, 0.2, 0.6])))
    assert found.config["area_between"] == pytest.approx(found.value - found.control)
    assert found.config["faster_than_never_known"]
    assert not found.config["slower_than_never_known"]
    assert found.interval[0] <= found.value <= found.interval[1]
    assert found.config["steps_to_half"]["target"] < found.config["steps_to_half"]["never known"]
    assert found.direction == "near control"
    assert "over-suppression" in found.does_not_show


def test_slower_than_never_known_is_flagged():
    found = relearn_evidence(curve([0, 0.05, 0.1]), curve([0, 0.5, 0.9], "never known"))
    assert found.config["slower_than_never_known"]
    assert np.isnan(found.config["steps_to_half"]["target"])


def test_a_difference_within_the_noise_is_neither():
    found = relearn_evidence(curve([0, 0.4, 0.5], spread=0.4), curve([0, 0.38, 0.49], "never known", spread=0.4))
    assert not found.config["slower_than_never_known"]
    assert not found.config["faster_than_never_known"]
    low, high = found.config["area_between_interval"]
    assert low < 0 < high


def test_the_original_says_what_full_recovery_is_and_gold_becomes_the_control():
    target, never = curve([0.1, 0.3, 0.5]), curve([0, 0.2, 0.6], "never known")
    original, gold = curve([0.9, 1, 1]), curve([0, 0.1, 0.2])
    found = relearn_evidence(target, never, original, gold)
    assert found.config["half_level"] == pytest.approx(0.45)
    assert found.config["recovered_share"] == pytest.approx((0.5 - 0.1) / (0.9 - 0.1))
    assert found.control == pytest.approx(curve_area(gold))
    assert found.control_name.startswith("gold")
    assert set(found.details) == {"target", "never known", "original", "gold"}


def test_one_fact_is_resampled_by_template_and_one_prompt_not_at_all():
    single = curve([0, 0.5, 0.9])
    single = replace(single, config={**single.config, "facts": [["a", "capital"]] * 6})
    assert relearn_evidence(single, curve([0, 0.1, 0.2], "never known")).interval is not None
    alone = relearn_evidence(curve([0, 0.5, 0.9], facts=1), curve([0, 0.1, 0.2], "never known"))
    assert alone.interval is None
    assert alone.config["area_between_interval"] is None
    assert not alone.config["faster_than_never_known"]


def test_evidence_survives_a_file(tmp_path):
    found = relearn_evidence(curve([0, 0.05, 0.1]), curve([0, 0.5, 0.9], "never known"))
    found.save(tmp_path / "relearn.json")
    again = Evidence.load(tmp_path / "relearn.json")
    assert again.value == found.value
    assert again.config["slower_than_never_known"]


def test_unlike_curves_are_refused():
    target = curve([0, 0.5, 0.9])
    with pytest.raises(DataError, match="different steps"):
        relearn_evidence(target, curve([0, 0.5, 0.9], "never known", steps=("0", "2", "4")))
    with pytest.raises(DataError, match="different test sets"):
        relearn_evidence(target, curve([0, 0.5, 0.9], "never known", test="rest"))
    other = curve([0, 0.5, 0.9], "never known")
    other = replace(other, config={**other.config, "relearn": {"steps": 8, "seed": 1, "controls": 1}})
    with pytest.raises(DataError, match="different settings"):
        relearn_evidence(target, other)
    with pytest.raises(DataError, match="keeps no 'rouge'"):
        relearn_evidence(target, curve([0, 0.5, 0.9], "never known"), metric="rouge")
