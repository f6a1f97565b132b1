import pytest
import torch

from interp_unlearn._core import ConfigError, DataError, SiteError
from interp_unlearn.latents import identity_basis, pca_basis, random_dictionary

from .conftest import SITE, make_sae, sparse_rows


def test_parameters_are_frozen_float32_and_named():
    sae = make_sae("jumprelu")
    assert {n for n, _ in sae.named_parameters()} == {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}
    assert all(not p.requires_grad and p.dtype == torch.float32 for p in sae.parameters())
    assert (sae.d_in, sae.d_sae, sae.k, sae.site) == (16, 48, None, SITE)
    assert make_sae("topk").threshold is None


def test_jumprelu_is_off_exactly_at_its_threshold():
    sae = make_sae("jumprelu", threshold=torch.full((48,), 0.5))
    a = torch.tensor([[0.5, torch.nextafter(torch.tensor(0.5), torch.tensor(1.0)), -1.0, 0.6] + [0.0] * 44])
    z = sae.activate(a)
    assert z[0, 0] == 0 and z[0, 1] > 0.5 and z[0, 2] == 0 and z[0, 3] == a[0, 3]


def test_a_negative_threshold_lets_no_negative_value_through():
    sae = make_sae("jumprelu", threshold=torch.full((48,), -1.0))
    assert torch.equal(sae.activate(torch.full((1, 48), -0.5)), torch.zeros(1, 48))


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "batchtopk", "topk"])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_gradient_of_a_latent_is_its_encoder_column_if_on_and_zero_if_off(kind: str, scale: float):
    sae = make_sae(kind, input_scale=scale)
    x = torch.randn(16, generator=torch.Generator().manual_seed(1)) * 3 / scale
    z = sae.encode(x[None])[0]
    assert 0 < int((z > 0).sum()) < sae.d_sae
    for j in (int(z.argmax()), int((z == 0).nonzero()[0])):
        row = x.clone().requires_grad_()
        sae.encode(row[None])[0, j].backward()
        wanted = scale * sae.W_enc[:, j] if z[j] > 0 else torch.zeros(16)
        assert row.grad is not None
        torch.testing.assert_close(row.grad, wanted, rtol=1e-6, atol=0)


def test_pre_activations_have_a_gradient_where_the_latent_is_off():
    sae = make_sae("topk")
    x = torch.randn(1, 16, requires_grad=True)
    off = int((sae.encode(x.detach())[0] == 0).nonzero()[0])
    sae.pre_activations(x)[0, off].backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0], sae.W_enc[:, off])


def test_topk_keeps_the_largest_and_rectifies():
    sae = make_sae("topk", k=3)
    a = torch.full((1, 48), -2.0)
    a[0, [4, 7]] = torch.tensor([1.0, 2.0])
    assert (sae.activate(a) != 0).nonzero()[:, 1].tolist() == [4, 7]


def test_input_scale_is_undone_by_decode():
    plain, scaled = make_sae("relu"), make_sae("relu", input_scale=0.5)
    x = torch.randn(5, 16)
    torch.testing.assert_close(scaled(2 * x), 2 * plain(x))


def test_leading_axes_are_kept():
    sae = make_sae("topk")
    x = torch.randn(2, 3, 16)
    assert sae.encode(x).shape == (2, 3, 48)
    torch.testing.assert_close(sae.decode(sae.encode(x))[1, 2], sae(x[1, 2][None])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "relu", "threshold": torch.zeros(48)}, "takes no threshold"),
        ({"kind": "relu", "k": 3}, "other kinds no k"),
        ({"kind": "topk", "k": 49}, "1 ≤ k ≤ 48"),
        ({"kind": "relu", "input_scale": 0.0}, "above 0"),
    ],
)
def test_impossible_saes_are_refused(options: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        make_sae(**options)


def test_wrong_width_and_wrong_site_are_one_sentence(tiny_model):
    sae = make_sae()
    sae.check_fits(tiny_model)
    sae.check_fits(tiny_model, SITE)
    with pytest.raises(DataError, match="reads vectors of width 16"):
        sae.encode(torch.zeros(2, 8))
    with pytest.raises(ConfigError, match=r"reads 'blocks.1.hook_resid_post', not 'blocks.0.hook_resid_post'"):
        sae.check_fits(tiny_model, "blocks.0.hook_resid_post")
    with pytest.raises(ConfigError, match="has width 16"):
        make_sae(d=8).check_fits(tiny_model)
    for site, width in (("blocks.1.mlp.hook_post", 32), ("blocks.0.attn.hook_z", 16), ("blocks.0.hook_attn_out", 16)):
        fitting, narrow = make_sae(d=width), make_sae(d=8)
        fitting.site = narrow.site = site
        fitting.check_fits(tiny_model)
        with pytest.raises(ConfigError, match=f"has width {width} at"):
            narrow.check_fits(tiny_model)
    sae.site = "blocks.7.hook_resid_post"
    with pytest.raises(SiteError, match="nearest"):
        sae.check_fits(tiny_model)


def test_controls_have_the_interface_of_an_sae():
    rows = sparse_rows(400)
    dictionary = random_dictionary(32, 100, 5, 0, SITE, center=rows.mean(0))
    assert dictionary.encode(rows).shape == (400, 100)
    assert int((dictionary.encode(rows) != 0).sum(1).max()) <= 5
    assert torch.equal(dictionary.W_dec, random_dictionary(32, 100, 5, 0, SITE).W_dec)
    assert not torch.equal(dictionary.W_dec, random_dictionary(32, 100, 5, 1, SITE).W_dec)
    torch.testing.assert_close(dictionary.W_dec.norm(dim=1), torch.ones(100))

    basis = pca_basis(rows, SITE)
    z = basis.encode(rows)
    assert z.shape == (400, 64) and bool((z >= 0).all())
    torch.testing.assert_close(basis.decode(z), rows, rtol=1e-3, atol=1e-3)
    assert bool(((z[:, :32] > 0) & (z[:, 32:] > 0)).sum() == 0)
    few = pca_basis(rows, SITE, components=4)
    spread = few.encode(rows)[:, :4] - few.encode(rows)[:, 4:]
    assert torch.all(spread.var(0).diff() <= 0)
    with pytest.raises(DataError, match="1…32 components"):
        pca_basis(rows, SITE, components=33)

    same = identity_basis(32, SITE)
    assert torch.equal(same.encode(rows), rows) and torch.equal(same.decode(rows), rows)


def test_pca_ignores_massive_rows():
    rows = sparse_rows(200)
    spoiled = torch.cat([rows, 1e4 * torch.ones(1, 32)])
    torch.testing.assert_close(pca_basis(spoiled, SITE).b_dec, rows.mean(0), rtol=1e-4, atol=1e-4)
