"""Versioned objects and the history of their changes: what etcd and the watch cache hold."""

import asyncio
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from gpu_fraction.sandbox.apiserver.failures import expired
from gpu_fraction.sandbox.apiserver.kinds import Kind

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name."""

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]

HISTORY: Final = 10_000
"""Changes kept for watches before the oldest are compacted. Chosen: more than a test makes."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of an object. The body is never changed in place.

    Attributes:
        revision: of the write that made it.
        body: the object.
        encoded: the object as JSON.
    """

    revision: int
    body: Object
    encoded: bytes

    def copy(self) -> Object:
        """A body that may be changed."""
        copied: Object = msgspec.json.decode(self.encoded)
        return copied


@dataclass(frozen=True, slots=True)
class Change:
    """One write.

    Attributes:
        type: what it did.
        qualified: resource of the object.
        old: the version before, if there was one.
        new: the version after; of a deletion the last state, under the deletion's revision.
    """

    type: ChangeType
    qualified: str
    key: Key
    old: Stored | None
    new: Stored

    @property
    def revision(self) -> int:
        """Of the write."""
        return self.new.revision


class Storage:
    """All objects of the server. Methods do not await, so each is one transaction."""

    def __init__(self, *, history: int = HISTORY) -> None:
        """An empty storage that keeps so many changes."""
        self.revision = 1
        self._objects: dict[str, dict[Key, Stored]] = {}
        self._changes: list[Change] = []
        self._compacted = 0
        self._history = history
        self._changed = asyncio.Event()

    def get(self, kind: Kind, key: Key) -> Stored | None:
        """The current version of an object."""
        return self._objects.get(kind.resource.qualified, {}).get(key)

    def put(self, kind: Kind, key: Key, body: Object) -> Stored:
        """Write an object; its resourceVersion is set here."""
        old = self.get(kind, key)
        stored = self._version(body)
        self._objects.setdefault(kind.resource.qualified, {})[key] = stored
        self._note("MODIFIED" if old else "ADDED", kind, key, old, stored)
        return stored

    def delete(self, kind: Kind, key: Key) -> Stored:
        """Remove an object and answer its last state, as of the deletion."""
        old = self._objects[kind.resource.qualified].pop(key)
        stored = self._version(old.copy())
        self._note("DELETED", kind, key, old, stored)
        return stored

    def snapshot(self, kind: Kind, revision: int | None = None) -> dict[Key, Stored]:
        """All objects of a kind, now or as of a revision.

        Raises:
            ApiFailure: 410 where the revision is compacted.
        """
        objects = dict(self._objects.get(kind.resource.qualified, {}))
        if revision is None or revision >= self.revision:
            return objects
        for change in reversed(self.since(revision)):
            if change.qualified != kind.resource.qualified:
                continue
            if change.old is None:
                del objects[change.key]
            else:
                objects[change.key] = change.old
        return objects

    def since(self, revision: int) -> list[Change]:
        """The changes after a revision.

        Raises:
            ApiFailure: 410 where some of them are compacted.
        """
        if revision < self._compacted:
            raise expired(f"too old resource version: {revision} ({self._compacted})")
        return self._changes[bisect_right(self._changes, revision, key=_revision_of) :]

    async def wait(self) -> None:
        """Return after the next change."""
        await self._changed.wait()

    def compact(self, revision: int | None = None) -> None:
        """Forget the changes up to a revision, by default all."""
        self._compacted = self.revision if revision is None else revision
        self._changes = self._changes[
            bisect_right(self._changes, self._compacted, key=_revision_of) :
        ]

    def _version(self, body: Object) -> Stored:
        self.revision += 1
        metadata = {**body["metadata"], "resourceVersion": str(self.revision)}
        # First, so that a list can cut them off the encoded object.
        kind = {"apiVersion": body["apiVersion"], "kind": body["kind"]}
        versioned = {**kind, **body, "metadata": metadata}
        return Stored(self.revision, versioned, msgspec.json.encode(versioned))

    def _note(
        self, what: ChangeType, kind: Kind, key: Key, old: Stored | None, new: Stored
    ) -> None:
        self._changes.append(Change(what, kind.resource.qualified, key, old, new))
        if len(self._changes) > 2 * self._history:
            self.compact(self._changes[self._history].revision)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _revision_of(change: Change) -> int:
    return change.revision
