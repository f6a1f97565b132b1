"""Latent clamps in closed form: what moves, by how much, where the gate opens, and what stays bit for bit."""

import pytest
import torch
from torch import Tensor

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import HookedModel, capture, load_intervention, save_intervention
from interp_unlearn.latents import SAE, LatentClamp, clamped, firing_share
from interp_unlearn.metrics import score_candidates

from .conftest import SITE, make_sae

TEXTS = ["the cat sat on a mat", "a dog ran to the red house", "the big tree"]
KINDS = ["relu", "topk", "jumprelu", "batchtopk"]


def axes_sae(site: str = SITE, d: int = 16) -> SAE:
    """Latent j is the positive part of coordinate j."""
    eye, zero = torch.eye(d), torch.zeros(d)
    return SAE(eye, zero, eye, zero, kind="relu", site=site)


def hooks(model: HookedModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules())


def all_of(h: Tensor) -> Tensor:
    return torch.ones(h.shape[:2], dtype=torch.bool)


def test_each_sets_only_the_chosen_latents_that_fire():
    h = torch.tensor([[[1.0, -1.0, 3.0, 0.0], [-2.0, 0.5, 1.0, 4.0]]])
    sae = axes_sae(d=4)
    out = clamped(sae, h, torch.tensor([0, 1]), torch.tensor([-5.0, -7.0]), all_of(h))
    assert out.tolist() == [[[-5.0, -1.0, 3.0, 0.0], [-2.0, -7.0, 1.0, 4.0]]]


def test_all_sets_every_chosen_latent_where_any_fires():
    h = torch.tensor([[[1.0, -1.0, 3.0, 0.0], [-2.0, -0.5, 1.0, 4.0]]])
    out = clamped(axes_sae(d=4), h, torch.tensor([0, 1]), torch.tensor([-5.0, -7.0]), all_of(h), where="all")
    # z = (1, 0): latent 1 goes from 0 to -7, so its coordinate falls by 7; the error of -1 stays in place
    assert out.tolist() == [[[-5.0, -8.0, 3.0, 0.0], [-2.0, -0.5, 1.0, 4.0]]]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_decoder_with_the_error_term_kept(kind):
    sae = make_sae(kind, input_scale=0.7)
    h = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    z = sae.encode(h)
    chosen = z.flatten(0, 1).gt(0).sum(0).topk(3).indices
    values = torch.tensor([-2.0, -3.0, -4.0])
    changed = z.clone()
    changed[..., chosen] = torch.where(z[..., chosen] > 0, values, z[..., chosen])
    expected = sae.decode(changed) + (h - sae.decode(z))
    out = clamped(sae, h, chosen, values, all_of(h))
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    quiet = ~(z[..., chosen] > 0).any(-1)
    assert torch.equal(out[quiet], h[quiet])


def test_tokens_that_do_not_count_are_neither_changed_nor_counted():
    h = torch.ones(2, 3, 4)
    counted = torch.tensor([[False, True, True], [False, False, False]])
    out = clamped(axes_sae(d=4), h, torch.tensor([0]), torch.tensor([-1.0]), counted)
    assert out[..., 0].tolist() == [[1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
    fires = torch.tensor([[[True], [True], [False]], [[True], [True], [True]]])
    assert firing_share(fires, counted).tolist() == [0.5, 0.0]


def test_the_gate_is_exclusive_and_row_by_row():
    h = torch.tensor([[[1.0], [1.0], [-1.0], [-1.0]], [[1.0], [1.0], [1.0], [-1.0]]])
    h = torch.cat([h, torch.zeros(2, 4, 3)], -1)
    arguments = (axes_sae(d=4), h, torch.tensor([0]), torch.tensor([-9.0]), all_of(h))
    assert torch.equal(clamped(*arguments, gate=0.5)[0], h[0])  # exactly half fires: shut
    assert clamped(*arguments, gate=0.5)[1, :, 0].tolist() == [-9.0, -9.0, -9.0, -1.0]
    assert clamped(*arguments, gate=0.49)[0, :, 0].tolist() == [-9.0, -9.0, -1.0, -1.0]
    assert torch.equal(clamped(*arguments, gate=1.0), h)


def test_gradients_flow_through_a_clamped_model():
    h = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]], requires_grad=True)
    clamped(axes_sae(d=4), h, torch.tensor([0]), torch.tensor([-1.0]), all_of(h)).sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == [[[0.0, 1.0, 1.0, 1.0]]]


