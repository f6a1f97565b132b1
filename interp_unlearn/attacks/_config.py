"""Settings of the relearning attack."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from interp_unlearn._core import ConfigError, nearest

Pool = Literal["unknown_ref", "unknown_eval"]
Lesson = Literal["target", "neighbours", "text"]
LESSONS: tuple[Lesson, ...] = ("target", "neighbours", "text")


@dataclass(frozen=True)
class RelearnConfig:
    """How to relearn. Target and control get the same number of facts, prompts, steps and the same optimiser.

    Attributes:
        steps: Optimiser steps.
        eval_every: Steps between evaluations; step 0 and the last one are always evaluated.
        learning_rate: Of AdamW (constant); None takes 0.115 / (d_model × trained blocks), see `learning_rate_for`,
            times ``pace`` (and times ten for a LoRA).
        weight_decay: Of AdamW.
        max_grad_norm: Gradients are clipped to this norm.
        batch_size: Prompts per step; if there are fewer, every step sees all of them.
        fact_share: Share of the target's entities (of its facts, if it is one entity) that is relearned; below 1 the
            rest is tested without ever being relearned.
        templates_per_fact: Train templates that a fact is relearned with; None means one, or half of the templates if
            the target is a single entity.
        controls: How many times never-known facts are taught for comparison, each time other ones from the same
            weights; 0 leaves the control out.
        control_entities: Which unknown entities the control uses. ``"unknown_eval"`` were seen by no recipe.
        trainable: ``"upper"`` (all weights of the upper two thirds of the blocks: cheaper than all, and in trials on
            SmolLM2-135M it told hidden from never known more clearly), ``"blocks"`` (of every block),
            ``"all"`` (embeddings too), or a regular expression searched in parameter names.
        max_prompts: At most so many prompts of each test set, drawn by seed.
        teach: ``"target"`` teaches the target's facts; ``"neighbours"`` other entities' (``retain_train``) and
            ``"text"`` general text (``text_train``), with the target tested. What is taught is then no part of the
            control either: target and never-known facts are tested in one run.
        lora_rank: Above 0, the weights stay and a LoRA of this rank on their matrices is trained instead (peft).
        pace: Multiplies the learning rate where none is given.
        text_tokens: Tokens per text, at most, where text is taught.
        seed: Decides the relearned facts and templates, the control's facts, and batches.
    """

    steps: int = 24
    eval_every: int = 4
    learning_rate: float | None = None
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    batch_size: int = 8
    fact_share: float = 1.0
    templates_per_fact: int | None = None
    controls: int = 2
    control_entities: Pool = "unknown_ref"
    trainable: str = "upper"
    max_prompts: int = 48
    seed: int = 0
    teach: Lesson = "target"
    lora_rank: int = 0
    pace: float = 1.0
    text_tokens: int = 64

    def __post_init__(self) -> None:
        for name in ("steps", "eval_every", "batch_size", "max_prompts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"relearn.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "max_grad_norm", "pace"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"relearn.{name} is {value}; use a positive number")
        if self.weight_decay < 0:
            raise ConfigError(f"relearn.weight_decay is {self.weight_decay}; use 0 or a small positive number")
        if not 0 < self.fact_share <= 1:
            raise ConfigError(f"relearn.fact_share is {self.fact_share}; it is a share, above 0 and at most 1")
        if self.templates_per_fact is not None and self.templates_per_fact < 1:
            raise ConfigError(f"relearn.templates_per_fact is {self.templates_per_fact}; leave it out or use 1 or more")
        if self.controls < 0:
            raise ConfigError(f"relearn.controls is {self.controls}; use 0 for no control, or 1 and more")
        if self.control_entities not in ("unknown_ref", "unknown_eval"):
            raise ConfigError(
                f"relearn.control_entities is {self.control_entities!r}; use 'unknown_ref' or 'unknown_eval'"
            )

        if self.teach not in LESSONS:
            raise ConfigError(
                f"relearn.teach is {self.teach!r}{nearest(str(self.teach), LESSONS)}; use one of {', '.join(LESSONS)}"
            )
        if self.teach != "target" and self.fact_share < 1:
            raise ConfigError(
                f"relearn.fact_share is {self.fact_share}, but relearn.teach is {self.teach!r}; leave it at 1"
            )
        if self.lora_rank < 0:
            raise ConfigError(f"relearn.lora_rank is {self.lora_rank}; use 0 for no LoRA, or a rank such as 8")
        if self.text_tokens < 2:
            raise ConfigError(f"relearn.text_tokens is {self.text_tokens}; it must be at least 2")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RelearnConfig:
        """Make a config from plain values, e.g. a TOML table.

        Raises:
            ConfigError: If a field is unknown (the nearest is shown) or impossible.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        for name in data:
            if name not in names:
                raise ConfigError(f"relearn has no field {name!r}{nearest(name, names)}; fields: {', '.join(names)}")
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads back."""
        return dataclasses.asdict(self)
