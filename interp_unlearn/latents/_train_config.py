"""`SAETrainConfig`: everything that decides a trained SAE, read from a TOML recipe."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from interp_unlearn._core import ConfigError, check_choice, nearest
from interp_unlearn.hooked import MASK_POLICIES

Architecture = Literal["topk", "batchtopk", "jumprelu"]


@dataclass(frozen=True)
class SAETrainConfig:
    """A recipe for an SAE.

    Attributes:
        site: Where activations are read, e.g. ``"blocks.12.hook_resid_post"``.
        d_sae: Number of latents.
        model: Model to open when activations must be collected.
        architecture: ``"topk"``, ``"batchtopk"`` or ``"jumprelu"``.
        k: Latents on per token (``topk``; the mean over a batch for ``batchtopk``; the target of ``jumprelu``).
        samples: Activations to train on, counting every pass.
        batch_size: Activations per step.
        lr: Peak learning rate of Adam.
        warmup_steps: Steps of linear warm-up.
        decay_share: Last share of the steps over which the rate falls linearly to 2 % of its peak.
        aux_coefficient: Weight of AuxK, which revives dead latents (``topk``, ``batchtopk``).
        dead_window: A latent is dead after so many steps without firing.
        l0_coefficient: Weight of the sparsity loss (``jumprelu``).
        data_init: Share of each initial decoder direction that comes from a random activation (0: none).
        massive_factor: Activations with a norm above so many medians are left out; 0 keeps all.
        sparse_step: Train ``topk`` with sparse gradients (same loss, several times faster on a CPU).
        bf16: Compute large products in bfloat16.
        checkpoint_every: Steps between checkpoints.
        seed: Seed of initialisation and order.
        texts: Text files (globs, relative to the recipe) to collect activations from.
        context: Tokens per text row.
        max_tokens: Stop collecting after so many tokens.
        mask_policy: Which tokens count.
    """

    site: str
    d_sae: int
    model: str = "smollm2-135m"
    architecture: Architecture = "topk"
    k: int = 64
    samples: int = 2_000_000
    batch_size: int = 2048
    lr: float = 1e-3
    warmup_steps: int = 50
    decay_share: float = 0.6
    aux_coefficient: float = 1 / 32
    dead_window: int = 150
    l0_coefficient: float = 1.0
    data_init: float = 0.5
    massive_factor: float = 10.0
    sparse_step: bool = True
    bf16: bool = False
    checkpoint_every: int = 200
    seed: int = 0
    texts: tuple[str, ...] = ()
    context: int = 128
    max_tokens: int = 2_000_000
    mask_policy: str = "inner"

    def __post_init__(self) -> None:
        check_choice("architecture", self.architecture, Architecture)
        if not self.site:
            raise ConfigError("site is empty; name where to read, e.g. site = 'blocks.12.hook_resid_post'")
        for name in ("d_sae", "k", "samples", "batch_size", "dead_window", "checkpoint_every", "context", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.k > self.d_sae:
            raise ConfigError(f"k = {self.k} is more than d_sae = {self.d_sae}; lower k or widen the SAE")
        if self.samples < self.batch_size:
            raise ConfigError(f"samples = {self.samples} is less than one batch of {self.batch_size}; raise samples")
        if not 0 < self.lr < 1:
            raise ConfigError(f"lr must lie between 0 and 1, got {self.lr}; 1e-3 is a good start")
        for name in ("decay_share", "data_init"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a share between 0 and 1, got {getattr(self, name)}")
        for name in ("warmup_steps", "aux_coefficient", "l0_coefficient", "massive_factor"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.mask_policy not in MASK_POLICIES:
            raise ConfigError(f"mask_policy {self.mask_policy!r} is not one of {', '.join(MASK_POLICIES)}")

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.samples // self.batch_size

    def lr_at(self, step: int) -> float:
        """Learning rate of step ``step`` (from 0): a function of the step alone, so resuming needs no scheduler."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        start = (1 - self.decay_share) * self.steps
        left = 1.0 if step < start or not self.decay_share else (self.steps - step) / (self.decay_share * self.steps)
        return self.lr * warm * max(0.02, min(1.0, left))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "texts": list(self.texts)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SAETrainConfig:
        """Read a mapping; an unknown or missing field is an error that names it.

        Raises:
            ConfigError: If a field is unknown, missing, of the wrong type or impossible.
        """
        known = {f.name: f for f in fields(cls)}
        for name in data:
            if name not in known:
                raise ConfigError(f"unknown field {name!r} in the SAE recipe{nearest(name, known)}")
        for name in ("site", "d_sae"):
            if name not in data:
                raise ConfigError(f"the SAE recipe lacks {name!r}")
        values: dict[str, Any] = {}
        value: Any
        for name, value in data.items():
            wanted = str(known[name].type)
            right = {
                "int": isinstance(value, int) and not isinstance(value, bool),
                "float": isinstance(value, (int, float)) and not isinstance(value, bool),
                "bool": isinstance(value, bool),
                "tuple[str, ...]": isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value),
            }.get(wanted, isinstance(value, str))
            if not right:
                raise ConfigError(f"{name} must be of type {wanted}, got {value!r}")
            values[name] = _as(wanted, value)
        return cls(**values)

    @classmethod
    def from_toml(cls, path: str | Path) -> SAETrainConfig:
        """Read a recipe file, its fields at the top level or under ``[sae]``.

        Raises:
            ConfigError: If the file is missing, not TOML, or has a bad field.
        """
        path = Path(path)
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError as error:
            raise ConfigError(f"{path} does not exist; give a recipe such as saes/smollm2-135m-l12.toml") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
        return cls.from_dict(data.get("sae", data))


def _as(wanted: str, value: Any) -> Any:
    if wanted == "float":
        return float(value)
    return tuple(value) if wanted.startswith("tuple") else value
