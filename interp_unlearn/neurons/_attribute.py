"""Attribution of an answer to neurons: gradient × activation, integrated gradients, attribution patching.

With ``h`` the activation of a neuron at one position, ``T`` the target (probability of the answer, or its logarithm)
and ``b`` the baseline (zero, or the activation in a corrupted prompt)::

    gradient × activation    A = h dT/dh                         KLUE; one forward and backward for all layers
    attribution patching     A = (h - b) dT/dh
    integrated gradients     A = (h - b) mean_k dT/dh(b + a_k (h - b))      the whole layer is scaled together

Completeness: ``sum A`` over positions and neurons of one layer should equal ``T(clean) - T(layer at its baseline)``;
the difference of the two comes with every result.

Sources: Dai et al. 2022 (arXiv 2104.08696); Yang et al. 2025 (arXiv 2502.19207); Nanda 2023 (attribution patching).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_unlearn._core import Axis, DataError, Labelled, ModelError
from interp_unlearn.hooked import AnswerBatch, HookedModel, answer_batch, gradients_of
from interp_unlearn.hooked._forward import argument_names
from interp_unlearn.neurons._config import AttributionConfig
from interp_unlearn.neurons._passes import Pass, Totals
from interp_unlearn.neurons._result import Attribution
from interp_unlearn.neurons._rows import Rows, counted_tokens, split
from interp_unlearn.neurons._suffix import Joins, Suffix

CACHED = frozenset({"use_cache", "past_key_values", "attention_mask"})


def attribute(
    model: HookedModel,
    prompts: Sequence[str],
    answers: Sequence[str],
    config: AttributionConfig | None = None,
    *,
    corrupted: Sequence[str] | None = None,
) -> Attribution:
    """How much each neuron contributes to each answer.

    Args:
        model: A language model with a tokenizer, read in evaluation mode; weights are not touched.
        prompts: Ending where the answer begins, without trailing space.
        answers: One per prompt; all of its tokens count, teacher-forced.
        config: Method and options; default gradient × activation.
        corrupted: One prompt per prompt with the same number of tokens, whose activations are the baseline (needed for
            attribution patching, optional for integrated gradients, which otherwise start at zero).

    Returns:
        `Attribution` with axes (prompt, layer, neuron) and its completeness.

    Raises:
        DataError: If prompts cannot be scored, a corrupted prompt has another length, or numbers are not finite.
        ModelError: If the site does not exist in every block, or layers differ in width.
    """
    config = config or AttributionConfig()
    encoded = answer_batch(model, prompts, answers)
    baseline = None if corrupted is None else answer_batch(model, corrupted, answers)
    return attribute_batch(model, encoded, config, corrupted=baseline)


def attribute_batch(
    model: HookedModel,
    encoded: AnswerBatch,
    config: AttributionConfig,
    *,
    corrupted: AnswerBatch | None = None,
) -> Attribution:
    """As `attribute`, of a batch of prompts with their answers."""
    _check_corrupted(config, encoded, corrupted)
    sites = config.sites(model.lm.n_layers)
    missing = [site for site in sites if site not in model.sites]
    if missing:
        raise ModelError(f"{model.name} has no site {missing[0]!r}; choose a site that every block has")
    counted = counted_tokens(encoded, config.tokens)
    n, n_layers = len(encoded), len(sites)
    wanted = config.completeness_prompts
    if wanted is None:
        wanted = n if config.method == "integrated_gradients" else 4
    totals: Totals | None = None
    with gradients_of(model.module), torch.enable_grad():
        share = argument_names(model.module) >= CACHED
        trusted = _Trusted(model, sites, None if share else "the module has no key–value cache")
        for rows in split(encoded, counted, config.max_tokens, share):
            suffix = trusted.suffix(rows, gradients=config.method != "integrated_gradients")
            widths = {value.shape[-1] for value in suffix.clean}
            if len(widths) > 1:
                raise ModelError(f"layers of {model.name} have different numbers of neurons: {sorted(widths)}")
            if totals is None:
                layers = n_layers if config.layers == "each" else 1
                zeros = lambda *shape: torch.zeros(shape, dtype=torch.float64)  # noqa: E731
                sums = (zeros(n, layers), zeros(n, layers))
                totals = Totals(zeros(n, n_layers, widths.pop()), *sums, zeros(n))
            _check_finite(suffix.logprob, rows)
            totals.logprob[list(rows.index)] = suffix.logprob.double().cpu()
            base = _baseline(model, sites, suffix.rows, corrupted)
            Pass(suffix, config, base, totals, trusted.joins or "nowhere").all(wanted)
    assert totals is not None
    return _result(model, encoded, config, sites, totals, corrupted is not None, trusted.why or "")


def _check_corrupted(config: AttributionConfig, encoded: AnswerBatch, corrupted: AnswerBatch | None) -> None:
    if config.method == "attribution_patching" and corrupted is None:
        raise DataError("attribution patching compares with corrupted prompts; pass corrupted=[…], one per prompt")
    if corrupted is None:
        return
    if config.method == "gradient_activation":
        raise DataError(
            "gradient × activation has no baseline; use method='attribution_patching' with corrupted prompts"
        )
    if len(encoded) != len(corrupted):
        raise DataError(f"{len(encoded)} prompts but {len(corrupted)} corrupted ones")
    for row, (one, other) in enumerate(zip(encoded.answer, corrupted.answer, strict=True)):
        if one.nonzero().tolist() != other.nonzero().tolist():
            raise DataError(
                f"corrupted prompt {row} has another number of tokens than its prompt, so positions cannot be matched; "
                "choose one of equal length"
            )


def _baseline(
    model: HookedModel, sites: Sequence[str], rows: Rows, corrupted: AnswerBatch | None
) -> list[Tensor | None]:
    """Values of the corrupted prompts at the same positions, by layer; None stands for zero."""
    if corrupted is None:
        return [None] * len(sites)
    start, end = rows.prefix.shape[1], rows.prefix.shape[1] + rows.tokens.shape[1]
    index = torch.tensor(rows.index, device=corrupted.answer.device)
    batch = corrupted.batch
    cut = lambda t: t[index, :end]  # noqa: E731
    whole = Rows(
        rows.index, batch.tokens[index, :0], *map(cut, (batch.tokens, batch.attended, *[corrupted.answer] * 2))
    )
    return [value[:, start:] for value in Suffix(model, whole, sites).clean]


class _Trusted:
    """Prompts ready to be run from their start, as far as this proves right on the first of them.

    Attributes:
        why: Why tokens before the start are run again with the rest; empty if not; None until it has been tried.
        joins: Where rows may join a pass; None until it has been tried.
    """

    def __init__(self, model: HookedModel, sites: Sequence[str], why: str | None) -> None:
        self.model, self.sites, self.why = model, sites, why
        self.joins: Joins | None = None

    def suffix(self, rows: Rows, gradients: bool) -> Suffix:
        """The prompts of ``rows``, from their first token on if the cache is not to be trusted."""
        rows = rows.whole() if self.why else rows
        prefix = rows.prefix.shape[1] > 0
        if self.joins is not None and (self.why is not None or not prefix):
            return Suffix(self.model, rows, self.sites, gradients)
        tried = Suffix(self.model, rows.first() if gradients else rows, self.sites)
        why, self.joins = tried.trial()
        self.why = why if prefix else self.why
        return self.suffix(rows, gradients) if why or gradients else tried


def _check_finite(values: Tensor, rows: Rows) -> None:
    for index, value in zip(rows.index, values.tolist(), strict=True):
        if not math.isfinite(value):
            raise DataError(
                f"the log-probability of the answer of prompt {index} is {value}; check the model's weights for NaN"
            )


def _result(
    model: HookedModel,
    encoded: AnswerBatch,
    config: AttributionConfig,
    sites: Sequence[str],
    totals: Totals,
    corrupted: bool,
    why: str,
) -> Attribution:
    if not bool(totals.scores.isfinite().all()):
        raise DataError("an attribution is not finite; check the model's weights and activations for NaN or overflow")
    if not bool(totals.scores.any()):
        warnings.warn(
            "every attribution is exactly zero: the answer's gradient does not reach a single neuron, so no neuron can "
            "be chosen by it",
            stacklevel=3,
        )
    texts = encoded.batch.texts
    prompts = tuple(texts) if texts is not None else tuple(str(i) for i in range(len(encoded)))
    labels = tuple(f"{i}: {text}" for i, text in enumerate(prompts))
    settings: dict[str, Any] = {f: getattr(config, f) for f in AttributionConfig.__dataclass_fields__}
    settings.update(
        model=model.name,
        baseline="corrupted prompts" if corrupted else "zero",
        prefix=why or "run once",
        logprob=totals.logprob.tolist(),
    )
    about = {"n": len(encoded), "mask_policy": config.tokens, "config": settings}
    neurons = tuple(str(i) for i in range(totals.scores.shape[-1]))
    axes = (Axis("prompt", labels), Axis("layer", tuple(sites)), Axis("neuron", neurons))
    scores = Labelled("neurons.attribution", totals.scores.numpy(), axes, **about)
    rows = sorted(totals.measured)
    both = (totals.attributed[rows], totals.removed[rows])
    values = np.stack([t.numpy() for t in (*both, both[0] - both[1])], -1)
    layers = tuple(sites) if config.layers == "each" else ("all layers",)
    completeness = Labelled(
        "neurons.completeness",
        values,
        (
            Axis("prompt", tuple(labels[r] for r in rows)),
            Axis("layer", layers),
            Axis("quantity", ("attributed", "removed", "gap")),
        ),
        n=len(rows),
        mask_policy=config.tokens,
        config=settings,
        note="attributed: sum over positions and neurons; removed: target clean minus target with the layer at its "
        "baseline at the same positions; gap: their difference",
    )
    return Attribution(scores, completeness)
