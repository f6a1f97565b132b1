"""Call a module the way it wants to be called: which arguments a language model takes, and in which mode it runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from interp_unlearn._core import DataError
from interp_unlearn.hooked._batch import Batch


def argument_names(module: nn.Module) -> frozenset[str]:
    """Names that ``module.forward`` accepts, looking through wrappers that pass keywords on (PEFT)."""
    names: set[str] = set()
    current: Any = module
    while isinstance(current, nn.Module):
        parameters = inspect.signature(current.forward).parameters
        names.update(parameters)
        passes_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        inner = getattr(current, "get_base_model", None) if passes_on else None
        base = inner() if callable(inner) else None
        current = base if base is not current else None
    return frozenset(names)


def run_language_model(module: nn.Module, batch: Batch, names: frozenset[str] | None = None) -> Any:
    """Logits of one forward pass, (batch, position, vocabulary).

    Args:
        module: A decoder that takes token ids.
        batch: On the module's device.
        names: Result of `argument_names`, when it is called often.

    Raises:
        DataError: If the batch has padding that the module has no way to be told about.
    """
    names = argument_names(module) if names is None else names
    kwargs: dict[str, Any] = {}
    if "attention_mask" in names:
        kwargs["attention_mask"] = batch.attended.long()
    if batch.padded_inside_or_left():
        if "attention_mask" not in names:
            raise DataError("this model takes no attention_mask, so it cannot read left-padded rows; pad on the right")
        if "position_ids" in names:
            kwargs["position_ids"] = batch.position_ids()
    if "use_cache" in names:
        kwargs["use_cache"] = False
    output = module(input_ids=batch.tokens, **kwargs) if "input_ids" in names else module(batch.tokens, **kwargs)
    return output.logits if hasattr(output, "logits") else output


def input_device(module: nn.Module) -> torch.device:
    """Where inputs belong: the device of the first parameter, or the execution device where weights are offloaded."""
    for parameter in module.parameters():
        if parameter.device.type != "meta":
            return parameter.device
    for child in module.modules():
        where = getattr(getattr(child, "_hf_hook", None), "execution_device", None)
        if where is not None:
            return torch.device(where)
    return torch.device("cpu")


@contextmanager
def gradients_of(module: nn.Module, trained: Iterable[nn.Parameter] = ()) -> Iterator[None]:
    """Evaluation mode and gradients for ``trained`` alone; flags and modes are put back afterwards."""
    flags = {p: p.requires_grad for p in module.parameters()}
    wanted = set(trained)
    try:
        for parameter in flags:
            parameter.requires_grad_(parameter in wanted)
        with evaluating(module):
            yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout, batch-norm statistics untouched); every submodule gets its own mode back."""
    training = [m for m in module.modules() if m.training]  # a child may train where the root does not
    for m in training:
        m.training = False
    try:
        yield
    finally:
        for m in training:
            m.training = True
