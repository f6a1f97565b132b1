"""What an attack is, and attacks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from interp_unlearn._core import ConfigError, Evidence, Labelled, Registry
from interp_unlearn.hooked import HookedModel
from interp_unlearn.worlds import Task

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and how many there are."""


@dataclass(frozen=True)
class AttackResult:
    """What an attack found.

    Attributes:
        name: The attack's registered name.
        evidence: What it shows, with its control.
        tables: The curves and tables behind it, by name, to be saved.
    """

    name: str
    evidence: tuple[Evidence, ...]
    tables: Mapping[str, Labelled] = field(default_factory=dict)


class Attack(Protocol):
    """An attack tries to bring the target back and measures how far it came.

    It is called with a model that it may change while it runs, and leaves it bit for bit as it was (see
    `weights_kept`). It measures the same thing where the answer is known (never-known facts) and reports both.

    Attributes:
        config_type: Frozen dataclass of its settings; ``config_type()`` must be sensible.
    """

    @property
    def config_type(self) -> type: ...

    def __call__(
        self, model: HookedModel, task: Task, config: Any = None, *, progress: Progress | None = None
    ) -> AttackResult:
        """Attack ``model`` for the target of ``task``."""
        ...


attacks: Registry[Attack] = Registry("attack")


def run_attack(
    name: str, model: HookedModel, task: Task, config: Any = None, *, progress: Progress | None = None
) -> AttackResult:
    """Run a registered attack.

    Args:
        name: Registered name, e.g. ``"relearn"``.
        model: The model to attack; its weights are the same before and after.
        task: Names the target and holds the questions.
        config: An instance of the attack's ``config_type``, or None for its defaults.
        progress: Called as the attack goes on.

    Raises:
        ConfigError: If the attack is unknown or the config is another attack's.
    """
    attack = attacks[name]
    if config is not None and not isinstance(config, attack.config_type):
        raise ConfigError(f"attack {name!r} takes a {attack.config_type.__name__}, not a {type(config).__name__}")
    return attack(model, task, config, progress=progress)
