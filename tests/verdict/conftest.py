"""Synthetic findings of runs whose truth is chosen: behaviour tables, a few cheap measures, attacks with controls."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from interp_unlearn._core import Axis, Evidence, Labelled, numpy_rng
from interp_unlearn.verdict import Calibration, Dataset, Findings, dataset, fit

SETS = {"base": 30, "paraphrased": 20, "same_answer": 20, "retain": 200, "neighbours": 100}
METRICS = ("probability", "exact", "choice")
QUANTITIES = ("before", "after", "change", "low", "high")
SITES = tuple(f"blocks.{i}.hook_resid_post" for i in range(4))
METHODS = ("ga", "npo", "idk", "rmu", "sae_guided", "late")
TARGETS = ("t0", "t1", "t2", "t3")
GROUPS = ("target", "known_eval", "unknown_eval")


def table(name: str, values: Any, axes: Mapping[str, tuple[str, ...]], **config: Any) -> Labelled:
    return Labelled(
        name,
        np.asarray(values, float),
        tuple(Axis(k, v) for k, v in axes.items()),
        n=10,
        mask_policy="-",
        config=config,
    )


def evidence(name: str, value: float, **fields: Any) -> Evidence:
    base: dict[str, Any] = {
        "question": f"What is {name}?",
        "direction": "near control",
        "n": 20,
        "mask_policy": "-",
        "does_not_show": "the rest",
        "control_name": "unknown entities",
    }
    return Evidence(name=name, value=value, **{**base, **fields})


def behaviour(
    after: Mapping[str, float], before: float = 0.95, loss: float = 1.5, gold: float = 0.05
) -> dict[str, Labelled]:
    """Tables of a run: recall after by set (the others stay), and the text loss after (1.5 before)."""
    rows = {name: after.get(name, before) for name in SETS}
    change = [[[before, v, v - before, v - before - 0.05, v - before + 0.05]] * len(METRICS) for v in rows.values()]
    axes = {"set": tuple(SETS), "metric": METRICS}
    counts = {"n": SETS, "chance": dict.fromkeys(SETS, 0.2)}
    own = {name: (gold if name in ("base", "paraphrased") else before) for name in SETS}
    relative = loss / 1.5 - 1
    return {
        "behaviour.before": table("behaviour.before", [[before] * 3] * len(SETS), axes, **counts),
        "behaviour.after": table("behaviour.after", [[v] * 3 for v in rows.values()], axes, **counts),
        "behaviour.gold": table("behaviour.gold", [[v] * 3 for v in own.values()], axes, **counts),
        "behaviour_change": table("behaviour_change", change, {**axes, "quantity": QUANTITIES}, **counts),
        "text_loss_change": table(
            "text_loss_change",
            [1.5, loss, loss - 1.5, relative, relative - 0.02, relative + 0.02],
            {"quantity": ("before", "after", "change", "relative change", "low", "high")},
        ),
    }


def attacks(best: float, control: float = 0.05, slower: float = 0.0) -> list[Evidence]:
    values = {"relearn_rest": best, "stitch": best * 0.9, "readout": best * 0.8, "quantise": control}
    found = [
        evidence(
            f"recovery/{name}", v, control=control, control_name="gold, attacked alike", interval=(v - 0.1, v + 0.1)
        )
        for name, v in values.items()
    ]
    level = 0.8
    return [
        *found,
        evidence(
            "suppression/relearn",
            level * (1 - slower),
            control=level,
            interval=(level * (1 - slower) - 0.05, level * (1 - slower) + 0.05),
        ),
    ]


TRUTHS: dict[str, dict[str, Any]] = {
    "forgotten": {"recall": {"base": 0.03, "paraphrased": 0.04}, "best": 0.08},
    "hidden": {"recall": {"base": 0.02, "paraphrased": 0.05}, "best": 0.85},
    "over-suppressed": {"recall": {"base": 0.0, "paraphrased": 0.0}, "best": 0.05, "slower": 0.5},
    "broken": {"recall": {"base": 0.0, "paraphrased": 0.0, "neighbours": 0.3, "retain": 0.4}, "best": 0.0, "loss": 3.0},
    "kept": {"recall": {"base": 0.8, "paraphrased": 0.8}, "best": 0.9},
}


def findings(truth: str, method: str = "ga", seed: int = 0, *, noise: float = 1.0, attacked: bool = True) -> Findings:
    """A run whose cheap measures say its truth, with noise of its own and a shift of its method."""
    facts, rng = TRUTHS[truth], numpy_rng(seed, truth, method)
    hidden, pressed = float(truth == "hidden"), float(truth == "over-suppressed")
    shift = METHODS.index(method) * 0.1 if method in METHODS else 0.0
    jitter = lambda scale: float(rng.normal(0, scale * noise))  # noqa: E731
    recall = {k: min(max(v + 0.02 * float(rng.normal()), 0.0), 1.0) for k, v in facts["recall"].items()}
    tables = behaviour(recall, loss=facts.get("loss", 1.5))
    place = np.array([[0.3 + shift, 0.1, 0.1]] * 4) * (1 + 0.2 * rng.random((4, 3)))
    tables["diff.displacement"] = table("diff.displacement", place, {"site": SITES, "group": GROUPS})
    cheap = [
        evidence("attribute.best/answer", 0.2 + 0.6 * hidden + jitter(0.08), control=0.2, config={"before": 0.9}),
        evidence("uds.score/unknown", 0.8 - 0.5 * hidden + jitter(0.2), control=0.05, config={"reference": "unknown"}),
        evidence("mia.auc/min_k", 0.5 + 0.1 * hidden - 0.4 * pressed + jitter(0.1), control=0.5),
        evidence(
            "alignment.t/residual", 0.9 - 0.3 * hidden + 0.8 * pressed + jitter(0.3), control=1.0,
            config={"before": 0.1, "control_sd_entities": 0.2, "gold": 0.95},
        ),
        evidence(
            "memorisation.entropy/forget", 1.0 + pressed + jitter(0.3), control=9.9, control_name="the same in gold",
            config={"before": 0.2, "levels": {"never_known after": 1.1, "base gold": 9.9}},
        ),
        evidence("uds.score/gold", jitter(1.0), control=0.0),
        evidence("mia.s_mia/min_k", jitter(1.0)),
    ]  # fmt: skip
    strong = attacks(facts["best"], slower=facts.get("slower", 0.0)) if attacked else []
    return Findings.of([*cheap, *strong], tables)


def many(noise: float = 1.0) -> Dataset:
    """6 methods × 4 targets × their truths: some methods forget, all hide sometimes, one only hides."""
    runs = []
    for m, method in enumerate(METHODS):
        for t, target in enumerate(TARGETS):
            truths = ["hidden"] if method == "late" else ["forgotten", "hidden", "over-suppressed"]
            truths += ["broken"] if t == 0 else ["kept"] if t == 1 else []
            for truth in truths:
                seed = 100 * m + 10 * t
                runs.append(
                    (
                        f"{method}/{target}/{truth}",
                        findings(truth, method, seed, noise=noise),
                        {"method": method, "target": target},
                    )
                )
    return dataset(runs)


@pytest.fixture(scope="session")
def data() -> Dataset:
    return many()


@pytest.fixture(scope="session")
def calibration(data: Dataset) -> Calibration:
    return fit(data, provenance={"where": "made-up runs"})


@pytest.fixture
def make_findings():
    return findings


@pytest.fixture
def make_behaviour():
    return behaviour


@pytest.fixture
def make_evidence():
    return evidence


@pytest.fixture
def make_attacks():
    return attacks


@pytest.fixture
def nan() -> float:
    return math.nan
