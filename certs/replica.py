"""The loop of every replica: choose a CA, sign a leaf, serve it, report it."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog

from gpu_fraction.certs import pki
from gpu_fraction.certs.actions import Notice
from gpu_fraction.certs.bundle import Bundle
from gpu_fraction.certs.cache import CertificateCache
from gpu_fraction.certs.certificate import Leaf
from gpu_fraction.certs.injection import Injector
from gpu_fraction.certs.leaf import Sign, choose_authority, renew_at
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.reading import PkiError
from gpu_fraction.certs.replica_leases import Heartbeat, ReplicaIdentity
from gpu_fraction.certs.reporting import Reporter
from gpu_fraction.certs.secret import SecretStore
from gpu_fraction.certs.settings import Installation
from gpu_fraction.certs.source import CertificateSource
from gpu_fraction.certs.state import CaState
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.timestamps import utc_now

_log = structlog.get_logger(__name__)

LOOK_S: Final = 5.0
"""Longest wait for a change. Chosen: covers a watch that is late."""


class ReplicaCertificates(CertificateSource):
    """Keeps the serving context of a process on a leaf that every API server accepts."""

    def __init__(
        self,
        client: Client,
        installation: Installation,
        lifetimes: Lifetimes,
        me: ReplicaIdentity,
        *,
        cache: CertificateCache,
        reporter: Reporter,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            client: The API server.
            installation: The names.
            lifetimes: Lifetimes and waits.
            me: The name of this process.
            cache: Local copies of the Secret and the configurations; the caller runs it.
            reporter: For metrics and Events.
            clock: The wall clock.
        """
        super().__init__(lifetimes, reporter=reporter, cache=cache, clock=clock)
        self._installation = installation
        self._me = me
        self._seen = cache
        self._secret = SecretStore(client, installation)
        self._injector = Injector(client, installation)
        self._lease = Heartbeat(client, installation, me, lifetimes)
        self._changed = asyncio.Event()
        self._unreported = asyncio.Event()
        self._renew_from: datetime | None = None
        self._token: str | None = None
        cache.subscribe(self._changed.set)

    async def run(self) -> None:
        """Serve and report until cancelled, then delete the Lease."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(), name="serve-certificates")
                group.create_task(self._heartbeat(), name="report-certificates")
        finally:
            await asyncio.shield(self._lease.withdraw())

    def _fault(self, bundles: Sequence[Bundle]) -> str | None:
        if self._lease.idle_s() > self._lifetimes.replica_gone_s:
            # The lease holder no longer waits for this replica when it drops a CA.
            return "the served certificate cannot be reported to the API server"
        return super()._fault(bundles)

    async def _follow(self) -> None:
        await self._seen.wait_synced()
        while True:
            self._changed.clear()
            now = self._clock()
            self._reporter.watched(self._seen.state(now), self._seen.targets())
            if message := self._expiry_warning(f"the serving certificate of {self._me.name}"):
                notice = Notice("CertificateExpiring", message, warning=True)
                self._reporter.event(notice, self._seen.secret_uid)
            try:
                await self._look(now)
            except errors.KubeError as error:
                _log.warning("certs.replica_look_failed", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, self._lifetimes.heartbeat_s)):
                    await self._changed.wait()

    async def _look(self, now: datetime) -> None:
        """Serve another leaf if the current one must be replaced."""
        sign = self._choice(now, self._seen.state(now), self._seen.bundles())
        if sign is None:
            return
        leaf = await self._sign(sign, now)
        if self.serving.leaf is None:
            # Report before serving, then choose again from fresh reads: either a rotation in
            # progress waits for this replica, or this replica sees the rotation.
            await self._lease.report(leaf, now)
            bundles = [b for target in await self._injector.read() for b in target.bundles]
            sign = self._choice(now, (await self._secret.read(now)).state, bundles)
            if sign is None:
                return
            if sign.authority.fingerprint != leaf.issuer:
                leaf = await self._sign(sign, now)
        try:
            await self._swap(leaf, sign.why)
        except PkiError as error:
            _log.error("certs.leaf_not_served", error=str(error))
            self._reporter.load_failures.inc()
            return
        self._renew_from = renew_at(leaf, self._me.name, self._lifetimes)
        self._unreported.set()

    def _choice(
        self, now: datetime, state: CaState | None, bundles: Sequence[Bundle]
    ) -> Sign | None:
        leaf, forced = self.serving.leaf, False
        if state is not None and leaf is not None:
            forced = self._token is not None and state.rotate_leaf != self._token
            self._token = state.rotate_leaf
        return choose_authority(
            now, state, bundles, leaf, self._renew_from, self._lifetimes, forced=forced
        )

    async def _sign(self, sign: Sign, now: datetime) -> Leaf:
        names = self._installation.server_names
        leaf = await asyncio.to_thread(pki.issue_leaf, sign.authority, names, now, self._lifetimes)
        self._reporter.signed.inc()
        return leaf

    async def _heartbeat(self) -> None:
        """Report the served leaf when it changes, and every few seconds."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lifetimes.heartbeat_s):
                    await self._unreported.wait()
            self._unreported.clear()
            leaf = self.serving.leaf
            if leaf is None:
                continue
            try:
                await self._lease.report(leaf, self._clock())
            except errors.KubeError as error:
                _log.warning("certs.heartbeat_failed", error=str(error))
