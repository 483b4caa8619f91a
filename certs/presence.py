"""What each replica serves, said in a Lease of its own.

A Lease rather than an annotation on the Pod: the right to change Pods is a right to change
what they run, and a Lease also says when its replica was last alive.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from certs.certificate import Leaf
from certs.installation import Installation
from certs.lifetimes import Lifetimes
from certs.observation import Replica
from certs.wire import ReplicaLease
from gpu_fraction.domain import keys
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.listing import ListOptions
from gpu_fraction.kube.requests import Selection
from gpu_fraction.kube.resources import LEASES, Address
from gpu_fraction.kube.timestamps import micro_time

__all__ = [
    "ISSUER",
    "LEAF",
    "NOT_AFTER",
    "Presence",
    "ReplicaIdentity",
    "Roster",
    "replica_of",
    "selection",
]

ISSUER: Final = keys.PREFIX + "serving-issuer"
LEAF: Final = keys.PREFIX + "serving-leaf"
NOT_AFTER: Final = keys.PREFIX + "serving-not-after"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaIdentity:
    """Who this process is, and what it does.

    Attributes:
        name: Unique among the living; the Pod's name.
        pod_uid: Of the Pod, so that its Lease goes when it goes; empty outside a Pod.
        serves: Whether it serves webhooks and so needs a leaf.
        leads: Whether it stands for election. A process that only leads may be killed at any
            time without a request being on its way to it.
    """

    name: str
    pod_uid: str = ""
    serves: bool = True
    leads: bool = True


def replica_of(lease: ReplicaLease) -> Replica:
    """What a Lease says; one that cannot be understood says that nothing is served."""
    said = lease.metadata.annotations or {}
    try:
        until = datetime.fromisoformat(said.get(NOT_AFTER, "")).astimezone(UTC)
    except ValueError:
        return Replica(lease.metadata.name)
    return Replica(lease.metadata.name, said.get(ISSUER, ""), until)


def selection(installation: Installation) -> Selection:
    """Every replica's Lease."""
    key, value = installation.presence_label
    return Selection(labels=f"{key}={value}")


class Presence:
    """This process's own Lease."""

    def __init__(
        self, client: Client, installation: Installation, me: ReplicaIdentity, lifetimes: Lifetimes
    ) -> None:
        self._client = client
        self._installation = installation
        self._me = me
        self._lifetimes = lifetimes
        self._told_at: float | None = None

    @property
    def address(self) -> Address:
        """Where it is."""
        name = f"{self._installation.service}-replica-{self._me.name}"
        return LEASES.at(name, namespace=self._installation.namespace)

    def silent_s(self) -> float:
        """Since this process was last heard of, on a monotonic clock."""
        if self._told_at is None:
            return float("inf")
        return asyncio.get_running_loop().time() - self._told_at

    async def tell(self, leaf: Leaf, now: datetime) -> None:
        """Say what is served.

        Raises:
            KubeError: nobody has heard it.
        """
        asked_at = asyncio.get_running_loop().time()
        key, value = self._installation.presence_label
        address = self.address
        metadata: dict[str, Any] = {
            "name": address.name,
            "namespace": address.namespace,
            "labels": {key: value},
            "annotations": {
                ISSUER: leaf.issuer,
                LEAF: leaf.certificate.fingerprint,
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
            address,
            body | {"metadata": metadata, "spec": spec},
            ReplicaLease,
            field_manager=self._installation.field_manager,
            force=True,
            timeout_s=self._lifetimes.presence_s,
        )
        # Counted from before the request: it was heard no earlier.
        self._told_at = asked_at

    async def leave(self) -> None:
        """Say that nothing is served any more; best effort, on the way out."""
        try:
            await self._client.delete(self.address, timeout_s=self._lifetimes.presence_s)
        except errors.KubeError:
            return


class Roster:
    """Every replica that is alive, as the lease holder sees it.

    A replica counts as gone when look after look has shown its Lease unchanged. The times
    inside are its own clock's and are not read; and between two looks no more silence counts
    than a replica is expected to keep, because we may have been the ones who were cut off.
    """

    def __init__(self, client: Client, installation: Installation, lifetimes: Lifetimes) -> None:
        self._client = client
        self._installation = installation
        self._lifetimes = lifetimes
        self._seen: dict[str, tuple[str, float]] = {}
        self._looked_at = 0.0

    async def read(self) -> list[Replica]:
        """The replicas as of now, past every cache.

        Raises:
            KubeError: they could not be read.
        """
        listing = await self._client.list(
            LEASES.at(namespace=self._installation.namespace),
            ReplicaLease,
            ListOptions(selection(self._installation)),
        )
        now = asyncio.get_running_loop().time()
        since_s = min(now - self._looked_at, self._lifetimes.presence_s)
        self._looked_at = now
        seen: dict[str, tuple[str, float]] = {}
        for lease in listing.items:
            name, version = lease.metadata.name, lease.metadata.resource_version
            known, silent_s = self._seen.get(name, ("", 0.0))
            seen[name] = (version, silent_s + since_s if version == known else 0.0)
        self._seen = seen
        return [
            replica_of(lease)
            for lease in listing.items
            if seen[lease.metadata.name][1] < self._lifetimes.replica_gone_s
        ]
