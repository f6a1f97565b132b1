"""Layer stitching: the original's upper layers read what the edited model's lower layers still hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import DataError, Evidence, Labelled, config_hash
from interp_unlearn.attacks._ask_config import AskConfig
from interp_unlearn.attacks._asked import NEIGHBOURS, NEVER_KNOWN, TARGET, Groups, groups_of, spread
from interp_unlearn.attacks._catalogue import evidence, missing
from interp_unlearn.attacks._protocol import AttackResult, Progress
from interp_unlearn.attacks._recall import (
    UNATTACKED,
    ask,
    best_setting,
    by_setting,
    curve_of,
    recall_interval,
    recall_table,
)
from interp_unlearn.attacks._recovery import WHY, recovery_evidence
from interp_unlearn.hooked import (
    AnswerBatch,
    HookedModel,
    answer_batch,
    answer_logits,
    capture,
    edit,
    evaluating,
    patch,
)
from interp_unlearn.probes import Found, Part, Phases
from interp_unlearn.worlds import Prompt

States = dict[str, Tensor]
"""Residual streams of every batch at every layer that is stitched, by ``"<batch>.<site>"``."""


@dataclass(frozen=True)
class StitchConfig(AskConfig):
    """Where models are stitched.

    Attributes:
        layers: At most so many layers, evenly spaced, the last one included.
        counted_from: Share of the layers that must come from the edited model for a setting to count as recovery:
            with fewer, the fact may still be made by the original's own layers.
        fitting: Gold serves as the control only if neighbours keep at least this recall when gold's lower layers are
            stitched to the original, relative to gold itself: two separately trained models need not share a basis.
        neighbours: At most so many questions about neighbours.
        batch_size: Rows per forward pass; the states of all rows are held in memory.
    """

    attack: ClassVar[str] = "stitch"

    batch_size: int = 32
    neighbours: int = 16
    layers: int = 8
    counted_from: float = 0.5
    fitting: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.layers >= 1, "layers", "use 1 or more")
        self.require(self.neighbours >= 1, "neighbours", "use 1 or more")
        self.require(0 <= self.counted_from < 1, "counted_from", "it is a share, from 0 to below 1")
        self.require(0 <= self.fitting <= 1, "fitting", "it is a share, from 0 to 1")

    def chosen(self, n_layers: int) -> tuple[int, ...]:
        """The layers after which models are stitched."""
        last = n_layers - 1
        return tuple(sorted({round(last * (k + 1) / self.layers) for k in range(self.layers)} & set(range(n_layers))))


@dataclass(frozen=True)
class _Rows:
    """A group's questions with their right answers, in batches."""

    prompts: tuple[Prompt, ...]
    pairs: tuple[tuple[int, str], ...]
    batches: tuple[AnswerBatch, ...]


def _rows(model: HookedModel, prompts: Sequence[Prompt], size: int) -> _Rows:
    pairs = [(i, a) for i, p in enumerate(prompts) for a in (p.answer, *p.also)]
    pairs.sort(key=lambda pair: len(prompts[pair[0]].text) + len(pair[1]))
    batches = []
    for start in range(0, len(pairs), size):
        chosen = pairs[start : start + size]
        batches.append(answer_batch(model, [prompts[i].text for i, _ in chosen], [a for _, a in chosen]))
    return _Rows(tuple(prompts), tuple(pairs), tuple(batches))


def _states(model: HookedModel, rows: _Rows, sites: Sequence[str]) -> States:
    """Residual streams of all rows at ``sites``, every position, on the CPU."""
    out: States = {}
    for b, encoded in enumerate(rows.batches):
        acts = capture(model, encoded.batch, sites, device="cpu")
        out.update({f"{b}.{site}": acts[site] for site in sites})
    return out


@torch.no_grad()
def _recall(model: HookedModel, rows: _Rows, states: States, sites: Sequence[str]) -> np.ndarray:
    """Scores with the states of another model at each site, (site, prompt, metric)."""
    scores = np.zeros((len(sites), len(rows.prompts), 2))
    for s, site in enumerate(sites):
        start = 0
        for b, encoded in enumerate(rows.batches):
            with evaluating(model.module), edit(model, patch(site, states[f"{b}.{site}"])):
                logits = answer_logits(model, encoded)
            at, columns = encoded.answer.nonzero(as_tuple=True)
            ids = encoded.batch.tokens[at, columns]
            picked = logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(-1)
            n = len(encoded)
            zeros = torch.zeros(n, device=logits.device)
            mean = zeros.index_add(0, at, picked) / zeros.index_add(0, at, torch.ones_like(picked))
            wrong = zeros.index_add(0, at, (logits.argmax(-1) != ids).float())
            right = (wrong == 0) & mean.isfinite()
            for (i, answer), hit, level in zip(
                rows.pairs[start : start + n], right.tolist(), mean.tolist(), strict=True
            ):
                scores[s, i, 0] = max(scores[s, i, 0], float(hit))
                if answer == rows.prompts[i].answer:  # the probability is that of the first right answer, as in `ask`
                    scores[s, i, 1] = float(np.exp(level)) if np.isfinite(level) else 0.0
            start += n
    return scores


