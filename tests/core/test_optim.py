"""AdamW's step, computed backwards."""

import pytest
import torch

from interp_unlearn._core import adamw, values_before_adamw


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "ulps"), [(torch.float64, 1.0), (torch.float32, 4.0), (torch.bfloat16, 1.0)])
def test_a_step_backwards_is_exact_to_rounding(decay: float, dtype: torch.dtype, ulps: float):
    torch.manual_seed(0)
    weight, other = torch.randn(64, 8, dtype=dtype).requires_grad_(), torch.zeros(3, dtype=dtype).requires_grad_()
    optimizer = adamw([weight, other], lr=1e-2, weight_decay=decay)
    for step in range(5):
        before = weight.detach().clone()
        weight.grad, other.grad = torch.randn_like(weight), torch.randn_like(other)
        optimizer.param_groups[0]["lr"] = lr = 1e-2 / (step + 1)
        optimizer.step()
        assert not torch.equal(weight, before)
        found = values_before_adamw(optimizer, weight, lr)
        assert found.dtype == dtype
        allowed = ulps * torch.finfo(dtype).eps * before.abs().clamp_min(2e-2)
        assert ((found - before).abs() <= allowed).all()


def test_a_weight_without_gradient_only_decayed():
    weight, idle = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    optimizer = adamw([weight, idle], lr=0.5, weight_decay=0.1)
    weight.grad, idle.grad = torch.ones(2), torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(values_before_adamw(optimizer, idle, 0.5), torch.ones(3))
