"""What the settings of all attacks that ask questions share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from interp_unlearn._core import ConfigError, nearest

Config = TypeVar("Config", bound="AskConfig")


@dataclass(frozen=True)
class AskConfig:
    """Base of the settings of attacks that ask the target's questions.

    Attributes:
        max_prompts: At most so many questions of each group (half as many about neighbours), drawn by the seed evenly
            over facts.
        batch_size: Prompts per forward pass.
        seed: Decides the questions, the stand-ins of the control, and whatever else is drawn.
    """

    attack: ClassVar[str] = "attack"

    max_prompts: int = 48
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_prompts", "batch_size"):
            self.require(getattr(self, name) >= 1, name, "it must be at least 1")

    def require(self, ok: bool, field: str, fix: str) -> None:
        """Refuse a value with the sentence that says the fix.

        Raises:
            ConfigError: If not ``ok``.
        """
        if not ok:
            raise ConfigError(f"{self.attack}.{field} is {getattr(self, field)!r}; {fix}")

    @classmethod
    def from_dict(cls: type[Config], data: Mapping[str, Any]) -> Config:
        """Make a config from plain values, e.g. a TOML table or what `to_dict` gave.

        Raises:
            ConfigError: If a field is unknown (the nearest is shown) or impossible.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        for name in data:
            if name not in names:
                raise ConfigError(
                    f"{cls.attack} has no field {name!r}{nearest(name, names)}; fields: {', '.join(names)}"
                )
        return cls(**{k: _frozen(v) for k, v in data.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads back."""
        return dataclasses.asdict(self)


def _frozen(value: Any) -> Any:
    """Lists of a file as the tuples that a frozen config holds."""
    return tuple(_frozen(v) for v in value) if isinstance(value, (list, tuple)) else value