class _Stitch:
    """One stitching: the groups, the sites, and the scores as they are made."""

    def __init__(self, phases: Phases, config: StitchConfig) -> None:
        self.phases, self.config = phases, config
        self.why = ""
        self.prompts: Groups = {}
        self.rows: dict[str, _Rows] = {}
        self.sites: tuple[str, ...] = ()
        self.counted: tuple[str, ...] = ()

    def prepare(self, model: HookedModel) -> None:
        """Questions and sites; needs any of the models, since all have one tokenizer and shape."""
        config = self.config
        self.prompts, self.why = groups_of(model, self.phases.task, config.max_prompts, config.seed)
        if NEIGHBOURS in self.prompts:  # they only show whether models fit together
            few = spread(self.prompts[NEIGHBOURS], config.neighbours, config.seed, "stitch")
            self.prompts = {**self.prompts, NEIGHBOURS: few}
        self.rows = {name: _rows(model, prompts, config.batch_size) for name, prompts in self.prompts.items()}
        n = model.lm.n_layers
        layers = config.chosen(n)
        self.sites = tuple(f"blocks.{layer}.hook_resid_post" for layer in layers)
        self.counted = tuple(
            _label(s) for s, layer in zip(self.sites, layers, strict=True) if layer + 1 >= config.counted_from * n
        )

    def states(self, model: HookedModel, groups: Sequence[str]) -> dict[str, States]:
        """States of the groups that exist."""
        return {name: _states(model, self.rows[name], self.sites) for name in groups if name in self.rows}

    def plain(self, model: HookedModel, groups: Sequence[str]) -> dict[str, np.ndarray]:
        """Scores of the model as it is, (1, prompt, metric)."""
        size = self.config.batch_size
        return {name: ask(model, self.prompts[name], size)[None] for name in groups if name in self.rows}

    def recall(self, model: HookedModel, states: Mapping[str, States]) -> dict[str, np.ndarray]:
        """Scores of the model with the states of another one, (site, prompt, metric)."""
        return {name: _recall(model, self.rows[name], of, self.sites) for name, of in states.items()}

    def tables(
        self, plain: Mapping[str, np.ndarray], stitched: Mapping[str, np.ndarray], direction: str
    ) -> dict[str, Labelled]:
        """Recall tables by group."""
        facts: dict[str, Any] = {
            "stitch": self.config.to_dict(),
            "counted": list(self.counted),
            "direction": direction,
            **({WHY: self.why} if self.why else {}),
        }
        return {
            name: recall_table(
                "stitch",
                name,
                (UNATTACKED, *(_label(site) for site in self.sites)),
                np.concatenate([plain[name], scores]),
                self.prompts[name],
                facts,
                seed=self.config.seed,
                note=direction,
            )
            for name, scores in stitched.items()
        }


def _label(site: str) -> str:
    return site.removesuffix(".hook_resid_post")


GROUPS = (TARGET, NEVER_KNOWN, NEIGHBOURS)
LOWER = "layers up to the named one from the edited model, the rest from the original"
UPPER = "layers up to the named one from the original, the rest from the edited model"


def stitch_attack(
    phases: Phases, config: StitchConfig | None = None, *, progress: Progress | None = None
) -> AttackResult:
    """Stitch layers 0…l of the edited model to the original's rest, and the other way round, and ask.

    The residual stream after layer l, at all positions of question and answer, is read from one model and put into the
    other. An intervention on the edited model acts on the layers that come from it.

    Args:
        phases: Original, edited and, where it exists, gold model.
        config: Settings; default `StitchConfig()`.
        progress: Called with what is done, steps done and steps in all.

    Returns:
        ``recovery/stitch`` (edited below, original above; the best layer past ``counted_from``), ``stitch.upper``
        (original below, edited above, in the lower half) and the curves ``attack.stitch`` and ``attack.stitch_upper``.

    Raises:
        DataError: If there is no question about the target.
    """
    config = config or StitchConfig(seed=phases.seed)
    work = _Stitch(phases, config)

    def tell(done: int) -> None:
        if progress is not None:
            progress("stitching layers", done, 4)

    tell(0)
    with phases.open("after") as model:
        work.prepare(model)
        plain_after, states_after = work.plain(model, GROUPS), work.states(model, GROUPS)
    tell(1)
    gold = _gold_lower(phases, work)
    with phases.open("before") as model:
        plain_before, states_before = work.plain(model, (TARGET,)), work.states(model, (TARGET,))
        lower = work.tables(plain_after, work.recall(model, states_after), LOWER)
        gold_lower = None if gold is None else work.tables(gold[0], work.recall(model, gold[1]), LOWER)
    tell(2)
    with phases.open("after") as model:
        upper = work.tables(plain_before, work.recall(model, states_before), UPPER)
    tell(3)
    gold_upper = _gold_upper(phases, work, plain_before, states_before)
    tell(4)
    fits = _fits(gold_lower, work.counted, config.fitting)
    found = recovery_evidence(
        "stitch", lower, gold_lower, counted=work.counted, control_from="" if fits is None or fits else NEVER_KNOWN
    )
    found = replace(found, config={**found.config, "gold_fits": fits})
    curves = {
        "attack.stitch": curve_of({**lower, **_named(gold_lower)}, "stitch"),
        "attack.stitch_upper": curve_of({**upper, **_named(gold_upper)}, "stitch, the other way round"),
    }
    return AttackResult("stitch", (found, _upper_evidence(upper, gold_upper, work)), curves)


