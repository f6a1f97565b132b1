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
    """The floating-point tensors that an edit changed, on the CPU.

    Attributes:
        old: Original values by name of the parameter or saved buffer.
        new: Edited values, same names.
        square_norms: Squared Frobenius norm of every such tensor of the original.
    """

    old: Mapping[str, Tensor]
    new: Mapping[str, Tensor]
    square_norms: Mapping[str, float]


def changed_tensors(phases: Phases) -> Changed:
    """Read the tensors that differ, never holding more of the two models than those.

    Where ``phases`` has an attribute ``edited`` (see `Phases`), only the tensors named there are read. Otherwise
    every tensor of the original is remembered by a hash, and those with another hash in the edited model are read.
    """
    given: Mapping[str, Tensor] | None = getattr(phases, "edited", None)
    if given is None:
        hashes = phases.once("before", "weights.hashes", weight_hashes)
        with phases.open("after") as model:
            new = {
                name: p.detach().to("cpu", copy=True)
                for name, p in _floating(model).items()
                if name not in hashes or not torch.equal(hashes[name], _hash(p))
            }
    else:
        new = {name: value.detach().cpu() for name, value in given.items() if value.is_floating_point()}
    with phases.open("before") as model:
        tensors = _floating(model)
        norms = {name: float(p.detach().float().norm()) ** 2 for name, p in tensors.items()}
        old = {
            name: tensors[name].detach().to("cpu", copy=True)
            for name, value in new.items()
            if not torch.equal(tensors[name].detach().cpu(), value.to(tensors[name].dtype))
        }
    return Changed(old, {name: new[name] for name in old}, norms)


def weight_hashes(model: HookedModel) -> Measured:
    """A 128-bit hash of every floating-point parameter and saved buffer, (16,) bytes each."""
    return {name: _hash(p) for name, p in _floating(model).items()}


def _floating(model: HookedModel) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.tensors().items() if tensor.is_floating_point()}


def _hash(value: Tensor) -> Tensor:
    data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return torch.from_numpy(np.frombuffer(hashlib.blake2b(data.data, digest_size=16).digest(), dtype=np.uint8).copy())
