"""Diagonal Fisher information: how sensitive are answers to each weight, before and after?

Empirical, one question at a time (a batch mean squared is another quantity)::

    F_i = mean over questions of (d log p(answer) / d w_i)²

With gold, *Fisher erasure* asks whether the weights that are more sensitive in gold than in the original (a fact that
is memorised has a flat loss) have become as sensitive::

    mask = top share of max(F_gold - F_original, 0)
    erasure = 1 - mean over the mask of clip((F_gold - F_edited) / (F_gold - F_original), 0, 1)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_unlearn._core import Axis, ConfigError, Evidence, Labelled, config_hash, numpy_rng
from interp_unlearn.hooked import HookedModel, answer_logprobs, evaluating
from interp_unlearn.probes._bootstrap import mean_interval
from interp_unlearn.probes._forced import Forced, forced, pick_prompts
from interp_unlearn.probes._parts import Found, Part, Progress, register_part
from interp_unlearn.probes._patch_back import PatchBackConfig, all_finite
from interp_unlearn.probes._patch_catalogue import absent, found
from interp_unlearn.probes._phases import AFTER, BEFORE, GOLD, Measured, Phases
from interp_unlearn.worlds import Prompt

TRACE, ERASURE = "fisher.trace", "fisher.erasure"
BINS = np.arange(-24.0, 5.0)  # powers of ten; what lies outside is counted in the outermost bin
TINY = 1e-30
POLICY = "teacher-forced answer tokens, one question at a time"


@dataclass(frozen=True)
class FisherConfig:
    """Options of the diagonal Fisher.

    Attributes:
        max_prompts: Questions of each set, at most.
        stride: Weights of every so many blocks, counted from the last; 0 gives at most 8 blocks.
        share: Share of the weights in the mask of Fisher erasure (0.0001, 0.001 and 0.01 in the source).
        max_weights: Fisher erasure keeps every single value; it is left out above so many weights.
    """

    max_prompts: int = 8
    stride: int = 0
    share: float = 0.001
    max_weights: int = 20_000_000

    def __post_init__(self) -> None:
        if self.max_prompts < 1 or self.stride < 0 or self.max_weights < 0:
            raise ConfigError("max_prompts must be at least 1, stride and max_weights at least 0")
        if not 0 < self.share <= 1:
            raise ConfigError(f"share is {self.share}; use a share of the weights above 0 and at most 1, e.g. 0.001")


@dataclass
class Fisher:
    """Result of `diagonal_fisher`.

    Attributes:
        diagonal: Parameter name to its mean squared gradients.
        traces: (row, layer): sum of one question's squared gradients over a block's weights.
        layers: The blocks.
        rows: The questions.
        by_layer: Parameter names of each block.
    """

    diagonal: dict[str, Tensor]
    traces: Float[np.ndarray, "rows layers"]
    layers: list[int]
    rows: Forced
    by_layer: Mapping[int, Sequence[str]] = field(default_factory=dict)

    def histogram(self) -> Float[np.ndarray, "layers bins"]:
        """Share of each block's weights by power of ten of their Fisher information, see `BINS`."""
        out = np.zeros((len(self.layers), len(BINS)))
        edges = np.concatenate([BINS, [BINS[-1] + 1]])
        for i, layer in enumerate(self.layers):
            for name in self.by_layer[layer]:
                logs = self.diagonal[name].flatten().clamp_min(TINY).log10().double().numpy()
                out[i] += np.histogram(np.clip(logs, edges[0], edges[-1]), edges)[0]
        return out / out.sum(1, keepdims=True)


