"""Objects as last seen, by name and by indexes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from gpu_fraction.kube.objects import HasMeta, Key, key_of

T = TypeVar("T", bound=HasMeta)

IndexFunction = Callable[[T], Iterable[str]]
"""Returns the index values of an object; pure and cheap."""


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One object appeared (``old`` is None), changed, or vanished (``new`` is None)."""

    old: T | None
    new: T | None


class Store(Generic[T]):
    """A dictionary of objects with indexes that follow every change.

    Only the owner calls :meth:`put`, :meth:`remove` and :meth:`replace`. No method awaits, so a
    reader between two awaits sees one state.
    """

    def __init__(self, indexes: Mapping[str, IndexFunction[T]] | None = None) -> None:
        """An empty store.

        Args:
            indexes: name of each index and its function.
        """
        self._objects: dict[Key, T] = {}
        self._functions = dict(indexes or {})
        self._indexes: dict[str, dict[str, set[Key]]] = {name: {} for name in self._functions}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[T]:
        return iter(self._objects.values())

    def get(self, name: str, namespace: str = "") -> T | None:
        """The object of that name."""
        return self._objects.get((namespace, name))

    def find(self, index: str, value: str) -> list[T]:
        """The objects that an index lists under a value, in no particular order.

        Raises:
            KeyError: there is no such index.
        """
        return [self._objects[key] for key in self._indexes[index].get(value, ())]

    def put(self, obj: T) -> list[Change[T]]:
        """Store an object in place of the one with its name.

        Returns:
            The changes: none where that version is stored already, two where the name now
            belongs to another object.
        """
        key = key_of(obj)
        old = self._objects.get(key)
        if old is None:
            self._insert(key, obj)
            return [Change(None, obj)]
        if old.metadata.uid != obj.metadata.uid:
            self._drop(key, old)
            self._insert(key, obj)
            return [Change(old, None), Change(None, obj)]
        if old.metadata.resource_version == obj.metadata.resource_version:
            return []
        self._drop(key, old)
        self._insert(key, obj)
        return [Change(old, obj)]

    def remove(self, key: Key, last: T | None = None) -> list[Change[T]]:
        """Forget an object.

        Args:
            key: namespace and name.
            last: its final state; None where that is unknown.
        """
        old = self._objects.get(key)
        if old is None:
            return []
        self._drop(key, old)
        return [Change(last or old, None)]

    def replace(self, objects: Iterable[T], keep: Iterable[Key] = ()) -> Iterator[Change[T]]:
        """Make the store hold only these objects; yields each change when it is made.

        Args:
            objects: everything that exists.
            keep: names of objects that could not be read; their stored versions stay.
        """
        gone = self._objects.keys() - set(keep)
        for obj in objects:
            gone.discard(key_of(obj))
            yield from self.put(obj)
        for key in gone:
            yield from self.remove(key)

    def _insert(self, key: Key, obj: T) -> None:
        self._objects[key] = obj
        for name, function in self._functions.items():
            index = self._indexes[name]
            for value in function(obj):
                index.setdefault(value, set()).add(key)

    def _drop(self, key: Key, obj: T) -> None:
        del self._objects[key]
        for name, function in self._functions.items():
            index = self._indexes[name]
            for value in function(obj):
                keys = index.get(value)
                if keys is not None:
                    keys.discard(key)
                    if not keys:
                        del index[value]
