"""Properties 4–6 and 9 of the reconstruction, on the worked example with four latents."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_unlearn.unlearn.objectives._distances import attract, distance, literal, median_bandwidth, mmd, push

MU_K = torch.tensor([1.075, 0.25, 0.125, 0.0])
MU_U = torch.tensor([0.2, 0.84, 0.1, 0.0])
S = (MU_U - MU_K).square().sum()


def r_a(z, kind="l2"):
    unit = distance(MU_U[None], MU_K[None], kind)
    return tuple(float(v) for v in attract(z[None], MU_U[None], MU_K[None], unit, kind))


def test_unit():
    assert float(S) == pytest.approx(1.11435)


@pytest.mark.parametrize("kind", ["l2", "l1", "cosine"])
def test_r_a_at_the_two_means(kind):
    assert r_a(MU_K, kind) == pytest.approx((1, 1), abs=1e-5)
    assert r_a(MU_U, kind) == pytest.approx((0, 0), abs=1e-5)


def test_r_a_between_and_beyond():
    assert r_a((MU_K + MU_U) / 2) == pytest.approx((0.25, 0.75), abs=1e-5)
    assert r_a(torch.tensor([2.0, 0, 1, 0])) == pytest.approx((4.2676, 0), abs=1e-4)


@given(st.lists(st.floats(-10, 10, width=32), min_size=4, max_size=4), st.sampled_from(["l2", "l1", "cosine"]))
def test_r_a_is_never_negative(z, kind):
    toward, away = r_a(torch.tensor(z), kind)
    assert toward >= -1e-6
    assert away >= 0


def test_cosine_sees_length_a_little():
    assert float(distance(2 * MU_U, MU_U, "cosine")) == pytest.approx(0.05, rel=1e-4)


def r_0(z, lam):
    return literal(z[None], MU_U[None], MU_K[None], torch.ones(1), lam)


@pytest.mark.parametrize("lam", [0.0, 0.25, 0.5])
def test_r_0_has_its_minimum_beyond_the_unknown_mean(lam):
    z = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], lr=1, max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = r_0(z, lam)
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(z.detach(), (MU_U - lam * MU_K) / (1 - lam), atol=1e-4, rtol=1e-4)


def test_r_0_worked_values():
    assert float(r_0(torch.tensor([-0.675, 1.43, 0.075, 0]), 0.5)) == pytest.approx(-1.11435, abs=1e-4)
    assert float(r_0(MU_U, 0.5)) == pytest.approx(-0.557175, abs=1e-5)
    assert float(r_0(torch.tensor([0, 1.43, 0.075, 0]), 0.5)) == pytest.approx(-0.8865375, abs=1e-4)


def test_r_0_is_unbounded_at_lambda_one():
    values = [float(r_0(MU_U + t * (MU_U - MU_K), 1.0)) for t in (0.0, 1.0, 10.0, 100.0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < -100


def test_attraction_to_members_and_to_their_mean_have_one_gradient():
    members = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    z = torch.ones(1, 5, requires_grad=True)
    (each,) = torch.autograd.grad(distance(z.expand(7, 5), members, "l2").mean(), z)
    (mean,) = torch.autograd.grad(distance(z, members.mean(0, keepdim=True), "l2").sum(), z)
    torch.testing.assert_close(each, mean)


def test_r_3_on_a_latent_that_is_off():
    a = torch.tensor([[-0.5]], requires_grad=True)
    z = a.relu()
    down, up = push(z, a, torch.tensor([2.0]), torch.tensor([1.0]))
    assert float(down.detach()) == 0
    assert float(up.detach()) == pytest.approx(1.5**2)
    assert float(torch.autograd.grad(down, a, retain_graph=True)[0]) == 0
    assert float(torch.autograd.grad(up, a)[0]) == pytest.approx(-3.0)


def test_r_3_by_hand():
    z, a = torch.tensor([[2.0, 0.0], [4.0, 1.0]]), torch.tensor([[3.0], [0.5]])
    down, up = push(z, a, torch.tensor([2.0, 1.0]), torch.tensor([1.0]))
    assert float(down) == pytest.approx((1 + 0 + 2 + 1) / 4)
    assert float(up) == pytest.approx((0 + 0.25) / 2)
    nothing = push(z[:, :0], a, torch.zeros(0), torch.tensor([1.0]))
    assert float(nothing[0]) == 0


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_mmd_is_zero_for_one_sample_and_positive_for_two(seed):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(6, 3, generator=g), torch.randn(8, 3, generator=g) + 3
    b = median_bandwidth(torch.cat([x, y]))
    assert float(mmd(x, x, b)) == pytest.approx(0, abs=1e-6)
    assert float(mmd(x, x[torch.randperm(6, generator=g)], b)) == pytest.approx(0, abs=1e-6)
    assert float(mmd(x, y, b)) > 0.05
    assert float(mmd(x, y, b)) == pytest.approx(float(mmd(y, x, b)), rel=1e-4)
