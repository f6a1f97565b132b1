"""Loss on general text: did the model keep its language?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from interp_unlearn._core import Axis, DataError, Labelled
from interp_unlearn.hooked import HookedModel, MaskPolicy, evaluating, tokenize
from interp_unlearn.metrics._resample import bootstrap, percentile_interval

QUANTITIES = ("before", "after", "change", "relative change", "low", "high")


@torch.no_grad()
def text_loss(
    model: HookedModel,
    texts: Sequence[str],
    *,
    mask_policy: MaskPolicy = "content",
    batch_tokens: int = 1024,
) -> Labelled:
    """Mean negative log-likelihood per token of each text, in nats.

    A token counts when the policy counts it and something precedes it: the first token of a text is predicted only by
    tokenizers that put a special token in front.

    Args:
        model: A language model with a tokenizer.
        texts: At least one; each at least two tokens and not longer than the context.
        mask_policy: Which tokens count as predicted.
        batch_tokens: Padded tokens per forward pass, to bound memory.

    Returns:
        Axis "text", in the given order. ``config["mean"]`` is the token-weighted mean over all texts (the number to
        report), ``config["interval"]`` its 95 % bootstrap interval over texts, ``config["n_tokens"]`` the counted
        tokens of each text; ``n`` is their sum.

    Raises:
        DataError: If there is no text, one is too long, or one has no token to predict.
    """
    if isinstance(texts, str) or not texts:
        raise DataError("text loss needs a list of at least one text")
    if model.tokenizer is None:
        raise DataError("text loss needs a tokenizer; pass one to open_model(…, tokenizer=…)")
    whole = tokenize(model.tokenizer, list(texts), max_length=model.lm.n_ctx)
    lengths = whole.lengths().tolist()
    order = sorted(range(len(texts)), key=lambda i: lengths[i])
    loss, count = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
    with evaluating(model.module):
        for index in _runs(order, lengths, batch_tokens):
            batch = tokenize(model.tokenizer, [texts[i] for i in index]).to(model.device)
            logits = model.forward(batch)[:, :-1].float()
            picked = logits.gather(-1, batch.tokens[:, 1:, None])[..., 0]
            counted = batch.mask(mask_policy)[:, 1:] & batch.attended[:, :-1]
            nll = torch.where(counted, logits.logsumexp(-1) - picked, 0.0)
            loss[index] = nll.sum(1, dtype=torch.float64).cpu().numpy()
            count[index] = counted.sum(1).cpu().numpy()
    if not count.all():
        short = texts[int(np.argmin(count))]
        raise DataError(
            f"the text {short[:40]!r} has no token to predict under the mask policy {mask_policy!r}; give longer texts"
        )
    per_text = loss / count
    labels = tuple(str(i) for i in range(len(texts)))
    drawn = bootstrap(per_text, labels, weights=count, purpose="text loss")
    return Labelled(
        "text loss, nats per token",
        per_text,
        (Axis("text", labels),),
        n=int(count.sum()),
        mask_policy=mask_policy,
        config={
            "mean": float(loss.sum() / count.sum()),
            "interval": list(percentile_interval(drawn)) if len(texts) > 1 else [float("nan")] * 2,
            "n_tokens": count.tolist(),
        },
        seed=0,
        note="mean over a text's counted tokens; config['mean'] weighs texts by their tokens",
    )


def _runs(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Split indices, sorted by length, into runs of at most ``batch_tokens`` padded tokens."""
    runs: list[list[int]] = []
    for i in order:
        if runs and (len(runs[-1]) + 1) * lengths[i] <= batch_tokens:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def text_loss_change(
    before: Labelled, after: Labelled, *, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> Labelled:
    """Token-weighted change of the loss between two models on the same texts, with a paired bootstrap over texts.

    Args:
        before: From `text_loss` with the first model.
        after: From `text_loss` with the second model, same texts and policy.
        level: Of the interval.
        draws: Resamples.
        seed: Of the resamples.

    Returns:
        Axis "quantity": "before", "after", "change" (nats per token), "relative change" (change / before), and "low",
        "high", which bound the relative change.
    """
    if before.config["n_tokens"] != after.config["n_tokens"] or before.mask_policy != after.mask_policy:
        raise DataError(
            "the two losses were measured on different texts or under different mask policies; measure both alike"
        )
    weights = np.asarray(before.config["n_tokens"], dtype=np.float64)
    old, new = before.config["mean"], after.config["mean"]
    pairs = np.stack([before.values, after.values], axis=1)
    drawn = bootstrap(pairs, before.axes[0].labels, weights=weights, draws=draws, seed=seed, purpose="text loss")
    low, high = percentile_interval(drawn[:, 1] / drawn[:, 0] - 1, level)
    if len(weights) < 2:
        low = high = float("nan")
    return Labelled(
        "text loss change",
        np.array([old, new, new - old, new / old - 1, low, high]),
        (Axis("quantity", QUANTITIES),),
        n=before.n,
        mask_policy=before.mask_policy,
        config={"level": level, "draws": draws},
        seed=seed,
        note="nats per token; low and high bound the relative change",
    )
