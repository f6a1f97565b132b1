import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_unlearn._core import DataError
from interp_unlearn.diff import LinearCKA, linear_cka


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hsic_unbiased(k, g):
    """Song et al. (2007), as written: kernels with their diagonals removed."""
    n = len(k)
    k, g = k - torch.diag(k.diagonal()), g - torch.diag(g.diagonal())
    one = torch.ones(n, dtype=k.dtype)
    both = (one @ k @ one) * (one @ g @ one) / ((n - 1) * (n - 2))
    return (torch.trace(k @ g) + both - 2 / (n - 2) * (one @ k @ g @ one)) / (n * (n - 3))


def hsic_biased(k, g):
    n = len(k)
    h = torch.eye(n, dtype=k.dtype) - 1 / n
    return torch.trace(h @ k @ h @ h @ g @ h)


@pytest.mark.parametrize(("debiased", "hsic"), [(True, hsic_unbiased), (False, hsic_biased)])
@pytest.mark.parametrize(("n", "dx", "dy"), [(30, 5, 4), (9, 20, 15), (12, 40, 3)])
def test_it_is_the_ratio_of_hsics(debiased, hsic, n, dx, dy):
    x = 3 + normal(n, dx)
    y = torch.cat([x[:, :2] * 2, 5 + normal(n, dy - 2, seed=1)], 1)
    k, g = x @ x.T, y @ y.T
    expected = float(hsic(k, g) / (hsic(k, k) * hsic(g, g)).sqrt())
    assert linear_cka(x, y, debiased=debiased) == pytest.approx(expected, rel=1e-9)
    streamed = LinearCKA()
    for start in range(0, n, 4):
        streamed.add(x[start : start + 4], y[start : start + 4])
    assert streamed.value(debiased=debiased) == pytest.approx(expected, rel=1e-8)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.booleans())
def test_rotation_scale_and_shift_change_nothing(seed, scale, debiased):
    x, y = normal(25, 6, seed=seed), normal(25, 6, seed=seed + 1) + normal(25, 6, seed=seed)
    turn = torch.linalg.qr(normal(6, 6, seed=seed + 2))[0]
    plain = linear_cka(x, y, debiased=debiased)
    assert linear_cka(x, scale * y @ turn + 40, debiased=debiased) == pytest.approx(plain, rel=1e-6, abs=1e-9)
    assert linear_cka(x, 2 * x @ turn, debiased=debiased) == pytest.approx(1, abs=1e-9)


def test_few_rows_beside_one_wide_representation_take_the_small_matrices(monkeypatch):
    x, y = normal(12, 3), normal(12, 400, seed=1)
    streamed = LinearCKA()
    streamed.add(x, y)
    monkeypatch.setattr(LinearCKA, "add", lambda *_: pytest.fail("a matrix of features, 400 wide"))
    for debiased in (True, False):
        assert linear_cka(x, y, debiased=debiased) == pytest.approx(streamed.value(debiased=debiased), rel=1e-8)


def test_unrelated_representations_with_few_rows():
    values = {d: [] for d in (True, False)}
    for i in range(40):
        x, y = normal(10, 200, seed=2 * i), normal(10, 200, seed=2 * i + 1)
        for debiased in values:
            values[debiased].append(linear_cka(x, y, debiased=debiased))
    assert sum(values[False]) / 40 > 0.85  # why the debiased form is the default
    assert abs(sum(values[True]) / 40) < 0.06


def test_large_means_in_float32_do_not_spoil_it():
    x = normal(40, 5).float()
    assert linear_cka(x + 10_000, x + 10_000) == pytest.approx(1, abs=1e-6)


def test_too_few_or_constant_rows():
    with pytest.raises(DataError, match="at least 4"):
        linear_cka(normal(3, 2), normal(3, 2))
    assert linear_cka(torch.ones(6, 2), normal(6, 2)) != linear_cka(torch.ones(6, 2), normal(6, 2))  # nan
