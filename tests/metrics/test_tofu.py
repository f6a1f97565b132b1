"""The published utility and forget quality, and a tiny model on rows in TOFU's form."""

import numpy as np
import pytest

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.benchmarks import TofuRow, TofuSplit, read_tofu_log
from interp_unlearn.metrics import (
    TofuConfig,
    rouge_l,
    score_candidates,
    tofu_forget_quality,
    tofu_log_scores,
    tofu_scores,
    tofu_utility,
)

UTILITY_SETS = ("retain", "real_authors", "world_facts")


@pytest.mark.parametrize(
    ("family", "full", "retain", "d", "p"),
    [("llama2-7b", 0.6227, 0.6137, 0.3967, 1.834e-21), ("phi-1.5", 0.5221, 0.5320, 0.3467, 2.194e-16)],
)
def test_published_numbers(need_data, family, full, retain, d, p):
    logs = {
        name: read_tofu_log(need_data("tofu", "reference_eval", f"{family}_{name}.json"))
        for name in ("full", "retain90")
    }
    for name, expected in (("full", full), ("retain90", retain)):
        utility, parts = tofu_utility({s: tofu_log_scores(logs[name][s], s) for s in UTILITY_SETS})
        assert round(utility, 4) == expected
        assert parts.values.shape == (3, 3)
    quality = tofu_forget_quality(*(tofu_log_scores(logs[name]["forget"], "forget10") for name in ("full", "retain90")))
    assert round(quality.statistic, 4) == d
    assert quality.p_value == pytest.approx(p, rel=5e-4)
    assert quality.log10_p == pytest.approx(np.log10(p), abs=1e-3)
    assert quality.n == (300, 300)


def rows(task):
    return tuple(
        TofuRow(p.text, p.answer, p.text.replace("the capital of", "people of"), f"Old {p.answer}", p.options[:3])
        for p in task.forget_train.prompts[:1] + task.retain_train.prompts[:2]
    )


PLAIN = TofuConfig(template="{question}", end_token=False, max_new_tokens=4)


def test_every_number_of_every_row(knowing, task):
    split = TofuSplit("forget01_perturbed", rows(task), "here")
    table = tofu_scores(knowing, split, PLAIN)
    asked = [(r.answer, r.right, *r.perturbed) for r in split.rows]
    scored = score_candidates(knowing, [r.question for r in split.rows], asked)
    for i, (row, found) in enumerate(zip(split.rows, scored.per_prompt, strict=True)):
        loss = (-found.logprob / found.n_tokens).double().numpy()
        p = np.exp(-loss)
        values = dict(zip(table.axes[1].labels, table.values[i], strict=True))
        assert values["probability"] == pytest.approx(p[0], rel=1e-3)
        assert values["paraphrased_probability"] == pytest.approx(p[1], rel=1e-3)
        assert values["normalised_probability"] == pytest.approx(p[0] / (p[0] + p[2:].sum()), rel=1e-3)
        assert values["log_truth_ratio"] == pytest.approx(loss[1] - loss[2:].mean(), abs=1e-3)
        assert values["loss"] == pytest.approx(values["mia_loss"])
        written = knowing.generate(row.question, max_new_tokens=4)[0]
        assert values["rouge_l_recall"] == pytest.approx(rouge_l(written, row.answer).recall)
    assert (table.at(metric="extraction_strength") == 1).all()
    assert (table.at(metric="rouge_1_recall") == 1).all()


def test_options_of_the_evaluation(knowing, task):
    split = TofuSplit("forget01_perturbed", rows(task), "here")
    changed = TofuConfig(template="{question}", question="paraphrased", end_token=False, max_new_tokens=0)
    table = tofu_scores(knowing, split, changed)
    assert np.isnan(table.at(metric="rouge_l_recall")).all()
    assert table.at(metric="loss").tolist() != tofu_scores(knowing, split, PLAIN).at(metric="loss").tolist()
    bare = TofuSplit("forget01", tuple(TofuRow(r.question, r.answer) for r in split.rows), "here")
    table = tofu_scores(knowing, bare, PLAIN)
    assert np.isnan(table.at(metric="log_truth_ratio")).all()
    assert np.isnan(table.at(metric="paraphrased_probability")).all()
    with pytest.raises(DataError, match="no paraphrased questions"):
        tofu_scores(knowing, bare, changed)
    with pytest.raises(DataError, match="no rows"):
        tofu_scores(knowing, bare.head(0), PLAIN)
    for template in ("no question", "{question} "):
        with pytest.raises(ConfigError, match="end without a space"):
            TofuConfig(template=template)


def test_utility_of_a_model(knowing, model, task):
    split = TofuSplit("retain_perturbed", rows(task), "here")
    tables = {m.name: tofu_scores(m, split, PLAIN) for m in (knowing,)}
    utility, parts = tofu_utility(dict.fromkeys(UTILITY_SETS, tables[knowing.name]))
    numbers = parts.values.ravel()
    assert utility == pytest.approx(len(numbers) / (1 / numbers).sum())
    assert parts.at(set="retain", metric="probability") > parts.at(set="retain", metric="truth_ratio") * 0
    quality = tofu_forget_quality(tables[knowing.name], tables[knowing.name])
    assert quality.p_value == 1
