"""Cross-entity readouts: what was learned about reading answers from other entities, applied to the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float

from interp_unlearn._core import numpy_rng
from interp_unlearn.attacks._ask_config import AskConfig
from interp_unlearn.attacks._asked import NEIGHBOURS, Groups, spread
from interp_unlearn.attacks._asking import Asked, Asking, Tell
from interp_unlearn.attacks._protocol import AttackResult, Progress
from interp_unlearn.attacks._recall import UNATTACKED, ask
from interp_unlearn.hooked import HookedModel, answer_ids, capture
from interp_unlearn.probes import fit_linear_probe
from interp_unlearn.worlds import Prompt, Task


@dataclass(frozen=True)
class ReadoutConfig(AskConfig):
    """How readouts are trained.

    Attributes:
        layers: At most so many layers, evenly spaced, the last one included.
        max_train: At most so many questions about retained entities, drawn by the seed evenly over facts.
        held_out: Share of the retained entities that are not trained on: they show what the readouts can do.
        strength: Inverse regularisation of the logistic readout (scikit-learn's C, on standardised features).
        ridges: Regularisations of the ranking readout, in units of the features' mean variance times the rows; which is
            used is decided at each layer on a quarter of the training entities, left out for that.
        min_power: A layer and form counts only where the readout is right on this share of the questions about retained
            entities that were held out from training; elsewhere a hit is luck, and the best of many would be too.
        batch_size: Prompts per forward pass.
    """

    attack: ClassVar[str] = "readout"

    layers: int = 10
    max_train: int = 600
    held_out: float = 0.2
    strength: float = 0.1
    ridges: tuple[float, ...] = (0.1, 10.0, 1e3, 1e6)
    min_power: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.layers >= 1, "layers", "use 1 or more")
        self.require(self.max_train >= 8, "max_train", "use at least 8")
        self.require(0 < self.held_out < 1, "held_out", "it is a share, between 0 and 1")
        self.require(self.strength > 0, "strength", "use a positive number")
        self.require(bool(self.ridges) and all(r > 0 for r in self.ridges), "ridges", "use positive numbers")
        self.require(0 <= self.min_power < 1, "min_power", "it is a share, from 0 to below 1")

    def chosen(self, n_layers: int) -> tuple[int, ...]:
        """The layers that are read."""
        last = n_layers - 1
        return tuple(sorted({round(last * (k + 1) / self.layers) for k in range(self.layers)}))


def fit_ranking(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"], ridge: float
) -> tuple[Float[np.ndarray, "d k"], Float[np.ndarray, " k"]]:
    """Ridge regression with an intercept, in whichever of the two forms is smaller.

    Args:
        x: Features.
        y: What is predicted.
        ridge: Regularisation, in units of ``trace(xᵀx) / d`` of the centred features.

    Returns:
        Weights and intercept.
    """
    mean, middle = x.mean(0), y.mean(0)
    centred, wanted = x - mean, y - middle
    n, d = x.shape
    penalty = ridge * max(float((centred**2).sum()) / d, 1e-12)
    if n < d:
        weight = centred.T @ np.linalg.solve(centred @ centred.T + penalty * np.eye(n), wanted)
    else:
        weight = np.linalg.solve(centred.T @ centred + penalty * np.eye(d), centred.T @ wanted)
    return weight, middle - mean @ weight


class _Vectors:
    """What the output head compares: final-normed states, and answers' unembedding vectors (mean over tokens)."""

    def __init__(self, model: HookedModel) -> None:
        self._model = model
        self._head = model.submodule(model.lm.unembed).weight.detach()  # type: ignore[union-attr]
        self._kept: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def normed(self, states: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """States as the output head sees them: after the final norm."""
        norm = self._model.lm.final_norm
        if norm is None:
            return states
        rows = torch.from_numpy(states).to(self._model.device, self._model.dtype)
        return self._model.submodule(norm)(rows).double().cpu().numpy()

    def __call__(self, answer: str) -> np.ndarray:
        if answer not in self._kept:
            [ids] = answer_ids(self._model.tokenizer, [answer])
            self._kept[answer] = self._head[ids].float().mean(0).cpu().numpy().astype(np.float64)
        return self._kept[answer]


def _last_states(
    model: HookedModel, prompts: Sequence[Prompt], sites: Sequence[str], size: int
) -> Float[np.ndarray, "site n d"]:
    """Residual stream at the last position of each question."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].text))
    out: np.ndarray | None = None
    for start in range(0, len(order), size):
        index = order[start : start + size]
        acts = capture(model, [prompts[i].text for i in index], sites, positions=-1, device="cpu", dtype=torch.float32)
        values = torch.stack([acts[site][:, 0] for site in sites]).numpy().astype(np.float64)
        if out is None:
            out = np.zeros((len(sites), len(prompts), values.shape[2]))
        out[:, index] = values
    assert out is not None
    return out


def _split(task: Task, groups: Groups, config: ReadoutConfig) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """Questions about retained entities to train on, and about other retained entities to see what readouts can do."""
    everything = (*task.retain_train.prompts, *task.neighbours.prompts)
    relations = {p.relation for prompts in groups.values() for p in prompts}
    asked = [p for p in everything if p.relation in relations]
    entities = sorted({p.entity for p in asked})
    order = numpy_rng(config.seed, "readout entities").permutation(len(entities))
    n_held = max(1, round(config.held_out * len(entities))) if len(entities) > 1 else 0
    held = {entities[int(i)] for i in order[:n_held]}
    train = spread([p for p in asked if p.entity not in held], config.max_train, config.seed, "readout")
    test = spread([p for p in asked if p.entity in held], config.max_prompts, config.seed, NEIGHBOURS)
    return train, test


def _options(prompt: Prompt) -> list[str]:
    right = {a.casefold() for a in (prompt.answer, *prompt.also)}
    return [o for o in dict.fromkeys(prompt.options) if o.casefold() not in right]


def _ranked(
    x: Float[np.ndarray, "n d"],
    train: Sequence[Prompt],
    groups: Mapping[str, tuple[np.ndarray, Sequence[Prompt]]],
    vectors: _Vectors,
    ridges: tuple[float, ...],
) -> dict[str, np.ndarray]:
    """Whether the right answer ranks first among the options of each prompt, by group; NaN without options."""
    x = vectors.normed(x)
    y = np.stack([vectors(p.answer) for p in train])
    entities = sorted({p.entity for p in train})
    held = np.isin([p.entity for p in train], entities[::4])
    strength = ridges[0]
    if len(ridges) > 1 and held.any() and not held.all():
        asked = [p for p, out in zip(train, held, strict=True) if out]
        right = []
        for ridge in ridges:
            read = _reader(x[~held], y[~held], ridge)
            hits = _first(read(x[held]), asked, vectors, y[~held].mean(0))
            right.append(0.0 if np.isnan(hits).all() else float(np.nanmean(hits)))
        strength = max(zip(right, ridges, strict=True))[1]  # of equals the strongest
    read = _reader(x, y, strength)
    return {
        name: _first(read(vectors.normed(states)), prompts, vectors, y.mean(0))
        for name, (states, prompts) in groups.items()
    }


def _reader(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], ridge: float
) -> Callable[[Float[np.ndarray, "m d"]], Float[np.ndarray, "m d"]]:
    """From final-normed states to centred answer vectors: the scaled states themselves, and what a ridge adds.

    The scaled states are what the output head would read there (a logit lens).
    """
    mean, middle = x.mean(0), y.mean(0)
    centred = x - mean
    scale = float((centred * (y - middle)).sum()) / max(float((centred**2).sum()), 1e-12)
    scale = scale if scale > 0 else 1e-6
    weight, bias = fit_ranking(x, y - scale * centred, ridge)
    return lambda states: scale * (states - mean) + states @ weight + bias - middle


def _first(
    predicted: Float[np.ndarray, "n d"], prompts: Sequence[Prompt], vectors: _Vectors, middle: Float[np.ndarray, " d"]
) -> Float[np.ndarray, " n"]:
    """Whether the right answer ranks first among the options of each prompt; NaN without options."""
    hits = np.full(len(prompts), np.nan)
    for i, p in enumerate(prompts):
        wrong = _options(p)
        if not wrong:
            continue
        candidates = np.stack([vectors(a) for a in (p.answer, *p.also, *wrong)]) - middle
        score = candidates @ predicted[i] / np.maximum(np.linalg.norm(candidates, axis=1), 1e-12)
        n_right = 1 + len(p.also)
        hits[i] = float(score[:n_right].max() > score[n_right:].max())
    return hits


def _classified(
    x: Float[np.ndarray, "n d"],
    train: Sequence[Prompt],
    groups: Mapping[str, tuple[np.ndarray, Sequence[Prompt]]],
    strength: float,
) -> dict[str, np.ndarray]:
    """Whether the logistic readout of a relation names the right answer; NaN where the answer is no class of it.

    A class is an answer that two or more training entities have.
    """
    out = {name: np.full(len(prompts), np.nan) for name, (_, prompts) in groups.items()}
    for relation in dict.fromkeys(p.relation for p in train):
        owners: dict[str, set[str]] = {}
        for p in train:
            if p.relation == relation:
                owners.setdefault(p.answer, set()).add(p.entity)
        classes = {answer for answer, entities in owners.items() if len(entities) > 1}
        rows = [i for i, p in enumerate(train) if p.relation == relation and p.answer in classes]
        if len(classes) < 2:
            continue
        probe = fit_linear_probe(x[rows], np.array([train[i].answer for i in rows]), strength=strength)
        for name, (states, prompts) in groups.items():
            asked = [i for i, p in enumerate(prompts) if p.relation == relation and classes & {p.answer, *p.also}]
            if asked:
                said = probe.predict(states[asked])
                out[name][asked] = [
                    float(a in (prompts[i].answer, *prompts[i].also)) for i, a in zip(asked, said, strict=True)
                ]
    return out


def _chance(train: Sequence[Prompt], prompts: Sequence[Prompt]) -> dict[str, float | None]:
    """What guessing would give: one over the options, and the share of the commonest class of each relation."""
    ranks = [(1 + len(p.also)) / (1 + len(p.also) + len(_options(p))) for p in prompts if _options(p)]
    common: dict[str, float] = {}
    for relation in dict.fromkeys(p.relation for p in train):
        answers = [p.answer for p in train if p.relation == relation]
        common[relation] = max(answers.count(a) for a in set(answers)) / len(answers)
    classes = [common[p.relation] for p in prompts if p.relation in common]
    return {
        "rank": float(np.mean(ranks)) if ranks else None,
        "class": float(np.mean(classes)) if classes else None,
    }


def _ask(model: HookedModel, task: Task, groups: Groups, config: ReadoutConfig, tell: Tell) -> Asked:
    train, able = _split(task, groups, config)
    groups = {name: (able if name == NEIGHBOURS and able else prompts) for name, prompts in groups.items()}
    layers = config.chosen(model.lm.n_layers)
    sites = [f"blocks.{layer}.hook_resid_post" for layer in layers]
    labels = [UNATTACKED]
    rows: dict[str, list[np.ndarray]] = {n: [ask(model, p, config.batch_size)[:, 0]] for n, p in groups.items()}
    reasons: dict[str, str] = {}
    states = {name: _last_states(model, p, sites, config.batch_size) for name, p in groups.items()}
    features = _last_states(model, train, sites, config.batch_size) if train else None
    vectors = _Vectors(model)  # unused where the head has none
    for k, layer in enumerate(layers):
        at = {name: (states[name][k], groups[name]) for name in groups}
        finite = features is not None and all(np.isfinite(x).all() for x in (features[k], *(x for x, _ in at.values())))
        for form in ("class", "rank"):
            label = f"{form} blocks.{layer}"
            labels.append(label)
            if features is None or not finite:
                what = (
                    "there are no questions about retained entities"
                    if features is None
                    else "activations are not finite"
                )
                reasons[label] = what
                hits = {name: np.full(len(p), np.nan) for name, p in groups.items()}
            elif form == "rank" and model.lm.logit_scale is None:
                reasons[label] = "the output head is more than a norm and a matrix, so answers have no vectors"
                hits = {name: np.full(len(p), np.nan) for name, p in groups.items()}
            elif form == "rank":
                hits = _ranked(features[k], train, at, vectors, config.ridges)
            else:
                hits = _classified(features[k], train, at, config.strength)
            for name, values in hits.items():
                # A class readout that covers few of the questions speaks for those few only.
                if form == "class" and np.isnan(values).mean() > 0.5:
                    values = np.full(len(values), np.nan)
                    reasons.setdefault(label, "most answers are not had by two or more retained entities")
                rows[name].append(values)
        tell(k + 1, len(layers))
    scores = {
        name: np.stack([np.stack([v, np.full(len(v), np.nan)], axis=1) for v in values])
        for name, values in rows.items()
    }
    power = {
        label: float(np.nanmean(v))
        for label, v in zip(labels, rows.get(NEIGHBOURS, []), strict=False)
        if not np.isnan(v).all()
    }
    counted = [label for label in labels[1:] if not able or power.get(label, 0.0) >= config.min_power]
    tried = [power[label] for label in labels[1:] if label in power]
    if able and tried and not counted:
        why = f"no readout works on retained entities (best {max(tried):.2f}): ask about more of them (n_known)"
        reasons = {"every layer": why}
    facts: dict[str, Any] = {
        "counted": counted,
        "reasons": reasons,
        "chance": _chance(train, groups["target"]),
        "n_train": len(train),
        "train_entities": len({p.entity for p in train}),
    }
    return Asked(tuple(labels), scores, facts, "last token of the question", {NEIGHBOURS: able} if able else {})


READOUT = Asking("readout", "reading answers as other entities' are read", "standard", ReadoutConfig, _ask)


def readout_attack(
    model: HookedModel, task: Task, config: ReadoutConfig | None = None, *, progress: Progress | None = None
) -> AttackResult:
    """Train readouts of the answer on retained entities and apply them to the target's questions.

    At each layer, at the last position of the question, two readouts are trained on the model's own activations:
    ``class``, a logistic regression per relation whose classes are answers of two or more retained entities, and
    ``rank``, a ridge regression onto the answer's unembedding vector, by whose cosine the answer is ranked among the
    question's options. It starts from what the output head would read there and learns what that lacks; it works where
    every entity has an answer of its own, as countries have capitals.

    Args:
        model: The model to attack.
        task: Names the target and holds questions about retained entities.
        config: Settings; default `ReadoutConfig()`.
        progress: Called with what is done, steps done and steps in all.

    Returns:
        ``recovery/readout`` and the curve ``attack.readout``, whose group ``"neighbours"`` are retained entities held
        out from training: what the readouts can do. ``config["chance"]`` is what guessing gives.

    Raises:
        DataError: If there is no question about the target.
    """
    return READOUT(model, task, config, progress=progress)
