"""A memory of bounded size: what was used least recently goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """Values by key that together hold at most `limit` bytes.

    Args:
        limit: bytes, at least 0.
        size: bytes of a value with its key.
    """

    def __init__(self, limit: int, size: Callable[[K, V], int]) -> None:
        self._limit, self._size = limit, size
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: K) -> bool:
        return key in self._values

    @property
    def limit(self) -> int:
        """Bytes that are held at most."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._shrink()

    def get(self, key: K) -> V | None:
        """The value, which then was used last; None where there is none."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V) -> V:
        """Keep a value, unless it alone is over the limit; gives it back."""
        size = self._size(key, value)
        self.drop(key)
        if size <= self._limit:
            self._values[key] = (value, size)
            self.bytes += size
            self._shrink()
        return value

    def drop(self, key: K) -> None:
        """Forget a value, if it is there."""
        old = self._values.pop(key, None)
        self.bytes -= old[1] if old else 0

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self.bytes = 0

    def keys(self) -> list[K]:
        """Keys, those used last at the end."""
        return list(self._values)

    def _shrink(self) -> None:
        while self.bytes > self._limit:
            _, (_, size) = self._values.popitem(last=False)
            self.bytes -= size
