import json

import numpy as np
import torch

import interp_unlearn.probes as probes
from interp_unlearn._core import Evidence
from interp_unlearn.probes import CATALOGUE, run_probes

from .conftest import SITE, SITES, ReluSAE, make_mentions

RESIDUAL = {
    "alignment.t/residual",
    "alignment.r/residual",
    "alignment.ratio/residual",
    "alignment.separation/residual",
    "alignment.layers_t/residual",
    "alignment.layers_r/residual",
    "two_sample.auc/residual",
    "two_sample.energy/residual",
    "two_sample.mmd/residual",
    f"norm.ratio/{SITE}",
    f"probe.accuracy/{SITE}",
    f"probe.unknown_fraction/{SITE}",
    f"probe.fresh_unknown_fraction/{SITE}",
}
IN_SAE = {
    f"{kind}/{{}}"
    for kind in (
        "alignment.t",
        "alignment.r",
        "alignment.ratio",
        "alignment.separation",
        "two_sample.auc",
        "two_sample.energy",
        "two_sample.mmd",
        "firing.known",
        "firing.unknown",
        "sae.fvu",
        "sae.l0",
    )
}


def test_the_standard_set_has_stable_names_and_every_field(sae):
    second = ReluSAE(torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0], SITES[2])
    before, after = make_mentions(0.0), make_mentions(1.0)
    found = run_probes(before, after, site=SITE, sae=sae, second_sae=second, selected={"known": [0], "unknown": [1, 2]})
    names = [e.name for e in found]
    assert len(names) == len(set(names))
    assert set(names) == RESIDUAL | {n.format(b) for n in IN_SAE for b in ("sae", "sae2")}
    for e in found:
        assert np.isfinite(e.value), e.name
        assert e.control is not None and np.isfinite(e.control), e.name
        assert e.does_not_show and e.question and e.control_name and e.n > 0
        assert e.mask_policy == "last token of the name"
        back = Evidence.from_json(json.loads(json.dumps(e.to_json())))
        assert json.dumps(back.to_json()) == json.dumps(e.to_json())  # as text: nan is not equal to itself
    firing = next(e for e in found if e.name == "firing.unknown/sae")
    assert firing.config["latents"] == [1, 2]
    assert next(e for e in found if e.name == "alignment.t/sae2").config["site"] == SITES[2]


def test_the_same_seed_gives_the_same_evidence(sae):
    before, after = make_mentions(0.0), make_mentions(1.0)
    one, two = (run_probes(before, after, site=SITE, sae=sae, seed=5) for _ in range(2))
    assert [json.dumps(e.to_json()) for e in one] == [json.dumps(e.to_json()) for e in two]


def test_without_an_sae_only_residual_evidence_is_given():
    before, after = make_mentions(0.0), make_mentions(1.0)
    assert {e.name for e in run_probes(before, after, site=SITE)} == RESIDUAL


def test_a_collapsed_model_gives_reasons_and_no_numbers(sae):
    before = make_mentions(0.0)
    after = make_mentions(0.0)
    for site in SITES:
        after.values[site][:] = float("nan")
    found = run_probes(before, after, site=SITE, sae=sae, second_sae=sae)
    assert all(np.isnan(e.value) and "broken" in e.reason for e in found)


def test_a_model_that_maps_everything_to_one_point_is_seen(sae):
    before, after = make_mentions(0.0), make_mentions(0.0)
    for site in SITES:
        after.values[site][:] = 1.0
    found = {e.name: e for e in run_probes(before, after, site=SITE, sae=sae)}
    assert abs(found["alignment.separation/residual"].value) < 1e-6
    assert found["alignment.separation/residual"].control > 0.8


def test_the_catalogue_and_the_docstring_agree():
    documented = probes.__doc__ or ""
    for kind in CATALOGUE:
        assert f"``{kind}/" in documented, kind
