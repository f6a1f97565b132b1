"""Which tensors differ between the original and the edited model of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp_unlearn.hooked import HookedModel
from interp_unlearn.probes import Measured, Phases


@dataclass(frozen=True)
class Changed:
    """The tensors that an edit changed, on the CPU.

    Attributes:
        old: Original values by parameter name.
        new: Edited values, same names.
        square_norms: Squared Frobenius norm of every parameter of the original.
    """

    old: Mapping[str, Tensor]
    new: Mapping[str, Tensor]
    square_norms: Mapping[str, float]


def changed_tensors(phases: Phases) -> Changed:
    """Read the tensors that differ, never holding more of the two models than those.

    Where ``phases`` has an attribute ``edited`` (see `Phases`), only the tensors named there are read. Otherwise
    every parameter of the original is remembered by a hash, and those with another hash in the edited model are read.
    """
    given: Mapping[str, Tensor] | None = getattr(phases, "edited", None)
    if given is None:
        hashes = phases.once("before", "weights.hashes", weight_hashes)
        with phases.open("after") as model:
            new = {
                name: p.detach().to("cpu", copy=True)
                for name, p in model.module.named_parameters()
                if name not in hashes or not torch.equal(hashes[name], _hash(p))
            }
    else:
        new = {name: value.detach().cpu() for name, value in given.items()}
    with phases.open("before") as model:
        parameters = dict(model.module.named_parameters())
        norms = {name: float(p.detach().float().norm()) ** 2 for name, p in parameters.items()}
        old = {
            name: parameters[name].detach().to("cpu", copy=True)
            for name, value in new.items()
            if not torch.equal(parameters[name].detach().cpu(), value.to(parameters[name].dtype))
        }
    return Changed(old, {name: new[name] for name in old}, norms)


def weight_hashes(model: HookedModel) -> Measured:
    """A 128-bit hash of every parameter, (16,) bytes each."""
    return {name: _hash(p) for name, p in model.module.named_parameters()}


def _hash(value: Tensor) -> Tensor:
    data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return torch.from_numpy(np.frombuffer(hashlib.blake2b(data.data, digest_size=16).digest(), dtype=np.uint8).copy())
