"""Requeues the owners of refused pods once there is room.

A ReplicaSet's controller tries again after a time that doubles up to 16 minutes
(kubernetes#98656), but at once after any change of the ReplicaSet. So the owners that the
namespace's events name get an annotation through their ``status`` subresource. That permission
does not allow changing their pod templates.
"""

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec
import structlog

from gpu_fraction.domain import keys
from gpu_fraction.kube import errors as kube_errors
from gpu_fraction.kube import resources
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Identity, Meta
from gpu_fraction.kube.requests import PatchKind, Selection
from gpu_fraction.kube.resources import Resource
from gpu_fraction.kube.timestamps import time as api_time
from gpu_fraction.kube.timestamps import utc_now

FAILED_CREATE: Final = "FailedCreate"
"""Reason of the Event of every Kubernetes controller that could not create a pod."""

MARK: Final = "GPU quota"
"""Part of every refusal message of this package."""

RECENT_S: Final = 1200.0
"""Older events are ignored: after the longest wait of 1000 s (client-go
workqueue.DefaultControllerRateLimiter) every controller has tried again by itself."""

CALM_S: Final = 1.0
"""Seconds between two rounds in one namespace: chosen, a slow start of 1, 2, 4 pods fits in."""

MAX_OWNERS: Final = 50
"""Owners requeued in one round: chosen, the rest follows in the next."""

OWNERS: Final = {
    ("apps", r.kind): r
    for r in (resources.REPLICA_SETS, resources.STATEFUL_SETS, resources.DAEMON_SETS)
} | {
    ("batch", "Job"): resources.JOBS,
    ("", "ReplicationController"): Resource(
        "", "v1", "replicationcontrollers", "ReplicationController"
    ),
}

log = structlog.get_logger()


class _Involved(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""


class EventRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields of a core/v1 Event that are read."""

    metadata: Meta = Meta()
    involved_object: _Involved = _Involved()
    reason: str = ""
    message: str = ""
    last_timestamp: str | None = None
    event_time: str | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """A controller object whose pods were refused."""

    resource: Resource
    name: str
    uid: str


def blocked(events: Iterable[EventRecord], now: datetime) -> list[Owner]:
    """The owners of pods refused lately, the longest waiting first, each once.

    Owners whose pods exist by now are included, because events do not show that.
    """
    found: dict[Owner, str] = {}
    for event in events:
        group = event.involved_object.api_version.rpartition("/")[0]
        resource = OWNERS.get((group, event.involved_object.kind))
        if event.reason != FAILED_CREATE or MARK not in event.message or resource is None:
            continue
        when = event.last_timestamp or event.event_time or ""
        if _age_s(when, now) <= RECENT_S:
            owner = Owner(resource, event.involved_object.name, event.involved_object.uid)
            found[owner] = min(found.get(owner, when), when)
    return sorted(found, key=lambda owner: found[owner])


def _age_s(when: str, now: datetime) -> float:
    try:
        return (now - datetime.fromisoformat(when)).total_seconds()
    except ValueError:
        return 0.0


@dataclass(slots=True)
class _Turns:
    """The order of owners in one namespace; moments are growing numbers.

    Attributes:
        room_at: Moment when quota was freed last.
        tried_at: Moment when each owner was tried last.
        woken_at: Moment when it was requeued last, or could not be.
    """

    room_at: int = 0
    tried_at: dict[Owner, int] = field(default_factory=dict)
    woken_at: dict[Owner, int] = field(default_factory=dict)

    def due(self, owners: Iterable[Owner]) -> list[Owner]:
        """The owners not requeued since quota was freed, the least recently tried first."""
        waiting = [o for o in owners if self.woken_at.get(o, 0) < self.room_at]
        return sorted(waiting, key=lambda owner: self.tried_at.get(owner, 0))

    def keep(self, owners: Collection[Owner]) -> None:
        self.tried_at = {o: at for o, at in self.tried_at.items() if o in owners}
        self.woken_at = {o: at for o, at in self.woken_at.items() if o in owners}


class Requeue:
    """Requeues the blocked owners of namespaces in which quota was freed."""

    def __init__(
        self,
        client: Client,
        *,
        calm_s: float = CALM_S,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._client = client
        self._calm_s = calm_s
        self._now = now
        self._moments = itertools.count(1)
        self._turns: dict[str, _Turns] = {}
        self._namespaces: dict[str, None] = {}
        self._wake = asyncio.Event()

    def enqueue(self, namespace: str) -> None:
        """Requeue all blocked owners of a namespace, because quota was freed."""
        self._turns.setdefault(namespace, _Turns()).room_at = next(self._moments)
        self._again(namespace)

    def _again(self, namespace: str) -> None:
        self._namespaces[namespace] = None
        self._wake.set()

    async def run(self) -> None:
        """Requeue until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            namespaces, self._namespaces = list(self._namespaces), {}
            for namespace in namespaces:
                try:
                    left = await self._round(namespace)
                except kube_errors.KubeError as e:
                    log.warning("quota.requeue_failed", namespace=namespace, error=str(e))
                    left = isinstance(e, kube_errors.TransientError)
                if left:
                    self._again(namespace)
            await asyncio.sleep(self._calm_s)

    async def _round(self, namespace: str) -> bool:
        """Requeue up to MAX_OWNERS of one namespace; returns whether others are left.

        Raises:
            KubeError: a request failed; the rest is tried later if the error is transient.
        """
        listing = await self._client.list(
            resources.EVENTS.at(namespace=namespace),
            EventRecord,
            Selection(fields=f"reason={FAILED_CREATE}"),
        )
        now = self._now()
        turns = self._turns[namespace]
        owners = dict.fromkeys(blocked(listing.items, now))
        turns.keep(owners.keys())
        if not owners and namespace not in self._namespaces:
            del self._turns[namespace]
        due = turns.due(owners)
        for owner in due[:MAX_OWNERS]:
            turns.tried_at[owner] = moment = next(self._moments)
            await self._annotate(namespace, owner, api_time(now))
            turns.woken_at[owner] = moment
        if due:
            log.info("quota.requeued", namespace=namespace, owners=len(due[:MAX_OWNERS]))
        return len(due) > MAX_OWNERS

    async def _annotate(self, namespace: str, owner: Owner, moment: str) -> None:
        """Annotate one owner; other failures than an unavailable server are logged.

        Raises:
            TransientError: the API server is unavailable.
        """
        metadata = {"uid": owner.uid, "annotations": {keys.QUOTA_FREED: moment}}
        at = owner.resource.at(owner.name, namespace=namespace, subresource="status")
        try:
            await self._client.patch(at, PatchKind.MERGE, {"metadata": metadata}, Identity)
        except (kube_errors.NotFoundError, kube_errors.ConflictError, kube_errors.InvalidError):
            return  # it is deleted, or another object has its name
        except kube_errors.KubeError as e:
            # A webhook that fails on this object also looks like a 500.
            if isinstance(e, kube_errors.TransientError) and not isinstance(
                e, kube_errors.ServerFaultError
            ):
                raise
            log.warning(
                "quota.owner_not_requeued", namespace=namespace, owner=str(at), error=str(e)
            )
