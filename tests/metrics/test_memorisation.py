from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_unlearn._core import DataError
from interp_unlearn.metrics import (
    TokenScores,
    exact_memorisation,
    extraction_strength,
    memorisation_scores,
    score_candidates,
)


def from_right(*rows: str) -> TokenScores:
    """Scores of answers whose tokens are right (1) or wrong (0)."""
    counts = torch.tensor([len(row) for row in rows])
    right = torch.tensor([c == "1" for row in rows for c in row])
    some = torch.zeros(len(right))
    return TokenScores(counts, some, right, some, some, some, torch.full((len(rows),), torch.nan))


def test_exact_memorisation_is_the_share_of_right_tokens():
    assert exact_memorisation(from_right("1011", "0", "1", "0001")).tolist() == [0.75, 0, 1, 0.25]


@pytest.mark.parametrize(
    ("row", "clean", "published"),
    [
        ("1111", 1, 1),  # k = 0
        ("0111", 0.75, 0.75),  # k = 1
        ("1011", 0.5, 0.5),  # right tokens before a wrong one do not count
        ("0001", 0.25, 0.25),
        ("1110", 0, 0.25),  # the last argmax is wrong: published code stops at k = T - 1
        ("0", 0, 1),
        ("1", 1, 1),
    ],
)
def test_extraction_strength_in_both_conventions(row, clean, published):
    assert extraction_strength(from_right(row)).tolist() == [clean]
    assert extraction_strength(from_right(row), convention="published").tolist() == [published]


def test_scores_of_questions(knowing, task):
    prompts = (*task.forget_train.prompts[:2], *task.neighbours.prompts[:2])
    table = memorisation_scores(knowing, prompts, max_options=3)
    scored = score_candidates(knowing, [p.text for p in prompts], [(p.answer, *p.options[:3]) for p in prompts])
    for i, found in enumerate(scored.per_prompt):
        loss = (-found.logprob / found.n_tokens).double().numpy()
        p = np.exp(-loss)
        row = table.values[i]
        assert row[0] == pytest.approx(p[0], rel=1e-3)
        assert row[1] == pytest.approx(p[0] / p.sum(), rel=1e-3)
        assert row[2] == pytest.approx(loss[0] - loss[1:].mean(), abs=1e-3)
    assert (table.at(metric="exact_memorisation") == 1).all(), "the model was taught every fact"
    assert (table.at(metric="extraction_strength") == 1).all()
    assert (table.at(metric="log_truth_ratio") < 0).all()
    assert table.config["columns"]["entity"] == [p.entity for p in prompts]
    assert set(table.config["columns"]) == {"entity", "relation", "template", "text", "answer"}


def test_questions_without_options_have_no_truth_ratio(model, task):
    bare = [replace(p, options=()) for p in task.forget_train.prompts]
    table = memorisation_scores(model, [*task.neighbours.prompts[:1], *bare])
    assert np.isnan(table.at(metric="log_truth_ratio")).tolist() == [False, True, True]
    assert np.isnan(table.at(metric="normalised_probability")).tolist() == [False, True, True]
    with pytest.raises(DataError, match="no question"):
        memorisation_scores(model, [])
