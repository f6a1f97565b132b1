import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from interp_unlearn._core import DataError
from interp_unlearn.hooked import wrap
from interp_unlearn.latents import firing_rate, generic_rate, reference_stats, separation_scores

from .conftest import make_sae

K = torch.tensor([[1, 0, 0.5, 0], [2, 0, 0, 0], [0.3, 1, 0, 0], [1, 0, 0, 0]])
U = torch.tensor([[0, 1, 0, 0], [0, 2, 0.5, 0], [1, 0.2, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.float32)


def scores(k=K, u=U, **options):
    return separation_scores(k, u, ["city"] * len(k), ["city"] * len(u), **options)


def test_worked_example():
    s = scores()
    torch.testing.assert_close(s.f_known[0], torch.tensor([1, 0.25, 0.25, 0]))
    torch.testing.assert_close(s.f_unknown[0], torch.tensor([0.2, 0.8, 0.2, 0]))
    torch.testing.assert_close(s.known[0], torch.tensor([0.8, -0.55, 0.05, 0]))
    assert torch.equal(s.unknown, -s.known)
    assert s.top_known() == (0, 2) and s.top_unknown() == (1,)
    assert s.maxmin_known == pytest.approx(0.8) and s.maxmin_unknown == pytest.approx(0.55)
    assert (s.n_known, s.n_unknown) == ((4,), (5,))


def test_general_scores_are_minima_over_types_and_not_each_others_negative():
    k = torch.tensor([[1.0], [1.0], [0.0]])
    u = torch.tensor([[1.0], [0.0]] + [[1.0]] + [[0.0]] * 9)
    s = separation_scores(k, u, ["a", "a", "b"], ["a", "a", *["b"] * 10])
    assert s.known[:, 0].tolist() == pytest.approx([0.5, -0.1])
    assert float(s.general_known[0]) == pytest.approx(-0.1)
    assert float(s.general_unknown[0]) == pytest.approx(-0.5)


def test_an_empty_class_counts_as_frequency_zero():
    s = separation_scores(K, U, ["a"] * 4, ["b"] * 5)
    assert s.types == ("a", "b")
    torch.testing.assert_close(s.f_known[1], torch.zeros(4))
    torch.testing.assert_close(s.f_unknown[0], torch.zeros(4))


def test_generic_latents_are_never_returned():
    s = scores(generic=torch.tensor([0.02, 0.0199, 0.0, 0.0]))
    assert s.top_known() == (2,) and s.top_unknown() == (1,)
    assert s.maxmin_known == pytest.approx(0.8)
    table = s.to_labelled()
    assert table.at(score="fires on random words", latent="1") == pytest.approx(0.0199)
    assert table.n == 9


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000))
def test_permuting_or_duplicating_prompts_changes_nothing(nk: int, nu: int, seed: int):
    g = torch.Generator().manual_seed(seed)
    k, u = (torch.rand(n, 6, generator=g) * (torch.rand(n, 6, generator=g) > 0.5) for n in (nk, nu))
    tk, tu = ([("a", "b")[i % 2] for i in range(n)] for n in (nk, nu))
    base = separation_scores(k, u, tk, tu)
    order = torch.randperm(nk, generator=g)
    other = separation_scores(
        torch.cat([k[order], k]), torch.cat([u, u]), [tk[i] for i in order] + tk, tu + tu
    )  # fmt: skip
    torch.testing.assert_close(base.known, other.known)
    assert float(base.known.abs().max()) <= 1
    assert bool((base.general_known <= base.known).all())
    assert base.maxmin_known == pytest.approx(float(base.known.min(0).values.max()))


def test_threshold_of_firing_is_strict():
    assert firing_rate(torch.tensor([[1e-6, 2e-6]])).tolist() == [0.0, 1.0]


def test_labels_must_match_rows():
    with pytest.raises(DataError, match="one type per row"):
        separation_scores(K, U, ["a"], ["b"] * 5)


def test_reference_statistics_of_the_worked_example():
    from interp_unlearn.latents import SAE

    eye = torch.eye(4)
    sae = SAE(eye, torch.zeros(4), eye, torch.zeros(4), kind="relu", site="s")
    r = reference_stats(sae, K, U)
    torch.testing.assert_close(r.mu_K, torch.tensor([1.075, 0.25, 0.125, 0]))
    torch.testing.assert_close(r.mu_U, torch.tensor([0.2, 0.84, 0.1, 0]))
    assert r.s == pytest.approx(1.11435)
    assert torch.equal(r.c, r.mu_K)
    torch.testing.assert_close(r.v, torch.tensor([1.0, 1.05, 0.5, 0.0]))
    chosen = reference_stats(sae, K, U, torch.tensor([0]))
    assert chosen.s == pytest.approx(0.875**2)
    with pytest.raises(DataError, match="same mean"):
        reference_stats(sae, K, K)
    with pytest.raises(DataError, match="at least one"):
        reference_stats(sae, K[:0], U)


def test_generic_rate_is_a_share_of_documents_and_seeded(tiny_model):
    sae = make_sae("topk", k=4)
    texts = ["the cat sat on a mat", "a dog ran to the red house", "", "blue", "big tree and small cat"] * 4
    rate = generic_rate(sae, tiny_model, texts, batch_size=3)
    assert rate.shape == (48,) and float(rate.max()) <= 1
    assert float(rate.sum()) == pytest.approx(4, abs=1e-4)
    assert torch.equal(rate, generic_rate(sae, tiny_model, texts, batch_size=7))
    with pytest.raises(DataError, match="two words"):
        generic_rate(sae, tiny_model, ["blue"])


def test_generic_rate_where_the_tokenizer_ends_a_text_with_a_token_of_its_own(tiny_model):
    """The end token covers characters 0 to 0, so it does not say where the text ends."""
    tokenizer = copy.deepcopy(tiny_model.tokenizer)
    end = [("<pad>", tokenizer.pad_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A <pad>", special_tokens=end)
    assert tokenizer("the cat", return_offsets_mapping=True)["offset_mapping"][-1] == (0, 0)
    ending = wrap(tiny_model.module, tokenizer)
    sae = make_sae("topk", k=4)
    texts = ["the cat sat on a mat", "a dog ran to the red house"]
    assert torch.equal(generic_rate(sae, ending, texts), generic_rate(sae, tiny_model, texts))
