"""One replica's view of a Lease: reads, takes, renews and releases it.

A Lease counts as abandoned when this process saw no change for its whole duration by its own
monotonic clock. The times in a Lease are for people, because clocks step and differ.
"""

import asyncio
import uuid

import msgspec

from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import LEASES, Address
from gpu_fraction.kube.timestamps import micro_time, utc_now


class LeaseSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """coordination.k8s.io/v1 LeaseSpec. Times stay text, because they are not used."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a Lease that the election reads."""

    metadata: Meta = Meta()
    spec: LeaseSpec = LeaseSpec()


class LeaseLock:
    """A Lease and the version of it that was last read or written."""

    def __init__(
        self, client: Client, address: Address, *, identity: str, duration_s: int
    ) -> None:
        """Prepare.

        Args:
            client: the API server.
            address: of the Lease.
            identity: of this replica.
            duration_s: whole seconds without a renewal after which another may take it.
        """
        self.address = address
        self.identity = identity
        self._client = client
        self._duration_s = duration_s
        self._lease: Lease | None = None
        self._observed_at = 0.0

    @property
    def holder(self) -> str:
        """Identity of the holder as last seen; empty where there is none."""
        return (self._lease.spec.holder_identity or "") if self._lease else ""

    async def observe(self, *, timeout_s: float) -> None:
        """Read the Lease; a change restarts the time after which it counts as abandoned.

        Raises:
            errors.KubeError: it could not be read.
        """
        try:
            lease = await self._client.get(self.address, Lease, timeout_s=timeout_s)
        except errors.NotFoundError:
            self._lease = None
            return
        if self._lease is None or lease.spec != self._lease.spec:
            self._observed_at = asyncio.get_running_loop().time()
        self._lease = lease

    def is_free(self) -> bool:
        """True where this replica may take it: it has no holder, this one, or an expired one."""
        if self._lease is None or self.holder in {"", self.identity}:
            return True
        duration_s = self._lease.spec.lease_duration_seconds or self._duration_s
        return asyncio.get_running_loop().time() >= self._observed_at + duration_s

    async def hold(self, *, timeout_s: float) -> None:
        """Take or renew it, unless another client has written it since it was last read.

        Raises:
            errors.ConflictError, errors.AlreadyExistsError, errors.NotFoundError: one has.
            errors.KubeError: it could not be written.
        """
        now = micro_time(utc_now())
        old = self._lease.spec if self._lease else LeaseSpec()
        transitions = old.lease_transitions or 0
        if self._lease is not None and old.holder_identity != self.identity:
            transitions += 1
        kept = old.acquire_time if old.holder_identity == self.identity else None
        spec = LeaseSpec(
            holder_identity=self.identity,
            lease_duration_seconds=self._duration_s,
            acquire_time=kept or now,
            renew_time=now,
            lease_transitions=transitions,
        )
        await self._write(spec, timeout_s)

    async def release(self, *, timeout_s: float) -> None:
        """Release it, so that the next replica does not wait until it expires.

        Raises:
            errors.KubeError: it could not be written.
        """
        try:
            await self._write_free(timeout_s)
        except errors.ConflictError:
            # A cancelled renewal may have been stored.
            await self.observe(timeout_s=timeout_s)
            await self._write_free(timeout_s)

    async def _write_free(self, timeout_s: float) -> None:
        if self._lease is None or self.holder != self.identity:
            return
        # Source: client-go tools/leaderelection/leaderelection.go, release.
        spec = msgspec.structs.replace(
            self._lease.spec,
            holder_identity="",
            lease_duration_seconds=1,
            renew_time=micro_time(utc_now()),
        )
        await self._write(spec, timeout_s)

    async def _write(self, spec: LeaseSpec, timeout_s: float) -> None:
        if self._lease is None:
            manifest = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": self.address.name, "namespace": self.address.namespace},
                "spec": spec,
            }
            collection = LEASES.at(namespace=self.address.namespace)
            self._lease = await self._client.create(
                collection, manifest, Lease, timeout_s=timeout_s
            )
            return
        # The version in a merge patch is a precondition; labels of other clients stay.
        version = {"resourceVersion": self._lease.metadata.resource_version}
        self._lease = await self._client.patch(
            self.address,
            PatchKind.MERGE,
            {"metadata": version, "spec": spec},
            Lease,
            timeout_s=timeout_s,
        )


def unique_identity(host: str) -> str:
    """A new identity for a process on ``host``; a restarted replica is another candidate."""
    return f"{host}_{uuid.uuid4()}"
