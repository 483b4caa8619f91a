"""The self-managed certificates of one process: its leaf, and the CA while it leads."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from prometheus_client import CollectorRegistry

from gpu_fraction.certs.cache import CertificateCache
from gpu_fraction.certs.controller import Controller
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.replica import ReplicaCertificates
from gpu_fraction.certs.replica_leases import ReplicaIdentity
from gpu_fraction.certs.reporting import Reporter
from gpu_fraction.certs.settings import Installation
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.election import Election, LeaseTimings
from gpu_fraction.kube.events import EventRecorder
from gpu_fraction.kube.lease import unique_identity
from gpu_fraction.kube.timestamps import utc_now


class CertificateManager:
    """Keeps this process's certificate, and the installation's CA while it holds the lease.

    Attributes:
        serving: Its ``context`` is for the HTTPS server.
    """

    def __init__(
        self,
        client: Client,
        installation: Installation,
        lifetimes: Lifetimes,
        me: ReplicaIdentity,
        *,
        registry: CollectorRegistry,
        recorder: EventRecorder | None = None,
        timings: LeaseTimings | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            client: The API server.
            installation: The names.
            lifetimes: Lifetimes and waits.
            me: The name and the tasks of this process.
            registry: For the metrics.
            recorder: Writes Events; the caller runs it. None for no Events.
            timings: The election's.
            clock: The wall clock.
        """
        reporter = Reporter(registry, installation, recorder)
        self._cache = cache = CertificateCache(client, installation)
        self._replica = ReplicaCertificates(
            client, installation, lifetimes, me, cache=cache, reporter=reporter, clock=clock
        )
        self._controller = Controller(
            client, installation, lifetimes, reporter=reporter, clock=clock
        )
        cache.subscribe(self._controller.wake)
        self.serving = self._replica.serving
        self._me = me
        self._election = Election(
            client,
            name=installation.election,
            namespace=installation.namespace,
            identity=unique_identity(me.name),
            timings=timings,
        )

    def check(self) -> str | None:
        """Why this process is not ready; None where it is."""
        return self._replica.check()

    async def run(self) -> None:
        """Work until cancelled.

        Cancel it after the HTTPS server has stopped, because the replica then deletes its Lease.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._cache.run(), name="certificates-watch")
            if self._me.serves:
                group.create_task(self._replica.run(), name="certificates-replica")
            if self._me.leads:
                election, work = self._election, self._controller
                leading = election.run(lambda: work.run(election.check))
                group.create_task(leading, name="certificates-election")
