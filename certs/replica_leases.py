"""Heartbeats of the replicas: each reports its leaf in a Lease of its own.

A Lease rather than an annotation on the Pod, because the permission to change Pods allows
changing their images, and a Lease also shows when its replica was last alive.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from gpu_fraction.certs.certificate import Leaf
from gpu_fraction.certs.leaf import Replica
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.settings import FIELD_MANAGER, Installation
from gpu_fraction.certs.wire import ReplicaLease
from gpu_fraction.domain import keys
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.requests import Selection
from gpu_fraction.kube.resources import LEASES
from gpu_fraction.kube.timestamps import micro_time

LABEL: Final = keys.PREFIX + "certificates-of"
ISSUER: Final = keys.SERVING_ISSUER
NOT_AFTER: Final = keys.SERVING_NOT_AFTER


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaIdentity:
    """The name and the tasks of this process.

    Attributes:
        name: Unique among the running replicas; the Pod's name.
        pod_uid: The Pod's uid, so that its Lease is deleted with it; empty outside a Pod.
        serves: Whether it serves webhooks and so needs a leaf.
        leads: Whether it takes part in the election. Killing a process that only leads loses no
            request.
    """

    name: str
    pod_uid: str = ""
    serves: bool = True
    leads: bool = True


class Heartbeat:
    """Reports the leaf of this process in its Lease."""

    def __init__(
        self, client: Client, installation: Installation, me: ReplicaIdentity, lifetimes: Lifetimes
    ) -> None:
        name = f"{installation.service}-replica-{me.name}"
        self._client = client
        self._installation = installation
        self._address = LEASES.at(name, namespace=installation.namespace)
        self._me = me
        self._lifetimes = lifetimes
        self._reported_at: float | None = None

    def idle_s(self) -> float:
        """Seconds since the last report, on a monotonic clock."""
        if self._reported_at is None:
            return float("inf")
        return asyncio.get_running_loop().time() - self._reported_at

    async def report(self, leaf: Leaf, now: datetime) -> None:
        """Write the served leaf into the Lease.

        Raises:
            KubeError: it could not be written.
        """
        asked_at = asyncio.get_running_loop().time()
        metadata: dict[str, Any] = {
            "name": self._address.name,
            "namespace": self._address.namespace,
            "labels": {LABEL: self._installation.service},
            "annotations": {
                ISSUER: leaf.issuer,
                NOT_AFTER: micro_time(leaf.certificate.not_after),
            },
        }
        if self._me.pod_uid:
            owner = {"apiVersion": "v1", "kind": "Pod"}
            owner |= {"name": self._me.name, "uid": self._me.pod_uid}
            metadata["ownerReferences"] = [owner]
        spec = {
            "holderIdentity": self._me.name,
            "leaseDurationSeconds": max(1, round(self._lifetimes.replica_gone_s)),
            "renewTime": micro_time(now),
        }
        body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind}
        await self._client.apply(
            self._address,
            body | {"metadata": metadata, "spec": spec},
            ReplicaLease,
            field_manager=FIELD_MANAGER,
            force=True,
            timeout_s=self._lifetimes.heartbeat_s,
        )
        # The time before the request, because the report may have arrived at once.
        self._reported_at = asked_at

    async def withdraw(self) -> None:
        """Delete the Lease at exit; errors are ignored."""
        with suppress(errors.KubeError):
            await self._client.delete(self._address, timeout_s=self._lifetimes.heartbeat_s)


class ReplicaLister:
    """Lists the replicas that are alive.

    A replica counts as gone when its Lease stays unchanged over several reads. The times in the
    Lease come from the replica's clock and are not used. Between two reads at most one heartbeat
    interval counts as silence, because this process may have been cut off itself.
    """

    def __init__(self, client: Client, installation: Installation, lifetimes: Lifetimes) -> None:
        self._client = client
        self._installation = installation
        self._lifetimes = lifetimes
        self._seen: dict[str, tuple[str, float]] = {}
        self._read_at = 0.0

    async def read(self) -> list[Replica]:
        """The replicas, read from the API server.

        Raises:
            KubeError: they could not be read.
        """
        listing = await self._client.list(
            LEASES.at(namespace=self._installation.namespace),
            ReplicaLease,
            Selection(labels=f"{LABEL}={self._installation.service}"),
        )
        now = asyncio.get_running_loop().time()
        since_s = min(now - self._read_at, self._lifetimes.heartbeat_s)
        self._read_at = now
        seen: dict[str, tuple[str, float]] = {}
        for lease in listing.items:
            name, version = lease.metadata.name, lease.metadata.resource_version
            known, silent_s = self._seen.get(name, ("", 0.0))
            seen[name] = (version, silent_s + since_s if version == known else 0.0)
        self._seen = seen
        return [
            _replica(lease)
            for lease in listing.items
            if seen[lease.metadata.name][1] < self._lifetimes.replica_gone_s
        ]


def _replica(lease: ReplicaLease) -> Replica:
    """The replica in a Lease; an unreadable Lease counts as a replica without a leaf."""
    reported = lease.metadata.annotations or {}
    try:
        until = datetime.fromisoformat(reported.get(NOT_AFTER, "")).astimezone(UTC)
    except ValueError:
        return Replica(lease.metadata.name)
    return Replica(lease.metadata.name, reported.get(ISSUER, ""), until)
