import numpy as np
import pytest
import torch

from interp_unlearn.probes import firing, norm_ratio, rows_of, sae_health, separating_latents

from .conftest import SITE, changed, make_mentions


@pytest.fixture
def phases():
    return make_mentions(0.0), make_mentions(1.0)


def test_separating_latents_are_those_of_the_plain_score(phases, sae):
    rows = rows_of(phases[0], SITE, sae)
    chosen = separating_latents(rows, k=3)
    score = (rows.of("known_ref").x > 1e-6).mean(0) - (rows.of("unknown_ref").x > 1e-6).mean(0)
    assert score[chosen["known"][0]] == score.max()
    assert score[chosen["unknown"][0]] == score.min()
    assert len(chosen["known"]) == 3


def test_firing_moves_to_the_unknown_level(phases, sae):
    known, unknown = firing(*phases, SITE, sae)
    assert known.name == "firing.known/sae"
    assert known.config["before"] > known.value
    assert unknown.config["before"] < unknown.value
    assert known.value == pytest.approx(known.control, abs=0.25)
    table = known.details["latents"]
    assert table.axes[0].labels == tuple(str(i) for i in known.config["latents"])
    assert table.at(phase="after", group="target", statistic="frequency").mean() == pytest.approx(known.value)


def test_given_latents_are_used_and_none_is_said(phases, sae):
    known, unknown = firing(*phases, SITE, sae, known=torch.tensor([4, 2]), unknown=[])
    assert known.config["latents"] == [4, 2]
    assert np.isnan(unknown.value)
    assert "no latent fires" in unknown.reason


def test_an_exact_sae_leaves_nothing_unexplained(phases, sae):
    fvu, l0 = sae_health(*phases, SITE, sae)
    assert fvu.value == pytest.approx(0, abs=1e-6)
    assert l0.value == pytest.approx(16)


def test_leaving_the_domain_of_the_sae_shows(phases, sae):
    with torch.no_grad():
        sae.weight[8:] = 0  # blind to the last eight features
    before, after = phases
    away = after[SITE].clone()
    away[:5, :, 8:] += 50
    found, _ = sae_health(before, changed(after, {SITE: away}), SITE, sae)
    assert found.config["before"] < 0.9
    assert found.value > 0.95
    assert found.value > found.control + 0.1
    ratio = norm_ratio(before, changed(after, {SITE: away}), SITE)
    assert ratio.value > 5
    assert ratio.control == pytest.approx(1)
    assert ratio.interval[0] > 5


def test_massive_rows_are_counted(phases):
    before, after = phases
    huge = before[SITE].clone()
    huge[7] *= 1000
    assert norm_ratio(changed(before, {SITE: huge}), after, SITE).config["massive_rows"] == 1
