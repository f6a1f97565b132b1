"""sae-lens' TopK training SAE with a sparse training step: the same loss, a fraction of the arithmetic on a CPU.

Only ``k`` of ``d_sae`` latents of a token are on, so decoding and both weight gradients need ``k / d_sae`` of the dense
products. Two dense products remain: the pre-activations and the gradient of the latents, in bfloat16 if asked.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import optional_import


def _matmul(a: Tensor, b: Tensor, bf16: bool) -> Tensor:
    return (a.bfloat16() @ b.bfloat16()).float() if bf16 else a @ b


def _transposed_product(index: Tensor, values: Tensor, dense: Tensor, rows: int) -> Tensor:
    """``S.T @ dense`` where row i of the (n, rows) matrix S holds ``values[i]`` at ``index[i]``."""
    flat = index.flatten()
    order = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat, minlength=rows)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        sparse = torch.sparse_csr_tensor(
            starts, order // index.shape[1], values.flatten()[order], (rows, index.shape[0]), check_invariants=False
        )
        return sparse @ dense


class SparseTopKStep(torch.autograd.Function):
    """Reconstruction, chosen latents and their values, with gradients that touch the chosen latents only."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, w_enc: Tensor, b_enc: Tensor, w_dec: Tensor, b_dec: Tensor, k: int, bf16: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode (n, d) rows, keep the k largest pre-activations, rectify, decode."""
        centred = x - b_dec
        pre = _matmul(centred, w_enc, bf16).add_(b_enc)
        values, index = torch.topk(pre, k, dim=-1, sorted=False)
        values = values.relu()
        out = torch.nn.functional.embedding_bag(index, w_dec, per_sample_weights=values, mode="sum") + b_dec
        ctx.save_for_backward(centred, w_enc, w_dec, index, values)
        ctx.bf16 = bf16
        ctx.mark_non_differentiable(values, index, pre)
        return out, values, index, pre

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of the four parameters (none for the input, which is data)."""
        centred, w_enc, w_dec, index, values = ctx.saved_tensors
        d_values = _matmul(grad, w_dec.T, ctx.bf16).gather(1, index) * (values > 0)
        d_w_dec = _transposed_product(index, values, grad, w_dec.shape[0])
        d_w_enc = _transposed_product(index, d_values, centred, w_dec.shape[0]).T
        d_b_enc = torch.zeros_like(w_enc[0]).index_add_(0, index.flatten(), d_values.flatten())
        d_b_dec = grad.sum(0) - w_enc @ d_b_enc
        return None, d_w_enc, d_b_enc, d_w_dec, d_b_dec, None, None


def sparse_topk_sae(config: Any, *, bf16: bool = False) -> Any:
    """A `sae_lens.TopKTrainingSAE` whose training step is sparse.

    Decoder rows are kept at norm 1, so a latent's value is the length it adds to the reconstruction.

    Args:
        config: A ``TopKTrainingSAEConfig`` with ``rescale_acts_by_decoder_norm=False``.
        bf16: Compute the two dense products in bfloat16 (2–3 times faster on CPUs that have it).
    """
    lens = optional_import("sae_lens", "sae", "training an SAE")
    types = optional_import("sae_lens.saes.sae", "sae", "training an SAE")

    class SparseTopKTrainingSAE(lens.TopKTrainingSAE):  # type: ignore[misc, name-defined]
        """See `sparse_topk_sae`."""

        def training_forward_pass(self, step_input: Any) -> Any:
            """One step's loss: squared error plus AuxK for dead latents, as in sae-lens."""
            with torch.no_grad():
                self.W_dec.data /= self.W_dec.data.norm(dim=1, keepdim=True).clamp_min(1e-8)
            x: Float[Tensor, "n d"] = step_input.sae_in
            out, values, index, pre = SparseTopKStep.apply(
                x, self.W_enc, self.b_enc, self.W_dec, self.b_dec, self.cfg.k, bf16
            )
            loss = (out - x).pow(2).sum(-1).mean()
            losses = {"mse_loss": loss}
            dead = step_input.dead_neuron_mask
            if dead is not None and bool(dead.any()):
                losses["auxiliary_reconstruction_loss"] = self._aux(x, out, dead)
                loss = loss + losses["auxiliary_reconstruction_loss"]
            acts = torch.zeros_like(pre).scatter_(1, index, values)
            return types.TrainStepOutput(x, out, acts, pre, loss, losses)

        def _aux(self, x: Tensor, out: Tensor, dead: Tensor) -> Tensor:
            """AuxK of sae-lens, computed on the dead latents alone."""
            chosen = dead.nonzero()[:, 0]
            pre = (x - self.b_dec) @ self.W_enc[:, chosen] + self.b_enc[chosen]
            wanted = x.shape[-1] // 2
            values, index = pre.topk(min(wanted, len(chosen)), sorted=False)
            acts = torch.zeros_like(pre).scatter(1, index, values)
            error = acts @ self.W_dec[chosen] - (x - out).detach()
            scale = min(len(chosen) / wanted, 1.0)
            return self.cfg.aux_loss_coefficient * scale * error.pow(2).sum(-1).mean()

    return SparseTopKTrainingSAE(config)
