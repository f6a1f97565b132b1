"""`Intervention`: an edit that lives beside the weights, is saved in a run folder, and is applied while a model runs.

Some methods change no weight: they clamp latents, steer, or answer with a refusal when a gate opens. What they leave
behind is an intervention. It is applied as a context manager, so that everything which measures a model (capture,
scoring, generation, attacks) measures the edited one inside the block and the bare one after it.

Example:
    >>> with load_intervention("runs/japan").applied(model):
    ...     model.generate("The capital of Japan is")
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from interp_unlearn._core import (
    FileFormatError,
    ModelError,
    Registry,
    __version__,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from interp_unlearn.hooked._model import HookedModel

FACTS, TENSORS = "intervention.json", "intervention.safetensors"


class Intervention(ABC):
    """Base of edits at inference time.

    A subclass is registered under its ``kind`` in `INTERVENTIONS`, says what is saved, and builds itself from that.
    """

    kind: ClassVar[str]

    @abstractmethod
    def applied(self, model: HookedModel) -> AbstractContextManager[HookedModel]:
        """Edit every forward pass inside the block; the module is as before afterwards, whatever happens inside."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What is saved as JSON."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What is saved as safetensors."""

    @classmethod
    @abstractmethod
    def from_parts(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Intervention:
        """Make it from what `facts` and `tensors` returned."""


INTERVENTIONS: Registry[type[Intervention]] = Registry("intervention")


class Together(Intervention):
    """Several interventions, applied one inside the other.

    Attributes:
        parts: The first is the outermost.
    """

    kind: ClassVar[str] = "together"

    def __init__(self, parts: Sequence[Intervention]) -> None:
        self.parts = tuple(parts)

    @contextmanager
    def applied(self, model: HookedModel) -> Iterator[HookedModel]:
        """All of them inside the block."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.applied(model))
            yield model

    def facts(self) -> dict[str, Any]:
        """Kind and facts of each part."""
        return {"parts": [{"kind": part.kind, "facts": part.facts()} for part in self.parts]}

    def tensors(self) -> dict[str, Tensor]:
        """Tensors of each part, under its number."""
        return {f"{i}/{name}": t for i, part in enumerate(self.parts) for name, t in part.tensors().items()}

    @classmethod
    def from_parts(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Together:
        """Make each part."""
        found = []
        for i, part in enumerate(facts["parts"]):
            own = {name.removeprefix(f"{i}/"): t for name, t in tensors.items() if name.startswith(f"{i}/")}
            found.append(INTERVENTIONS[part["kind"]].from_parts(part["facts"], own))
        return cls(found)


INTERVENTIONS.register(Together.kind)(Together)


def together(*parts: Intervention | None) -> Intervention | None:
    """Those that exist as one, or None."""
    found = [part for part in parts if part is not None]
    return found[0] if len(found) == 1 else Together(found) if found else None


def save_intervention(folder: str | Path, intervention: Intervention) -> None:
    """Write ``intervention.safetensors``, then ``intervention.json``, which makes it exist."""
    folder = Path(folder)
    write_tensors(folder / TENSORS, intervention.tensors())
    facts = {"kind": intervention.kind, "version": __version__, "facts": intervention.facts()}
    write_json(folder / FACTS, facts)


def load_intervention(folder: str | Path) -> Intervention:
    """Read what `save_intervention` wrote, e.g. in a run folder.

    Raises:
        FileFormatError: If there is none, a file is damaged, or a part is missing.
        ConfigError: If this version knows no intervention of that kind.
    """
    folder = Path(folder)
    if not (folder / FACTS).exists():
        raise FileFormatError(f"{folder} holds no intervention ({FACTS}); was the model edited through its weights?")
    data = read_json(folder / FACTS)
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        raise FileFormatError(f"{folder / FACTS} does not hold an intervention")
    try:
        return INTERVENTIONS[data["kind"]].from_parts(data["facts"], read_tensors(folder / TENSORS))
    except KeyError as error:
        raise FileFormatError(f"the intervention in {folder} lacks {error}; make the run again") from error


@contextmanager
def whole_sequences(model: HookedModel) -> Iterator[HookedModel]:
    """No key–value cache inside the block, so that each pass shows whole sequences (generation becomes slower).

    For interventions that decide by looking at all tokens of a sequence.

    Raises:
        ModelError: From a pass inside the block that brings a filled cache of its own.
    """
    settings: Any = getattr(model.module, "generation_config", None)
    has_setting = hasattr(settings, "use_cache")
    cached = settings.use_cache if has_setting else None

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache = kwargs.get("past_key_values")
        if cache is not None and not (hasattr(cache, "get_seq_length") and cache.get_seq_length() == 0):
            raise ModelError(
                "this intervention looks at whole sequences, but a pass came with a filled key–value cache; "
                "run it with use_cache=False"
            )
        return args, {**kwargs, **({"use_cache": False} if "use_cache" in kwargs else {})}

    handle = model.module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        if has_setting:
            settings.use_cache = False
        yield model
    finally:
        handle.remove()
        if has_setting:
            settings.use_cache = cached
