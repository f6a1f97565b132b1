import dataclasses

import numpy as np
import pytest
import torch

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.metrics import (
    ATTACKS,
    MEMORISATION_METRICS,
    METRICS,
    TOFU_METRICS,
    MetricFacts,
    behaviour,
    metric_facts,
    text_loss,
    text_loss_change,
)

TEXTS = [
    "the capital of Avia is Rosa",
    "people of Dorn",
    "in Elmar the main city is Tula the capital",
    "Avia has the capital",
]


def by_hand(model, text):
    ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logp = model.module(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return -logp.gather(1, ids[0, 1:, None])[:, 0].double().numpy()


@pytest.mark.parametrize("batch_tokens", [1, 20, 1024])
def test_loss_is_the_mean_over_predicted_tokens_whatever_the_batches(model, batch_tokens):
    table = text_loss(model, TEXTS, batch_tokens=batch_tokens)
    direct = [by_hand(model, t) for t in TEXTS]
    assert table.axes[0].name == "text"
    assert np.allclose(table.values, [d.mean() for d in direct], atol=1e-5)
    assert table.config["mean"] == pytest.approx(np.concatenate(direct).mean(), abs=1e-5)
    assert table.config["n_tokens"] == [len(d) for d in direct]
    assert table.n == sum(map(len, direct))
    low, high = table.config["interval"]
    assert low <= table.config["mean"] <= high


def test_the_first_token_counts_only_behind_a_special_one(model, make_model, merging_tokenizer):
    assert text_loss(model, ["Avia has"]).n == 2  # BOS predicts the first word
    assert text_loss(model, ["Avia has"], mask_policy="inner").n == 2  # the first attended token is BOS itself
    bare = make_model("llama", merging_tokenizer)
    n_tokens = len(merging_tokenizer("people of Avia call")["input_ids"])
    assert text_loss(bare, ["people of Avia call"]).n == n_tokens - 1


def test_text_loss_says_what_is_wrong(model):
    with pytest.raises(DataError, match="at least one text"):
        text_loss(model, [])
    with pytest.raises(DataError, match="list of at least one text"):
        text_loss(model, "Avia has the capital")
    with pytest.raises(DataError, match="longer than the model's context"):
        text_loss(model, ["Avia " * 80])


def test_change_of_the_loss(model, knowing):
    before, after = text_loss(knowing, TEXTS), text_loss(model, TEXTS)
    table = text_loss_change(before, after)
    assert table.at(quantity="change") == pytest.approx(after.config["mean"] - before.config["mean"])
    relative = table.at(quantity="relative change")
    assert relative == pytest.approx(after.config["mean"] / before.config["mean"] - 1)
    assert table.at(quantity="low") <= relative <= table.at(quantity="high")
    same = text_loss_change(before, before)
    assert same.at(quantity="low") == same.at(quantity="high") == 0
    with pytest.raises(DataError, match="different texts"):
        text_loss_change(before, text_loss(model, TEXTS[:2]))


def test_every_reported_metric_has_its_facts(model, task):
    facts = metric_facts()
    assert set(behaviour(model, task).axes[1].labels) | {"choice_margin", "text_loss"} <= set(facts)
    for name, fact in facts.items():
        assert fact.name == name
        assert fact.reference
        assert fact.on_forget in ("down", "up", "near", "-")
        assert fact.missing_when
    assert "first token" in facts["probability"].not_to_be_confused


def test_every_metric_of_questions_has_its_facts():
    facts = metric_facts()
    assert {*MEMORISATION_METRICS, *TOFU_METRICS} - {"loss"} <= set(facts)
    assert {f"mia_{attack}" for attack in ATTACKS} <= set(facts)


def test_facts_are_frozen_and_complete():
    fact = metric_facts()["exact"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        fact.low = 1.0
    with pytest.raises(ConfigError, match="failure mode"):
        MetricFacts("m", "m", "1", "1", 0.0, 1.0, "down", "up", "none", ())
    with pytest.raises(ConfigError, match="below high"):
        MetricFacts("m", "m", "1", "1", 1.0, 1.0, "down", "up", "none", ("x",))
    with pytest.raises(ConfigError, match="nearest: exact"):
        METRICS["exakt"]
