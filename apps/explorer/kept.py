"""Results that are made once: a page that is shown again, or to another reader, draws nothing anew."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Kept(Generic[T]):
    """The newest results by what they were made from, which is held as long as they are.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[Hashable, tuple[object, T]] = OrderedDict()

    def get(self, source: object, key: Hashable, make: Callable[[], T]) -> T:
        """What was made from ``source`` for ``key``, made now if need be."""
        place = (id(source), key)
        found = self._items.pop(place, None)
        while found is None and len(self._items) >= self._size:  # before the new one is made: both may be large
            self._items.popitem(last=False)
        value = make() if found is None else cast("T", found[1])
        self._items[place] = (source, value)
        return value
