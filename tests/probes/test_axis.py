import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_unlearn._core import DataError
from interp_unlearn.probes import KnownUnknownAxis

K = np.array([[1, 0, 0.5, 0], [2, 0, 0, 0], [0.3, 1, 0, 0], [1, 0, 0, 0]])
U = np.array([[0, 1, 0, 0], [0, 2, 0.5, 0], [1, 0.2, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
AXIS = KnownUnknownAxis(K.mean(0), U.mean(0))


def test_the_worked_example():
    np.testing.assert_allclose(AXIS.mu_k, [1.075, 0.25, 0.125, 0])
    np.testing.assert_allclose(AXIS.mu_u, [0.2, 0.84, 0.1, 0])
    assert ((AXIS.mu_u - AXIS.mu_k) ** 2).sum() == pytest.approx(1.11435)
    t, r, ratio = AXIS.coordinates(np.array([[2.0, 0, 1, 0]]))[0]
    assert t == pytest.approx(-0.878315, abs=1e-6)
    assert r == pytest.approx(0.859962, abs=1e-6)
    to_k, to_u = 0.925**2 + 0.25**2 + 0.875**2, 1.8**2 + 0.84**2 + 0.9**2
    assert ratio == pytest.approx(to_k / (to_k + to_u))
    assert to_u / 1.11435 == pytest.approx(4.2676, abs=1e-4)


def test_the_means_and_the_points_between_and_beyond():
    v = AXIS.mu_u - AXIS.mu_k
    points = np.stack([AXIS.mu_k, AXIS.mu_u, (AXIS.mu_k + AXIS.mu_u) / 2, AXIS.mu_u + v])
    found = AXIS.coordinates(points)
    np.testing.assert_allclose(found[:, 0], [0, 1, 0.5, 2], atol=1e-12)
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-7)
    np.testing.assert_allclose(found[:, 2], [0, 1, 0.5, 0.8], atol=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(0.1, 50))
def test_rotation_shift_and_scale_change_nothing(seed, d, scale):
    rng = np.random.default_rng(seed)
    k, u, z = rng.normal(size=d), rng.normal(size=d), rng.normal(size=(7, d))
    turn, shift = np.linalg.qr(rng.normal(size=(d, d)))[0], rng.normal(size=d)

    def moved(x):
        return scale * x @ turn + shift

    plain = KnownUnknownAxis(k, u).coordinates(z)
    turned = KnownUnknownAxis(moved(k[None])[0], moved(u[None])[0]).coordinates(moved(z))
    np.testing.assert_allclose(turned, plain, rtol=1e-6, atol=1e-8)


def test_equal_means_are_refused():
    with pytest.raises(DataError, match="no axis between them"):
        KnownUnknownAxis(np.ones(3), np.ones(3))
