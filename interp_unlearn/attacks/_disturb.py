"""Ask under disturbed weights: the harness of quantisation, noise and pruning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from interp_unlearn._core import ConfigError
from interp_unlearn.attacks._asked import Groups
from interp_unlearn.attacks._asking import Tell
from interp_unlearn.attacks._guard import select_weights, weights_kept
from interp_unlearn.attacks._recall import UNATTACKED, ask
from interp_unlearn.hooked import HookedModel

Disturb = Callable[[str, Tensor], Tensor]
"""New values of one weight matrix, given its name and its values as (output, input)."""


def matrices(model: HookedModel, which: str) -> dict[str, tuple[nn.Parameter, bool]]:
    """Weight matrices chosen by ``which`` (see `select_weights`), and whether each is stored as (input, output).

    Embeddings and the output head are left out unless ``which`` is a regular expression, vectors always.

    Raises:
        ConfigError: If no matrix is chosen.
    """
    chosen = select_weights(model, which)
    skipped = {model.lm.embed, model.lm.unembed} if which == "all" else set()
    found = {}
    for name, parameter in chosen.items():
        path = name.rpartition(".")[0]
        if parameter.dim() >= 2 and path not in skipped:
            found[name] = parameter, type(model.submodule(path)).__name__ == "Conv1D"
    if not found:
        raise ConfigError(f"weights {which!r} chooses no weight matrix of {model.name}; use 'blocks', 'upper' or 'all'")
    return found


def ask_disturbed(
    model: HookedModel,
    groups: Groups,
    which: str,
    settings: Sequence[tuple[str, Sequence[Disturb]]],
    batch_size: int,
    tell: Tell,
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Scores of every group without and with each disturbance; weights are bit for bit as before afterwards.

    Args:
        model: Asked; its weights move in between.
        groups: The questions.
        which: Weights that are disturbed.
        settings: A label and one or more disturbances, whose scores are averaged.
        batch_size: Prompts per forward pass.
        tell: Told of the progress.

    Returns:
        Labels, ``"none"`` first, and (setting, prompt, metric) scores by group.
    """
    chosen = matrices(model, which)
    weights = {name: parameter for name, (parameter, _) in chosen.items()}
    rows: dict[str, list[np.ndarray]] = {name: [ask(model, p, batch_size)] for name, p in groups.items()}
    done, total = 0, sum(len(disturbances) for _, disturbances in settings)
    with weights_kept(model, weights):
        originals = {name: parameter.detach().clone() for name, parameter in weights.items()}
        for _, disturbances in settings:
            drawn: dict[str, list[np.ndarray]] = {name: [] for name in groups}
            for disturb in disturbances:
                _apply(chosen, originals, disturb)
                for name, prompts in groups.items():
                    drawn[name].append(ask(model, prompts, batch_size))
                done += 1
                tell(done, total)
            for name, scores in drawn.items():
                rows[name].append(np.mean(scores, axis=0))
    labels = (UNATTACKED, *(label for label, _ in settings))
    return labels, {name: np.stack(scores) for name, scores in rows.items()}


@torch.no_grad()
def _apply(chosen: Mapping[str, tuple[nn.Parameter, bool]], originals: Mapping[str, Tensor], disturb: Disturb) -> None:
    for name, (parameter, transposed) in chosen.items():
        value = originals[name]
        rows = value.transpose(-1, -2) if transposed else value
        new = disturb(name, rows.flatten(0, -2).float()).reshape(rows.shape)
        parameter.copy_(new.transpose(-1, -2) if transposed else new)
