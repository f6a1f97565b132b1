"""Names: of interchangeable parts, where each can be taken once, and of the values of an option."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, get_args

from interp_unlearn._core._errors import ConfigError, nearest

T = TypeVar("T")


def check_choice(name: str, value: object, kind: Any) -> None:
    """Refuse a value that its ``Literal`` type does not list.

    Args:
        name: What the value is, for the message.
        value: The value.
        kind: The ``Literal``.

    Raises:
        ConfigError: With the nearest and all known values.
    """
    known = [str(v) for v in get_args(kind)]
    if value not in get_args(kind):
        raise ConfigError(f"{name} is {value!r}{nearest(str(value), known)}; use one of {', '.join(known)}")


class Registry(Generic[T]):
    """A map from a name to a part, e.g. objectives by name.

    Example:
        >>> objectives = Registry("objective")
        >>> @objectives.register("ga")
        ... class GradientAscent: ...
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files its argument under ``name``."""

        def add(item: T) -> T:
            if name in self._items:
                raise ConfigError(f"{self.kind} {name!r} is already registered; choose another name")
            self._items[name] = item
            return item

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._items:
            raise ConfigError(
                f"unknown {self.kind} {name!r}{nearest(name, self._items)}; known: {', '.join(sorted(self._items))}"
            )
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def values(self) -> tuple[T, ...]:
        """The parts, in the order in which they were registered."""
        return tuple(self._items.values())

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))