def _named(gold: Mapping[str, Labelled] | None) -> dict[str, Labelled]:
    return {f"{name}, gold": table for name, table in (gold or {}).items()}


def _gold_lower(phases: Phases, work: _Stitch) -> tuple[dict[str, np.ndarray], dict[str, States]] | None:
    """Gold's own scores and states; measured once."""
    if "gold" not in phases.names:
        return None
    groups = (TARGET, NEIGHBOURS)

    def measure(model: HookedModel) -> dict[str, Tensor]:
        out = {f"plain/{name}": torch.from_numpy(scores) for name, scores in work.plain(model, groups).items()}
        for name, states in work.states(model, groups).items():
            out |= {f"{name}/{key}": value for key, value in states.items()}
        return out

    kept = phases.once("gold", f"stitch.states.{config_hash(work.config.to_dict())}", measure)
    plain = {name: kept[f"plain/{name}"].numpy() for name in groups if f"plain/{name}" in kept}
    states = {
        name: {k.removeprefix(f"{name}/"): v for k, v in kept.items() if k.startswith(f"{name}/")} for name in plain
    }
    return plain, states


def _gold_upper(
    phases: Phases, work: _Stitch, plain: Mapping[str, np.ndarray], states: Mapping[str, States]
) -> dict[str, Labelled] | None:
    """Original below, gold above; measured once."""
    if "gold" not in phases.names:
        return None

    def measure(model: HookedModel) -> dict[str, Tensor]:
        return {TARGET: torch.from_numpy(work.recall(model, states)[TARGET])}

    kept = phases.once("gold", f"stitch.upper.{config_hash(work.config.to_dict())}", measure)
    return work.tables(plain, {TARGET: kept[TARGET].numpy()}, UPPER)


def _fits(gold: Mapping[str, Labelled] | None, counted: Sequence[str], least: float) -> bool | None:
    """Whether the original's upper layers can read gold's lower ones at all; None where that cannot be told."""
    if gold is None or NEIGHBOURS not in gold:
        return None
    table = gold[NEIGHBOURS]
    at = best_setting(table, counted)
    means = by_setting(table)
    return None if at is None else bool(means[0] > 0 and means[at] >= least * means[0])


def _upper_evidence(upper: Mapping[str, Labelled], gold: Mapping[str, Labelled] | None, work: _Stitch) -> Evidence:
    table = upper[TARGET]
    labels = [_label(site) for site in work.sites]
    below = [label for label in labels if label not in work.counted] or labels[:1]
    at = best_setting(table, below)
    if at is None:
        return missing("stitch.upper", "no layer lies in the lower part of the model", seed=work.config.seed)
    control = None if gold is None else float(by_setting(gold[TARGET])[at])
    return evidence(
        "stitch.upper",
        by_setting(table)[at],
        n=table.n,
        interval=recall_interval(table, at, work.config.seed),
        control=control,
        control_name="gold's upper layers"
        if gold is not None
        else f"none: there is no gold model; the original gives {by_setting(table)[0]:.2f}",
        config={"setting": table.axes[0].labels[at], "original": float(by_setting(table)[0])},
        seed=work.config.seed,
    )


def _look(phases: Phases, progress: Progress, config: StitchConfig | None = None) -> Found:
    try:
        result = stitch_attack(phases, replace(config or StitchConfig(), seed=phases.seed), progress=progress)
    except DataError as error:
        return Found((missing("recovery/stitch", str(error), seed=phases.seed),))
    return Found(result.evidence, result.tables)


def stitch_part(config: StitchConfig | None = None) -> Part:
    """The attack as a part of the evidence, with settings of one's own if given."""
    return Part("stitch", "stitching layers", "attack", "standard", lambda p, progress: _look(p, progress, config))
