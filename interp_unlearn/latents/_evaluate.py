"""How good an SAE is on held-out text: explained variance, L0, dead latents, and the model's loss with it in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.hooked import Batch, Edit, HookedModel, MaskPolicy, capture, edit
from interp_unlearn.latents._sae import SAE
from interp_unlearn.latents._text import token_rows

MASSIVE_FACTOR = 10.0


@dataclass(frozen=True)
class Reconstruction:
    """How well rows are reconstructed.

    Attributes:
        explained_variance: ``1 − Σ‖x − x̂‖² / Σ‖x − mean‖²`` over the rows kept, with their own mean.
        l0: Mean number of latents on.
        dead: Share of latents on in no row; falls with the number of rows.
        n: Rows kept.
        massive: Rows left out because their norm exceeds `massive_factor` × the median norm.
    """

    explained_variance: float
    l0: float
    dead: float
    n: int
    massive: int


@dataclass(frozen=True)
class SAEReport:
    """`Reconstruction` on held-out text, with the model's loss when reconstructions replace activations.

    Attributes:
        explained_variance: See `Reconstruction`.
        l0: See `Reconstruction`.
        dead: See `Reconstruction`.
        n: Tokens counted.
        massive: Tokens left out.
        loss: Next-token loss of the model in nats, over ``n_loss`` predictions.
        loss_sae: The same with reconstructions in place of activations, at the tokens that count.
        loss_zero: The same with zeros in their place.
        loss_mean: The same with the mean activation in their place.
        recovered: ``(loss_zero − loss_sae) / (loss_zero − loss)``.
        recovered_mean: The same against the mean, the stricter baseline.
        n_loss: Predictions behind the losses (0: not measured).
        mask_policy: Which tokens count; massive ones are left as they are.
        massive_factor: See `Reconstruction`.
    """

    explained_variance: float
    l0: float
    dead: float
    n: int
    massive: int
    loss: float
    loss_sae: float
    loss_zero: float
    loss_mean: float
    recovered: float
    recovered_mean: float
    n_loss: int
    mask_policy: str
    massive_factor: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@torch.no_grad()
def reconstruction(
    sae: SAE, x: Float[Tensor, "n d"], *, massive_factor: float = MASSIVE_FACTOR, chunk: int = 2048
) -> Reconstruction:
    """Reconstruction quality on rows of activations.

    Args:
        sae: Any dictionary.
        x: Activations, (n, d).
        massive_factor: Leave out rows with a norm above so many medians; 0 keeps all.
        chunk: Rows encoded at once.

    Raises:
        DataError: If there are fewer than two rows.
    """
    if x.shape[0] < 2:
        raise DataError("explained variance needs at least two rows")
    norms = x.float().norm(dim=1)
    keep = norms <= massive_factor * norms.median() if massive_factor else torch.ones_like(norms, dtype=torch.bool)
    rows = x[keep].float()
    error, on, alive = 0.0, 0, torch.zeros(sae.d_sae, dtype=torch.bool)
    for part in rows.split(chunk):
        z = sae.encode(part)
        error += float((sae.decode(z) - part).double().pow(2).sum())
        on += int((z != 0).sum())
        alive |= (z != 0).any(0)
    total = float((rows.double() - rows.double().mean(0)).pow(2).sum())
    n = rows.shape[0]
    return Reconstruction(1 - error / total, on / n, 1 - float(alive.float().mean()), n, int((~keep).sum()))


@torch.no_grad()
def evaluate_sae(
    sae: SAE,
    model: HookedModel,
    texts: Sequence[str],
    *,
    max_tokens: int = 32_768,
    loss_tokens: int = 4096,
    context: int = 128,
    batch_size: int = 32,
    mask_policy: MaskPolicy = "inner",
    massive_factor: float = MASSIVE_FACTOR,
) -> SAEReport:
    """Evaluate on texts that the SAE was not trained on.

    Args:
        sae: The SAE.
        model: The model it was made for.
        texts: Held-out texts; each is cut into rows of ``context`` tokens.
        max_tokens: Tokens for the reconstruction numbers.
        loss_tokens: Tokens for the losses, each run through the whole model four times; 0 skips them (values are nan).
        context: Tokens per row.
        batch_size: Rows per forward pass.
        mask_policy: Which tokens count.
        massive_factor: Tokens with a norm above so many medians do not count and are never replaced.
    """
    sae.check_fits(model)
    rows = token_rows(model, texts, context)[: max(1, max_tokens // context)]
    batches = [model.batch([list(r) for r in rows[i : i + batch_size]]) for i in range(0, len(rows), batch_size)]
    x = torch.cat([capture(model, b, [sae.site], mask_policy=mask_policy).flat(sae.site) for b in batches])
    quality = reconstruction(sae, x, massive_factor=massive_factor)
    limit = massive_factor * float(x.norm(dim=1).median()) if massive_factor else float("inf")
    mean = x[x.norm(dim=1) <= limit].mean(0)
    losses = {name: float("nan") for name in ("loss", "sae", "zero", "mean")}
    predictions = 0
    if loss_tokens:
        chosen = batches[: max(1, -(-loss_tokens // (context * batch_size)))]
        keep = max(1, loss_tokens // context)
        chosen = [
            b.rows(slice(0, max(0, keep - i * batch_size))) for i, b in enumerate(chosen) if keep > i * batch_size
        ]
        changes: dict[str, Callable[[Tensor], Tensor] | None] = {
            "loss": None,
            "sae": sae,
            "zero": torch.zeros_like,
            "mean": lambda v: mean.expand_as(v),
        }
        for name, change in changes.items():
            total, predictions = 0.0, 0
            for batch in chosen:
                loss, n = _loss(model, batch, sae.site, change, batch.mask(mask_policy), limit)
                total, predictions = total + loss, predictions + n
            losses[name] = total / predictions
    return SAEReport(
        quality.explained_variance,
        quality.l0,
        quality.dead,
        quality.n,
        quality.massive,
        losses["loss"],
        losses["sae"],
        losses["zero"],
        losses["mean"],
        _share(losses, "zero"),
        _share(losses, "mean"),
        predictions,
        mask_policy,
        massive_factor,
    )


def _share(losses: dict[str, float], floor: str) -> float:
    gap = losses[floor] - losses["loss"]
    return (losses[floor] - losses["sae"]) / gap if gap else float("nan")


def _loss(
    model: HookedModel,
    batch: Batch,
    site: str,
    change: Callable[[Tensor], Tensor] | None,
    mask: Bool[Tensor, "batch pos"],
    limit: float,
) -> tuple[float, int]:
    """Summed next-token loss of a batch with activations replaced where the mask is on and the norm is ordinary."""

    def replace(value: Tensor) -> Tensor:
        assert change is not None
        where = mask & (value.norm(dim=-1) <= limit)
        out = value.clone()
        out[where] = change(value[where]).to(value.dtype)
        return out

    if change is None:
        logits = model.forward(batch)
    else:
        with edit(model, Edit(site, replace, "reconstruction")):
            logits = model.forward(batch)
    wanted = batch.attended[:, 1:] & batch.attended[:, :-1]
    logprobs = logits[:, :-1][wanted].float().log_softmax(-1)
    targets = batch.tokens[:, 1:][wanted]
    return float(-logprobs.gather(1, targets[:, None]).double().sum()), int(wanted.sum())
