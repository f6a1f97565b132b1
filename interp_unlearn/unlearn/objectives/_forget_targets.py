"""What each read of the target is drawn towards and pushed from, fixed before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import ConfigError, DataError, numpy_rng
from interp_unlearn.latents import separation_scores
from interp_unlearn.unlearn.objectives._distances import Distance, distance, median_bandwidth, mmd
from interp_unlearn.unlearn.objectives._reads import Read
from interp_unlearn.unlearn.objectives._spaces import Space

References = tuple[Sequence[Read], Sequence[Mapping[str, Tensor]]]


@dataclass(frozen=True)
class ForgetTargets:
    """References of one space; rows of `known`, `unit` and `goal` are the target's slots (read × position).

    Attributes:
        starts: First slot of each target read, then the number of slots.
        keys: Key (template, position) of each slot.
        coordinates: Latents that D sees, or None for all.
        known: mu_K of each slot.
        goal: Where each slot is drawn to (mu_U or one unknown entity's latents).
        unit: s = D(mu_U, mu_K) of each slot.
        members: Key to latents of all unknown entities there, (entities, m).
        bandwidth: Kernel bandwidth of MMD.
        mmd_unit: MMD between known and unknown references.
        floor: ``toward`` of unknown entities held out in turn.
        s_known: Selected known latents (R-3).
        s_unknown: Selected unknown latents.
        level_known: Mean of each known latent over known reads.
        level_unknown: Mean of each unknown latent over the unknown reads where it fires.
    """

    starts: tuple[int, ...]
    keys: tuple[str, ...]
    coordinates: tuple[int, ...] | None
    known: Float[Tensor, "slots m"]
    goal: Float[Tensor, "slots m"]
    unit: Float[Tensor, " slots"]
    members: Mapping[str, Tensor]
    bandwidth: float
    mmd_unit: float
    floor: float
    s_known: list[int]
    s_unknown: list[int]
    level_known: Float[Tensor, " k"]
    level_unknown: Float[Tensor, " u"]

    def slots_of(self, reads: Sequence[int]) -> list[int]:
        """Slots of the drawn reads, in order."""
        return [slot for r in reads for slot in range(self.starts[r], self.starts[r + 1])]

    def project(self, z: Float[Tensor, "n m"]) -> Float[Tensor, "n j"]:
        """Keep the coordinates that D sees."""
        return z if self.coordinates is None else z[:, list(self.coordinates)]

    def members_at(self, slots: Sequence[int]) -> Float[Tensor, "n j"]:
        """Unknown entities at the keys of ``slots``, each key as often as it is drawn."""
        return torch.cat([self.members[self.keys[s]] for s in slots])


def by_key(space: Space, references: References) -> dict[str, Tensor]:
    """Latents of reference entities by key, (entities, m), entities in the same order under every key."""
    rows: dict[str, list[Tensor]] = {}
    for read, values in zip(*references, strict=True):
        for key, column in read.slots():
            rows.setdefault(key, []).append(values[space.site][column])
    return {key: space.codes(torch.stack(h)) for key, h in rows.items()}


def _select(space: Space, options: Any, known: Tensor, unknown: Tensor) -> tuple[list[int], list[int]]:
    if options.loss != "push" and options.latents == "all":
        return [], []
    one_type = lambda z: ["target's type"] * len(z)  # noqa: E731
    scores = separation_scores(known, unknown, one_type(known), one_type(unknown))
    s_known, s_unknown = list(scores.top_known(options.k)), list(scores.top_unknown(options.k))
    if not s_known and not s_unknown:
        raise ConfigError(
            f"no latent at {space.site} fires at another rate for known than for unknown entities; use latents = "
            "'all' with "
            "loss = 'attract', or an SAE of another layer"
        )
    return s_known, s_unknown


def make_targets(
    space: Space,
    options: Any,
    seed: int,
    target_reads: Sequence[Read],
    known_refs: References,
    unknown_refs: References,
) -> ForgetTargets:
    """References of one space.

    Args:
        space: Dictionary and site.
        options: `SAEGuidedOptions`.
        seed: Decides which unknown entity each prompt is paired with.
        target_reads: Reads of the target.
        known_refs: Known reads with their original activations.
        unknown_refs: Unknown reads with theirs, in the same templates.

    Raises:
        DataError: If known and unknown references coincide (s = 0).
    """
    known, unknown = by_key(space, known_refs), by_key(space, unknown_refs)
    all_known, all_unknown = torch.cat(list(known.values())), torch.cat(list(unknown.values()))
    s_known, s_unknown = _select(space, options, all_known, all_unknown)
    level_known = all_known[:, s_known].mean(0)
    fires = all_unknown[:, s_unknown]
    level_unknown = fires.sum(0) / (fires > 1e-6).sum(0).clamp(min=1)
    coordinates = tuple(sorted({*s_known, *s_unknown})) if options.latents == "selected" else None
    if coordinates is not None:
        known = {key: z[:, list(coordinates)] for key, z in known.items()}
        unknown = {key: z[:, list(coordinates)] for key, z in unknown.items()}

    starts, keys = [0], []
    for read in target_reads:
        keys += [key for key, _ in read.slots()]
        starts.append(len(keys))
    pooled_k, pooled_u = torch.cat(list(known.values())).mean(0), torch.cat(list(unknown.values())).mean(0)
    mu_k = {key: z.mean(0) if options.per_template else pooled_k for key, z in known.items()}
    mu_u = {key: z.mean(0) if options.per_template else pooled_u for key, z in unknown.items()}
    mu_known = torch.stack([mu_k[key] for key in keys])
    mu_unknown = torch.stack([mu_u[key] for key in keys])
    unit = distance(mu_unknown, mu_known, options.distance)
    if bool((unit <= 0).any()):
        raise DataError(
            f"known and unknown reference entities have the same mean at {space.site} (s = 0), so there is no "
            "direction to move in; "
            "use other references, or another layer"
        )
    goal = mu_unknown
    if options.target == "sampled":
        goal = torch.stack(_paired_goals(options, seed, target_reads, unknown))
    bandwidth = median_bandwidth(torch.cat([unknown[k] for k in dict.fromkeys(keys)]))
    mmd_unit = 1.0
    if options.target == "mmd":
        mmd_unit = float(mmd(torch.cat([known[k] for k in mu_k]), torch.cat([unknown[k] for k in mu_k]), bandwidth))
    return ForgetTargets(
        tuple(starts),
        tuple(keys),
        coordinates,
        mu_known,
        goal,
        unit,
        unknown,
        bandwidth,
        mmd_unit,
        _floor(options, unknown, dict(zip(keys, unit, strict=True)), bandwidth, mmd_unit),
        s_known,
        s_unknown,
        level_known,
        level_unknown,
    )


def _paired_goals(options: Any, seed: int, reads: Sequence[Read], unknown: Mapping[str, Tensor]) -> list[Tensor]:
    """The latents of one unknown entity per read (all its positions), fixed by seed."""
    n = min(len(z) for z in unknown.values())
    goals = []
    for read in reads:
        purpose = (read.entity,) if options.pairing == "entity" else (read.entity, read.template)
        which = int(numpy_rng(seed, "pairing", *purpose).integers(n))
        goals += [unknown[key][which] for key, _ in read.slots()]
    return goals


def _floor(
    options: Any, unknown: Mapping[str, Tensor], unit: Mapping[str, Tensor], bandwidth: float, mmd_unit: float
) -> float:
    """Mean ``toward`` that an unknown entity has when it plays the target and the others are the reference."""
    keys = [key for key in unknown if key in unit]
    n = min(len(unknown[key]) for key in keys)
    if options.target == "mmd":
        values = []
        for i in range(n):
            others = [j for j in range(n) if j != i]
            one = torch.stack([unknown[key][i] for key in keys])
            values.append(float(mmd(one, torch.cat([unknown[key][others] for key in keys]), bandwidth)) / mmd_unit)
        return sum(values) / n
    kind: Distance = options.distance
    per_key = []
    pooled = torch.cat([unknown[key] for key in keys])
    for key in keys:
        z = unknown[key]
        if options.target == "sampled":
            reference = z.roll(1, 0)
        elif options.per_template:
            reference = (z.sum(0) - z) / (len(z) - 1)
        else:
            reference = pooled.mean(0).expand_as(z)
        per_key.append(float((distance(z, reference, kind) / unit[key]).mean()))
    return sum(per_key) / len(per_key)
