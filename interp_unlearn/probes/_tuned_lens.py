"""Tuned lens: an affine translator per layer, so that the output head can read what early layers hold.

Belrose et al., "Eliciting Latent Predictions from Transformers with the Tuned Lens" (2023): the translator of layer l,
h + A h + b, is fitted so that the head reads from it what the model will say at the end. Here each starts from a ridge
regression onto the last layer's activations, errors counted relative to their length, and is then refined by gradient
steps on the KL divergence to the model's own prediction, on a part of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn._core import (
    ConfigError,
    DataError,
    FileFormatError,
    __version__,
    generator,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from interp_unlearn.hooked import HookedModel, capture

Head = Callable[[Tensor], Tensor]
MAX_HELD = 256  # held-out tokens that the KL is measured on


@dataclass(frozen=True)
class TunedLensConfig:
    """How a tuned lens is fitted.

    Attributes:
        max_layers: Fit at most so many layers, evenly spaced; the last one needs none.
        max_tokens: Fit on at most so many tokens.
        held_out: Share of the texts kept for choosing the penalty and for the reported KL.
        penalties: Ridge penalties tried, in units of the mean variance of a feature.
        steps: Gradient steps per layer after the closed form; 0 leaves them out.
        batch_size: Tokens per step.
        lr: Largest learning rate, relative to the size of the activations.
        vocabulary: The KL is measured on so many tokens of the vocabulary, those that the model itself finds likeliest.
        seed: Of the order of tokens.

    Raises:
        ConfigError: If a value makes no sense.
    """

    max_layers: int = 8
    max_tokens: int = 3072
    held_out: float = 0.2
    penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    steps: int = 20
    batch_size: int = 256
    lr: float = 0.005
    vocabulary: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "max_layers": (self.max_layers >= 1, "use at least 1"),
            "max_tokens": (self.max_tokens >= 64, "use at least 64"),
            "held_out": (0 < self.held_out < 1, "use a share between 0 and 1"),
            "penalties": (len(self.penalties) > 0 and min(self.penalties) > 0, "give positive numbers"),
            "steps": (self.steps >= 0, "use 0 or more"),
            "batch_size": (self.batch_size >= 1, "use at least 1"),
            "lr": (self.lr > 0, "use a positive number"),
            "vocabulary": (self.vocabulary >= 2, "use at least 2"),
        }
        for name, (ok, fix) in checks.items():
            if not ok:
                raise ConfigError(f"tuned_lens.{name} = {getattr(self, name)!r}: {fix}")


@dataclass(frozen=True)
class TunedLens:
    """Translators of some layers of one model.

    Attributes:
        layers: Layers with a translator, in order.
        weight: A of each, (layer, d, d).
        bias: b of each, (layer, d).
        kl: Held-out KL to the model's own prediction in nats, (layer, 3): logit lens, closed form, tuned lens.
        config: How it was fitted.
    """

    layers: tuple[int, ...]
    weight: Float[Tensor, "l d d"]
    bias: Float[Tensor, "l d"]
    kl: Float[Tensor, "l 3"]
    config: Mapping[str, Any] = field(default_factory=dict)

    def translate(self, layer: int, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """What layer ``layer`` will have become at the last one; unchanged where the layer has no translator."""
        if layer not in self.layers:
            return hidden
        i = self.layers.index(layer)
        weight, bias = (t[i].to(hidden.device, hidden.dtype) for t in (self.weight, self.bias))
        return hidden + hidden @ weight.T + bias

    def reads(self, layer: int, n_layers: int) -> bool:
        """Whether a layer of a model of ``n_layers`` can be read: it has a translator, or is the last."""
        return layer in self.layers or layer == n_layers - 1

    def tensors(self) -> dict[str, Tensor]:
        """As named tensors, see `from_tensors`."""
        return {"layers": torch.tensor(self.layers), "weight": self.weight, "bias": self.bias, "kl": self.kl}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> TunedLens:
        """What `tensors` gave.

        Raises:
            FileFormatError: If a tensor is missing or their sizes differ.
        """
        if set(tensors) < {"layers", "weight", "bias", "kl"}:
            raise FileFormatError("these are not the tensors of a tuned lens (layers, weight, bias, kl)")
        layers = tuple(int(i) for i in tensors["layers"].tolist())
        weight, bias, kl = (tensors[name] for name in ("weight", "bias", "kl"))
        d = weight.shape[-1]
        if weight.shape != (len(layers), d, d) or bias.shape != (len(layers), d) or kl.shape != (len(layers), 3):
            raise FileFormatError("the tensors of this tuned lens do not fit each other; fit it again")
        return cls(layers, weight, bias, kl, dict(config or {}))

    def save(self, folder: str | Path) -> None:
        """Write ``tuned_lens.safetensors`` and ``tuned_lens.json`` into ``folder``."""
        write_tensors(Path(folder) / "tuned_lens.safetensors", self.tensors())
        facts = {"kind": "tuned_lens", "version": __version__, "config": dict(self.config)}
        write_json(Path(folder) / "tuned_lens.json", facts)

    @classmethod
    def load(cls, folder: str | Path) -> TunedLens:
        """Read what `save` wrote.

        Raises:
            FileFormatError: If the folder holds something else.
        """
        facts = read_json(Path(folder) / "tuned_lens.json")
        if not isinstance(facts, dict) or facts.get("kind") != "tuned_lens":
            raise FileFormatError(f"{folder} does not hold a tuned lens")
        return cls.from_tensors(read_tensors(Path(folder) / "tuned_lens.safetensors"), facts.get("config"))


def fit_tuned_lens(
    model: HookedModel,
    texts: Sequence[str],
    config: TunedLensConfig | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> TunedLens:
    """Fit the translators of a model.

    Leave texts about the target out: a translator with d² numbers can learn an answer by heart, and would then read it
    where the layer has none.

    Args:
        model: A language model.
        texts: Texts like those that will be read.
        config: How.
        progress: Called with (what, done, total).

    Raises:
        DataError: If the texts have too few tokens for a held-out part.
        ModelError: If the output head is more than a norm and a matrix.
    """
    config = config or TunedLensConfig()
    model.lens_scale()  # refuses a head that no lens can read, before any pass
    progress = progress or (lambda _what, _done, _total: None)
    layers = lens_layers(model.lm.n_layers, config.max_layers)
    fitted = [layer for layer in layers if layer != model.lm.n_layers - 1]
    states, text = _states(model, texts, [*fitted, model.lm.n_layers - 1], config)
    split = torch.quantile(text.double(), 1 - config.held_out, interpolation="lower")
    train, held = (text <= split).nonzero()[:, 0], (text > split).nonzero()[:, 0]
    if len(train) < 32 or len(held) < 8:
        raise DataError(f"a tuned lens of {len(text)} tokens in {len(texts)} texts; give more texts")
    held = held[torch.linspace(0, len(held) - 1, min(len(held), MAX_HELD)).long()]
    last = states.pop(model.lm.n_layers - 1)
    likely = _likeliest(model, last, config.vocabulary)
    head = _head(model, likely)
    with torch.no_grad():
        wanted = head(last).log_softmax(-1)
    weights, biases, kls = [], [], []
    for done, layer in enumerate(fitted):
        progress("fitting the tuned lens", done, len(fitted))
        x = states.pop(layer)
        weight, bias, best = _closed_form(x, last, wanted, train, held, head, config)
        with torch.no_grad():
            start = float(_kl(head(x[held]), wanted[held]))
        weight, bias, kl = _refine(weight, bias, best, x, wanted, train, held, head, config, layer)
        weights.append(weight)
        biases.append(bias)
        kls.append([start, best, kl])
    d = last.shape[1]
    facts = {**asdict(config), "tokens": len(text), "texts": len(texts), "model": model.name}
    return TunedLens(
        tuple(fitted),
        torch.stack(weights) if weights else torch.empty(0, d, d),
        torch.stack(biases) if biases else torch.empty(0, d),
        torch.tensor(kls).reshape(len(fitted), 3),
        facts,
    )


def lens_layers(n_layers: int, max_layers: int) -> list[int]:
    """At most ``max_layers`` layers and the last one, evenly spaced; all of them where they are few."""
    if n_layers <= max_layers + 1:
        return list(range(n_layers))
    return sorted({round(i * (n_layers - 1) / max_layers) for i in range(max_layers + 1)})


@torch.no_grad()
def _states(
    model: HookedModel, texts: Sequence[str], layers: Sequence[int], config: TunedLensConfig
) -> tuple[dict[int, Float[Tensor, "n d"]], Int[Tensor, " n"]]:
    """Activations of every token but the first of each text, and the number of its text."""
    sites = {layer: f"blocks.{layer}.hook_resid_post" for layer in layers}
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    numbers: list[Tensor] = []
    order = torch.randperm(len(texts), generator=generator(config.seed, "tuned lens texts")).tolist()
    count = 0
    for start in range(0, len(order), 16):
        if count >= config.max_tokens:
            break
        chosen = order[start : start + 16]
        acts = capture(model, [texts[i] for i in chosen], list(sites.values()), mask_policy="inner", device="cpu")
        assert acts.mask is not None
        numbers.append((torch.arange(start, start + len(chosen))[:, None].expand(acts.mask.shape))[acts.mask])
        for layer, site in sites.items():
            parts[layer].append(acts.flat(site).float())
        count += len(numbers[-1])
    return {layer: torch.cat(found) for layer, found in parts.items()}, torch.cat(numbers)


@torch.no_grad()
def _likeliest(model: HookedModel, last: Float[Tensor, "n d"], count: int) -> Int[Tensor, " v"]:
    """Tokens with the largest mean probability at the end."""
    rows = last[torch.linspace(0, len(last) - 1, min(len(last), 256)).long()]
    total = torch.zeros(model.lm.d_vocab)
    for part in rows.split(64):
        total += model.unembed(part.to(model.device, model.dtype)).float().softmax(-1).sum(0).cpu()
    return total.topk(min(count, len(total))).indices.sort().values


def _head(model: HookedModel, tokens: Int[Tensor, " v"]) -> Head:
    """Logits of some tokens, read from residual activations, in float32 with graph."""
    head = model.submodule(model.lm.unembed)
    norm = None if model.lm.final_norm is None else model.submodule(model.lm.final_norm)
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise DataError(f"the output head {model.lm.unembed} has no vector per token, so no lens can be tuned to it")
    chosen = weight[tokens.to(weight.device)].detach().float()
    bias = getattr(head, "bias", None)
    shift = None if bias is None else bias[tokens.to(bias.device)].detach().float()

    def read(hidden: Tensor) -> Tensor:
        hidden = hidden.to(model.device)
        normed = hidden if norm is None else norm(hidden.to(model.dtype))
        return model.finish_logits(torch.nn.functional.linear(normed.float(), chosen, shift))

    return read


def _kl(logits: Float[Tensor, "n v"], wanted: Float[Tensor, "n v"]) -> Float[Tensor, ""]:
    """Mean KL from the model's own prediction to the lens's, in nats."""
    return (wanted.exp() * (wanted - logits.log_softmax(-1))).sum(-1).mean()


@torch.no_grad()
def _closed_form(
    x: Float[Tensor, "n d"],
    last: Float[Tensor, "n d"],
    wanted: Float[Tensor, "n v"],
    train: Int[Tensor, " t"],
    held: Int[Tensor, " h"],
    head: Head,
    config: TunedLensConfig,
) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"], float]:
    """Ridge regression of what is still missing at the layer, with the penalty of the lowest held-out KL."""
    share = 1 / last[train].double().square().sum(1)
    share = (share / share.sum())[:, None]
    x_train, rest = x[train].double(), (last[train] - x[train]).double()
    mean_x, mean_r = (share * x_train).sum(0), (share * rest).sum(0)
    x_train, rest = x_train - mean_x, rest - mean_r
    gram, cross = x_train.T @ (share * x_train), x_train.T @ (share * rest)
    values, vectors = torch.linalg.eigh(gram)
    cross = vectors.T @ cross
    best = (torch.zeros_like(gram).float(), torch.zeros_like(mean_x).float(), float("inf"))
    for penalty in config.penalties:
        a = (vectors @ (cross / (values.clamp(min=0) + penalty * values.mean())[:, None])).T
        b = mean_r - a @ mean_x
        weight, bias = a.float(), b.float()
        kl = float(_kl(head(x[held] + x[held] @ weight.T + bias), wanted[held]))
        if kl < best[2]:
            best = (weight, bias, kl)
    if best[2] == float("inf"):
        raise DataError("the activations are not finite, so no lens can be tuned; the model is broken")
    return best


def _refine(
    weight: Float[Tensor, "d d"],
    bias: Float[Tensor, " d"],
    start: float,
    x: Float[Tensor, "n d"],
    wanted: Float[Tensor, "n v"],
    train: Int[Tensor, " t"],
    held: Int[Tensor, " h"],
    head: Head,
    config: TunedLensConfig,
    layer: int,
) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"], float]:
    """AdamW on the KL; what is kept is the best of a few checks on held-out tokens, the start included.

    Steps are taken on features scaled to unit size, so that one learning rate fits every layer.
    """
    if not config.steps:
        return weight, bias, start
    scale = x[train].square().mean(0).sqrt().median().clamp(min=1e-6)
    best = (weight, bias, start)
    a, b = (weight * scale).clone().requires_grad_(), bias.clone().requires_grad_()
    size = float((x[train] + x[train] @ weight.T + bias).square().mean().sqrt()) / x.shape[1] ** 0.5
    optimiser = torch.optim.AdamW([a, b], lr=config.lr * size, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    random = generator(config.seed, "tuned lens", layer)
    for step in range(config.steps):
        rows = train[torch.randint(len(train), (min(config.batch_size, len(train)),), generator=random)]
        with torch.enable_grad():
            loss = _kl(head(x[rows] + (x[rows] / scale) @ a.T + b), wanted[rows])
            a.grad, b.grad = torch.autograd.grad(loss, [a, b])  # the norm and head are the user's: no gradient there
        torch.nn.utils.clip_grad_norm_([a, b], 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % max(config.steps // 4, 1) == 0:
            with torch.no_grad():
                now = (a / scale).detach().clone(), b.detach().clone()
                kl = float(_kl(head(x[held] + x[held] @ now[0].T + now[1]), wanted[held]))
            if kl < best[2]:
                best = (*now, kl)
    return best
