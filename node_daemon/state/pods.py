"""The pods of this node, as the API server last showed them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from gpu_fraction.domain import frameworks, keys
from gpu_fraction.domain.root_user import NOT_KNOWN
from gpu_fraction.node_daemon.state.allocation import PodUid
from gpu_fraction.node_daemon.state.errors import PodRef

Kind = Literal["app", "sidecar", "init"]

ENDED: Final = frozenset({"Succeeded", "Failed"})
"""Phases of a pod whose containers never start again. Source: Kubernetes, pod lifecycle."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod.

    Attributes:
        kind: ``app``, ``sidecar`` (init container that restarts always) or ``init``.
        limits: Our resources among its limits, resource name to whole number.
        container_id: As the runtime named it last; empty where it has not been made yet.
        env: The variables of frameworks that it sets itself.
    """

    name: str
    kind: Kind = "app"
    limits: Mapping[str, int] = field(default_factory=dict)
    container_id: str = ""
    env: frameworks.Own = field(default_factory=dict)

    @property
    def started(self) -> bool:
        """True where the runtime has made it at least once."""
        return bool(self.container_id)

    @property
    def holds_slot(self) -> bool:
        """True where the container asks for a slot."""
        return self.limits.get(keys.SLOT, 0) > 0


@dataclass(frozen=True, slots=True)
class Pod:
    """The parts of a pod that the daemon reads.

    Attributes:
        annotations: Those of ours.
        containers: Init containers, then the others; no ephemeral ones.
        root_risk: The field by which a process of it could be user 0; empty where none can.
    """

    namespace: str
    name: str
    uid: PodUid
    phase: str = "Pending"
    annotations: Mapping[str, str] = field(default_factory=dict)
    containers: tuple[Container, ...] = ()
    root_risk: str = NOT_KNOWN

    @property
    def ended(self) -> bool:
        """True where none of its containers starts again."""
        return self.phase in ENDED

    @property
    def ref(self) -> PodRef:
        """The pod's reference, for Events."""
        return PodRef(self.namespace, self.name, self.uid)

    def container_of(self, container_id: str) -> str | None:
        """The name of the container that the runtime named so."""
        found = (c.name for c in self.containers if c.container_id == container_id)
        return next(found, None) if container_id else None

    def container(self, name: str) -> Container | None:
        """The container of that name."""
        return next((c for c in self.containers if c.name == name), None)


class PodCache:
    """Pods by UID and by name; fed by a watch, read without waiting."""

    def __init__(self) -> None:
        self._by_uid: dict[PodUid, Pod] = {}
        self._by_name: dict[tuple[str, str], Pod] = {}
        self._changed = asyncio.Event()
        self.synced = False
        self.departed = asyncio.Event()
        """Set when a pod has gone or ended; the reader clears it."""

    def get(self, namespace: str, name: str) -> Pod | None:
        """The pod that has that name now."""
        return self._by_name.get((namespace, name))

    def by_uid(self, uid: PodUid) -> Pod | None:
        """The pod with that UID, where it still exists."""
        return self._by_uid.get(uid)

    def living(self) -> tuple[Pod, ...]:
        """Every pod that has not ended."""
        return tuple(pod for pod in self._by_uid.values() if not pod.ended)

    def lives(self, uid: PodUid) -> bool:
        """True where the pod exists and has not ended."""
        pod = self._by_uid.get(uid)
        return pod is not None and not pod.ended

    def mark_synced(self) -> None:
        """Mark the cache complete: from now on an absent pod does not exist."""
        self.synced = True
        self._wake()

    def put(self, pod: Pod) -> None:
        """Add or replace a pod."""
        self._by_uid[pod.uid] = pod
        self._by_name[pod.namespace, pod.name] = pod
        if pod.ended:
            self.departed.set()
        self._wake()

    def remove(self, uid: PodUid) -> None:
        """Forget a pod that was deleted."""
        pod = self._by_uid.pop(uid, None)
        if pod is None:
            return
        if self._by_name.get((pod.namespace, pod.name)) is pod:
            del self._by_name[pod.namespace, pod.name]
        self.departed.set()
        self._wake()

    async def wait_synced(self) -> None:
        """Return once every pod of the node is here."""
        while not self.synced:
            await self._changed.wait()

    async def wait_for(self, namespace: str, name: str, timeout_s: float) -> Pod | None:
        """The pod of that name, waiting for the watch to show it; None where it does not."""
        try:
            async with asyncio.timeout(timeout_s):
                while (pod := self.get(namespace, name)) is None:
                    await self._changed.wait()
        except TimeoutError:
            return None
        return pod

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
