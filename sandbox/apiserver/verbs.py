"""The verbs that change objects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from gpu_fraction.kube import resources
from gpu_fraction.sandbox.apiserver import failures, lifecycle, ownership, pods
from gpu_fraction.sandbox.apiserver.admission import Admission, Review, with_object
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.sandbox.apiserver.ownership import Owner
from gpu_fraction.sandbox.apiserver.routing import Target
from gpu_fraction.sandbox.apiserver.storage import Key, Object, Storage, Stored

TRIES: Final = 8
"""Times a generated name or an overtaken patch is tried again. Source: apiserver
pkg/registry/generic/registry/store.go, maxNameGenerationCreateAttempts."""

_NAMESPACE_KIND: Final = Kind(resources.NAMESPACES)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and how.

    Attributes:
        user: name in admission reviews.
        manager: owner of the fields written.
        dry_run: store nothing.
        force: an apply takes fields from others.
        warnings: collects what webhooks want the caller to read.
    """

    user: str
    manager: str
    dry_run: bool
    force: bool
    warnings: list[str]


Change = Callable[[Object], Object]
"""Makes the wanted object from a copy of the current one."""


class Verbs:
    """Writes to a storage by the rules of the API."""

    def __init__(
        self,
        storage: Storage,
        admission: Admission,
        committed: Callable[[Kind, Stored], None],
    ) -> None:
        """Write to a storage.

        Args:
            storage: holds the objects.
            admission: is asked before every write.
            committed: told of each object created or changed.
        """
        self._storage = storage
        self._admission = admission
        self._committed = committed

    async def create(
        self, target: Target, body: Object, caller: Caller, applied_by: Owner | None = None
    ) -> Object:
        """Create an object.

        Args:
            target: the collection.
            body: the object.
            caller: who asks.
            applied_by: where it is created by an apply, the manager with its fields.
        """
        kind = target.kind
        for _ in range(TRIES):
            obj = lifecycle.default(kind, body, target.namespace)
            name = obj["metadata"].get("name", "")
            if kind.resource.namespaced:
                namespace = self._storage.get(_NAMESPACE_KIND, ("", target.namespace))
                lifecycle.check_namespace(
                    kind, name, namespace.body if namespace else None, target.namespace
                )
            review = self._review("CREATE", target, obj, None, caller)
            mutated = await self._admission.mutate(review)
            obj = lifecycle.identify(kind, mutated or obj, datetime.now(UTC))
            if applied_by is None:
                ownership.note_update(kind, None, obj, self._owner(target, caller, "Update"))
            else:
                ownership.set_owners(obj, [applied_by])
            await self._admission.validate(with_object(review, obj))
            key = (target.namespace, obj["metadata"]["name"])
            if self._storage.get(kind, key) is None:
                return self._commit(kind, key, obj, caller)
            if name:
                break
        raise failures.already_exists(kind.resource, key[1])

    async def bind(self, target: Target, body: Object, caller: Caller) -> None:
        """Bind a pod to a node."""
        stored = self._stored(target)
        review = self._review("CREATE", target, body, None, caller)
        review.kind = "Binding"
        await self._admission.mutate(review)
        await self._admission.validate(review)
        stored = self._stored(target)
        bound = pods.bind(target.kind, stored.copy(), review.obj or body)
        self._commit(target.kind, target.key, bound, caller)

    async def update(
        self,
        target: Target,
        change: Change,
        caller: Caller,
        *,
        conditional: bool = False,
        applied: bool = False,
    ) -> Object:
        """Change an object.

        Args:
            target: the object, or its status.
            change: makes the wanted object.
            caller: who asks.
            conditional: the wanted object must name its resourceVersion.
            applied: the change has set managedFields itself.
        """
        kind = target.kind
        for _ in range(TRIES):
            old = self._stored(target)
            wanted = change(old.copy())
            pinned = self._check_version(target, old, wanted, conditional=conditional)
            new = lifecycle.update(kind, old.copy(), wanted, target.subresource)
            review = self._review("UPDATE", target, new, old.body, caller)
            mutated = await self._admission.mutate(review)
            new = lifecycle.update(kind, old.copy(), mutated or new, target.subresource)
            if not applied:
                ownership.note_update(kind, old.body, new, self._owner(target, caller, "Update"))
            elif "managedFields" in wanted["metadata"]:
                new["metadata"]["managedFields"] = wanted["metadata"]["managedFields"]
            await self._admission.validate(with_object(review, new))
            if self._storage.get(kind, target.key) is old:
                if _same(old.body, new):
                    return old.body
                return self._commit(kind, target.key, new, caller)
            if pinned:
                break
        raise failures.changed_meanwhile(kind.resource, target.name)

    async def apply(self, target: Target, body: Object, caller: Caller) -> tuple[Object, bool]:
        """Server-side apply; also answers whether the object was created."""
        kind = target.kind
        owner = self._owner(target, caller, "Apply")

        def change(old: Object) -> Object:
            return ownership.apply(kind, old, body, owner, force=caller.force)

        if self._storage.get(kind, target.key) is None:
            if target.subresource:
                raise failures.not_found(kind.resource, target.name)
            if (body.get("metadata") or {}).get("name") != target.name:
                raise failures.bad_request(
                    f"the name of the object ({target.name} based on URL) was undeterminable:"
                    " name must be provided"
                )
            owner.paths = set(ownership.leaves(kind, body))
            return await self.create(target, body, caller, owner), True
        return await self.update(target, change, caller, applied=True), False

    async def delete(self, target: Target, options: Mapping[str, Any], caller: Caller) -> Object:
        """Delete an object; answers its last state."""
        old = self._stored(target)
        await self._admission.validate(self._review("DELETE", target, None, old.body, caller))
        old = self._stored(target)
        left, stays = lifecycle.deletion(target.kind, old.copy(), options, datetime.now(UTC))
        if caller.dry_run:
            return old.body
        if not _same(old.body, left):
            old = self._storage.put(target.kind, target.key, left)
        return old.body if stays else self._storage.delete(target.kind, target.key).body

    def _commit(self, kind: Kind, key: Key, obj: Object, caller: Caller) -> Object:
        if kind.dropped:
            obj = lifecycle.without(obj, kind.dropped)
        if caller.dry_run:
            return obj
        if lifecycle.finished(obj):
            return self._storage.delete(kind, key).body
        stored = self._storage.put(kind, key, obj)
        self._committed(kind, stored)
        return stored.body

    def _stored(self, target: Target) -> Stored:
        stored = self._storage.get(target.kind, target.key)
        if stored is None:
            raise failures.not_found(target.kind.resource, target.name)
        return stored

    def _check_version(
        self, target: Target, old: Stored, wanted: Object, *, conditional: bool
    ) -> bool:
        """Whether the write is for this version only."""
        version = (wanted.get("metadata") or {}).get("resourceVersion", "")
        if not version:
            if conditional and not target.kind.unconditional_update:
                raise failures.invalid(
                    target.kind.resource,
                    target.name,
                    "metadata.resourceVersion",
                    "Invalid value: 0: must be specified for an update",
                )
            return False
        if version != str(old.revision):
            raise failures.changed_meanwhile(target.kind.resource, target.name)
        return conditional

    def _review(
        self,
        operation: str,
        target: Target,
        obj: Object | None,
        old: Object | None,
        caller: Caller,
    ) -> Review:
        return Review(
            operation, target, obj, old, caller.dry_run, caller.user, warnings=caller.warnings
        )

    def _owner(self, target: Target, caller: Caller, operation: str) -> Owner:
        now = lifecycle.utc(datetime.now(UTC))
        api_version = target.kind.resource.api_version
        return Owner(caller.manager, operation, target.subresource, api_version, now)


def _same(old: Object, new: Object) -> bool:
    """True where a write changes nothing, times of ownership aside."""

    def bare(obj: Object) -> Object:
        metadata = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
        metadata["managedFields"] = [
            {**entry, "time": ""} for entry in metadata.get("managedFields", ())
        ]
        return {**obj, "metadata": metadata}

    return bare(old) == bare(new)