def clamp(model: HookedModel, sae: SAE, **options: object) -> LatentClamp:
    z = sae.encode(capture(model, TEXTS, [sae.site], mask_policy="inner").flat(sae.site))
    latents = (z > 0).sum(0).topk(4).indices
    return LatentClamp(sae, latents, torch.full((4,), -6.0), **options)  # type: ignore[arg-type]


def test_applied_it_changes_later_tokens_only_and_is_gone_afterwards(tiny_model):
    item = clamp(tiny_model, make_sae())
    with torch.no_grad():
        clean = tiny_model(TEXTS)
        before = capture(tiny_model, TEXTS, [SITE])[SITE]
        with item.applied(tiny_model):
            edited = tiny_model(TEXTS)
            after = capture(tiny_model, TEXTS, [SITE])[SITE]
        again = tiny_model(TEXTS)
    assert torch.equal(clean, again)
    assert hooks(tiny_model) == 0
    assert torch.equal(before[:, 0], after[:, 0])  # the first token
    assert torch.equal(before[2, 3:], after[2, 3:])  # padding
    assert (clean - edited)[:, 1:3].abs().max() > 1e-3
    everywhere = clamp(tiny_model, make_sae(), skip_first=False)
    with everywhere.applied(tiny_model):
        assert not torch.equal(capture(tiny_model, TEXTS, [SITE])[SITE][:, 0], before[:, 0])


def test_hooks_go_away_after_an_error_too(tiny_model):
    with pytest.raises(RuntimeError, match="on purpose"), clamp(tiny_model, make_sae(), gate=0.1).applied(tiny_model):
        raise RuntimeError("on purpose")
    assert hooks(tiny_model) == 0
    with pytest.raises(ConfigError, match="width"), clamp_of_width_8().applied(tiny_model):
        pass
    assert hooks(tiny_model) == 0


def clamp_of_width_8() -> LatentClamp:
    return LatentClamp(make_sae(d=8), torch.tensor([0]), torch.tensor([-1.0]))


@pytest.mark.parametrize("gate", [None, 0.3])
def test_padding_and_caches_do_not_matter(tiny_model, gate):
    item = clamp(tiny_model, make_sae(), gate=gate)
    with torch.no_grad(), item.applied(tiny_model):
        together = tiny_model(TEXTS)
        for row, text in enumerate(TEXTS):
            alone = tiny_model(text)
            torch.testing.assert_close(together[row, : alone.shape[1]], alone[0], atol=1e-4, rtol=1e-4)
        shared = score_candidates(tiny_model, ["the cat"], [["sat on", "ran to"]])
        plain = score_candidates(tiny_model, ["the cat"], [["sat on", "ran to"]], shared_prefix=False)
        torch.testing.assert_close(shared.per_prompt[0].logprob, plain.per_prompt[0].logprob)
        written = tiny_model.generate(["the cat", "a dog ran"], max_new_tokens=3)
        slow = []
        for text in ["the cat", "a dog ran"]:
            ids = tiny_model.tokenizer(text)["input_ids"]
            for _ in range(3):
                ids = [*ids, int(tiny_model([ids])[0, -1].argmax())]
            slow.append(tiny_model.tokenizer.decode(ids[-3:], skip_special_tokens=True))
        assert written == slow


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_the_same_bit_for_bit(tiny_model, kind, tmp_path):
    item = clamp(tiny_model, make_sae(kind, input_scale=1.3), gate=0.2, where="all")
    save_intervention(tmp_path, item)
    loaded = load_intervention(tmp_path)
    assert isinstance(loaded, LatentClamp)
    assert (loaded.gate, loaded.where, loaded.skip_first) == (0.2, "all", True)
    with torch.no_grad():
        with item.applied(tiny_model):
            one = tiny_model(TEXTS)
        with loaded.applied(tiny_model):
            assert torch.equal(tiny_model(TEXTS), one)


def test_impossible_clamps_are_refused():
    sae = make_sae()
    with pytest.raises(ConfigError, match="at least one latent"):
        LatentClamp(sae, torch.zeros(0, dtype=torch.long), torch.zeros(0))
    with pytest.raises(ConfigError, match="outside 0…47"):
        LatentClamp(sae, torch.tensor([48]), torch.tensor([-1.0]))
