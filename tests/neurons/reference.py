"""Attribution by nested loops: one prompt, one layer, one point of the path at a time, no cache, no batching."""

from __future__ import annotations

import torch

from interp_unlearn.hooked import HookedModel, answer_batch

PLACES = {
    "midpoint": lambda m: [(k + 0.5) / m for k in range(m)],
    "left": lambda m: [k / m for k in range(m)],
    "right": lambda m: [(k + 1) / m for k in range(m)],
    "ends": lambda m: [k / (m - 1) for k in range(m)],
}


def counted(batch, answer, tokens):
    attended, special = batch.attended[0], batch.special[0]
    first = int(answer[0].nonzero()[0])
    keep = []
    for column in range(len(attended)):
        good = bool(attended[column])
        if tokens in ("content", "inner", "prompt"):
            good = good and not bool(special[column])
        if tokens == "inner":
            good = good and column > 0
        if tokens == "prompt":
            good = good and column < first
        if tokens == "last":
            good = column == first - 1
        keep.append(good)
    return torch.tensor(keep)


def target(model: HookedModel, batch, answer, kind, site=None, value=None):
    """T, and the activation at ``site``, perhaps replaced by ``value`` (position, neuron)."""
    seen = {}
    handle = None
    if site is not None:
        place = model.sites[site]
        module = model.submodule(place.path)

        def swap(x):
            shape = x.shape
            flat = x.reshape(-1, shape[-1])
            seen["h"] = flat
            return None if value is None else value.reshape(shape)

        if place.kind == "input":
            handle = module.register_forward_pre_hook(lambda _m, args: swap(args[0]))
        else:
            handle = module.register_forward_hook(lambda _m, _a, output: swap(output))
    try:
        logits = model(batch)
    finally:
        if handle is not None:
            handle.remove()
    logprob = torch.zeros((), dtype=logits.dtype)
    for column in answer[0].nonzero()[:, 0].tolist():
        logprob = logprob + logits[0, column - 1].log_softmax(-1)[batch.tokens[0, column]]
    if kind == "probability":
        return logprob.exp(), seen.get("h")
    return (logprob if kind == "logprob" else logprob / int(answer.sum())), seen.get("h")


def slow(
    model,
    prompt,
    answer,
    *,
    places,
    kind="probability",
    tokens="content",
    aggregate="max",
    corrupted=None,
    site="blocks.{}.mlp.hook_post",
):
    """Scores (layer, neuron), attributed (layer,) and removed (layer,) of one prompt."""
    encoded = answer_batch(model, [prompt], [answer])
    batch, marks = encoded.batch, encoded.answer
    keep = counted(batch, marks, tokens)
    scores, attributed, removed = [], [], []
    for layer in range(model.lm.n_layers):
        name = site.format(layer)
        with torch.no_grad():
            clean_value, h = target(model, batch, marks, kind, name)
            h = h.clone()
            base = torch.zeros_like(h)
            if corrupted is not None:
                other = answer_batch(model, [corrupted], [answer])
                base = target(model, other.batch, other.answer, kind, name)[1].clone()
            gone = torch.where(keep[:, None], base, h)
            removed.append(float(clean_value - target(model, batch, marks, kind, name, gone)[0]))
        total = torch.zeros_like(h)
        for place in places:
            scaled = torch.where(keep[:, None], base + place * (h - base), h).requires_grad_()
            value, _ = target(model, batch, marks, kind, name, scaled)
            total += torch.autograd.grad(value, scaled)[0] / len(places)
        each = total * (h - base) * keep[:, None]
        attributed.append(float(each.sum()))
        last = int(marks[0].nonzero()[0]) - 1
        only = each[keep]
        scores.append(
            {
                "max": lambda only=only: only.max(0).values,
                "sum": lambda only=only: only.sum(0),
                "mean": lambda only=only: only.mean(0),
                "abs_sum": lambda only=only: only.abs().sum(0),
                "last": lambda each=each, last=last: each[last],
            }[aggregate]()
        )
    return (
        torch.stack(scores).detach(),
        torch.tensor(attributed, dtype=torch.float64),
        torch.tensor(removed, dtype=torch.float64),
    )