@contextmanager
def _only(module: nn.Module, wanted: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients for some parameters alone; flags are put back."""
    flags = [(p, p.requires_grad) for p in module.parameters()]
    chosen = {id(p) for p in wanted}
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in chosen)
        with torch.enable_grad(), evaluating(module):
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def diagonal_fisher(
    model: HookedModel,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    *,
    step: Callable[[], None] | None = None,
) -> Fisher:
    """Empirical diagonal Fisher information of the answers' log-probability, one question at a time.

    Args:
        model: A language model; its weights and gradients stay as they are.
        prompts: Questions with answers.
        layers: Blocks whose matrices (weights of two or more dimensions) count.
        step: Called after every question.
    """
    by_layer = {i: [(n, p) for n, p in model.layer_parameters([i]) if p.dim() >= 2] for i in layers}
    named = dict(pair for pairs in by_layer.values() for pair in pairs)
    rows = forced(model, prompts)
    total = {name: torch.zeros(p.shape, dtype=torch.float32, device=p.device) for name, p in named.items()}
    traces = np.zeros((len(rows), len(by_layer)))
    with _only(model.module, list(named.values())):
        for index, part in rows.chunks(1):
            logprob = answer_logprobs(model, part.encoded).sum()
            grads = dict(zip(named, torch.autograd.grad(logprob, list(named.values())), strict=True))
            for column, pairs in enumerate(by_layer.values()):
                for name, _ in pairs:
                    square = grads.pop(name).float().square()
                    traces[index.start, column] += float(square.double().sum())
                    total[name] += square
            if step is not None:
                step()
    diagonal = {name: (value / len(rows)).cpu() for name, value in total.items()}
    names = {layer: [n for n, _ in pairs] for layer, pairs in by_layer.items()}
    return Fisher(diagonal, traces, list(by_layer), rows, names)


def fisher_erasure(
    original: Measured, edited: Measured, gold: Measured, share: float = 0.001
) -> tuple[float, int, dict[str, float]]:
    """Fisher erasure over all given weights together.

    Returns:
        The score (NaN where no weight is more sensitive in gold), the number of weights in the mask, and the share of
        the mask that lies in each parameter.
    """
    names = list(original)
    flat = [torch.cat([m[n].flatten().double() for n in names]) for m in (original, edited, gold)]
    gain = (flat[2] - flat[0]).clamp_min(0)
    count = min(max(1, round(share * len(gain))), int((gain > 0).sum()))
    if not count:
        return float("nan"), 0, {}
    top = gain.topk(count).indices
    left = ((flat[2] - flat[1])[top] / gain[top]).clamp(0, 1)
    ends = np.cumsum([original[n].numel() for n in names])
    where = np.bincount(np.searchsorted(ends, top.numpy(), side="right"), minlength=len(names)) / count
    return float(1 - left.mean()), count, {n: float(v) for n, v in zip(names, where, strict=True) if v}


# -- from phases ------------------------------------------------------------------------------------------------------


def fisher_evidence(phases: Phases, config: FisherConfig | None = None, progress: Progress | None = None) -> Found:
    """Change of the squared gradients on forget questions against neighbours', and Fisher erasure with gold.

    Returns:
        ``fisher.trace/forget`` and ``fisher.erasure/<share>``; the histograms by block as a table.
    """
    config = config or FisherConfig()
    task = phases.task
    sets = {
        "forget": pick_prompts(task.forget_heldout.prompts or task.forget_train.prompts, config.max_prompts),
        "neighbours": pick_prompts(task.neighbours.prompts, config.max_prompts),
    }
    sets = {name: prompts for name, prompts in sets.items() if prompts}
    where = f"{config.share:g}"
    if "forget" not in sets:
        reason = "the task asks nothing about the target"
        return Found((absent(TRACE, "forget", reason), absent(ERASURE, where, reason)))
    key = config_hash({**asdict(config), **{k: [p.full for p in v] for k, v in sets.items()}})
    with phases.open(AFTER) as model:
        layers = PatchBackConfig(stride=config.stride).layers(model.lm.n_layers)
        weights = sum(p.numel() for _, p in model.layer_parameters(layers) if p.dim() >= 2)
        rows = {name: forced(model, prompts) for name, prompts in sets.items()}
    keep = GOLD in phases.names and weights <= config.max_weights
    done, total = 0, len(phases.names) * sum(len(r) for r in rows.values())

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("squared gradients of answers (Fisher)", min(done, total), total)

    def measure(model: HookedModel) -> Measured:
        out: dict[str, Tensor] = {}
        for name, prompts in sets.items():
            fisher = diagonal_fisher(model, prompts, layers, step=step)
            out[f"{name}:traces"] = torch.from_numpy(fisher.traces)
            out[f"{name}:histogram"] = torch.from_numpy(fisher.histogram())
            if keep:
                out |= {f"{name}:diagonal:{n}": v for n, v in fisher.diagonal.items()}
        return out

    measured = {p: phases.once(p, f"fisher.{key}.{keep}", measure) for p in (BEFORE, GOLD) if p in phases.names}
    with phases.open(AFTER) as model:
        measured[AFTER] = measure(model)
    measured = {p: measured[p] for p in phases.names}
    tables = {"fisher.histogram": _histograms(measured, list(sets), layers, rows["forget"])}
    out = [_trace(measured, sets, rows, layers, config, phases.seed)]
    why = "" if keep else "there is no gold model"
    if GOLD in phases.names and not keep:
        why = f"{weights} weights are more than max_weights = {config.max_weights}"
    out.append(absent(ERASURE, where, why) if why else _erasure(measured, sets, config, where, len(rows["forget"])))
    return Found(tuple(out), tables)


def _histograms(measured: Mapping[str, Measured], sets: list[str], layers: list[int], rows: Forced) -> Labelled:
    return Labelled(
        "share of weights by Fisher information",
        np.stack([np.stack([m[f"{s}:histogram"].numpy() for s in sets]) for m in measured.values()]),
        (
            Axis("phase", tuple(measured)),
            Axis("set", tuple(sets)),
            Axis("layer", tuple(str(i) for i in layers)),
            Axis("power of ten", tuple(f"{b:g}" for b in BINS)),
        ),
        n=len(rows),
        mask_policy=POLICY,
        note="the lower edge of each bin; zeros are in the lowest",
    )


def _trace(
    measured: Mapping[str, Measured],
    sets: Mapping[str, list[Prompt]],
    rows: Mapping[str, Forced],
    layers: list[int],
    config: FisherConfig,
    seed: int,
) -> Evidence:
    traces = {(p, s): m[f"{s}:traces"].numpy() for p, m in measured.items() for s in sets}
    if not all_finite(traces[AFTER, "forget"]):
        return absent(TRACE, "forget", "the edited model's gradients are not finite; the model is broken")
    logs = {k: np.log10(np.maximum(v, TINY)) for k, v in traces.items()}
    change = {s: logs[AFTER, s] - logs[BEFORE, s] for s in sets}
    each = change["forget"].mean(1)
    clusters = (np.asarray(rows["forget"].facts), np.asarray(rows["forget"].templates))
    facts = {**asdict(config), "layers": layers}
    if GOLD in measured:
        facts["gold"] = float((logs[GOLD, "forget"] - logs[BEFORE, "forget"]).mean())
    curve = Labelled(
        "change of the squared gradients by block",
        np.stack([c.mean(0) for c in change.values()]),
        (Axis("set", tuple(change)), Axis("layer", tuple(str(i) for i in layers))),
        n=len(each),
        mask_policy=POLICY,
        note="powers of ten, mean over questions",
    )
    return found(
        TRACE,
        "forget",
        float(each.mean()),
        n=len(each),
        mask_policy=POLICY,
        interval=mean_interval(each, clusters, numpy_rng(seed, TRACE)),
        control=float(change["neighbours"].mean()) if "neighbours" in change else None,
        details={"layers": curve},
        config=facts,
        seed=seed,
    )


def _erasure(
    measured: Mapping[str, Measured], sets: Mapping[str, list[Prompt]], config: FisherConfig, where: str, n: int
) -> Evidence:
    scores: dict[str, float] = {}
    facts: dict[str, object] = dict(asdict(config))
    for name in sets:
        head = f"{name}:diagonal:"
        parts = [
            {k.removeprefix(head): v for k, v in measured[p].items() if k.startswith(head)}
            for p in (BEFORE, AFTER, GOLD)
        ]
        scores[name], count, places = fisher_erasure(parts[0], parts[1], parts[2], config.share)
        if name == "forget":
            facts |= {"mask": count, "mask_share_by_parameter": places}
    if not np.isfinite(scores["forget"]):
        return absent(ERASURE, where, "no weight is more sensitive in gold than in the original", config=facts)
    control = scores.get("neighbours")
    return found(ERASURE, where, scores["forget"], n=n, mask_policy=POLICY, control=control, config=facts)


def look(phases: Phases, progress: Progress) -> Found:
    """Fisher information with its defaults."""
    return fisher_evidence(phases, FisherConfig(), progress)


register_part(Part("fisher", "squared gradients of answers by block, Fisher erasure with gold", "probe", "full", look))
