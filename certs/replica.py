"""Every replica's work: see what is to be served, sign it, serve it, say so."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog

from certs import pki
from certs.actions import Notice
from certs.bundle import Bundle
from certs.certificate import Leaf
from certs.errors import PkiError
from certs.expiry import expiry_warning
from certs.injection import Injector
from certs.installation import Installation
from certs.leaf import Sign, choose_authority, renew_at
from certs.lifetimes import Lifetimes
from certs.presence import Presence, ReplicaIdentity
from certs.readiness import Readiness, judge
from certs.reporting import Reporting
from certs.secret import SecretStore
from certs.serving import ServingContext
from certs.state import CaState
from certs.watched import Watched
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.timestamps import utc_now

__all__ = ["ReplicaCertificates"]

_log = structlog.get_logger(__name__)

# Chosen: between two looks although nothing was announced, in case a watch is late.
LOOK_S: Final = 5.0


class ReplicaCertificates:
    """Keeps one process' serving context on a leaf that every API server accepts."""

    def __init__(
        self,
        client: Client,
        installation: Installation,
        lifetimes: Lifetimes,
        me: ReplicaIdentity,
        *,
        watched: Watched,
        serving: ServingContext,
        reporting: Reporting,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            client: The API server.
            installation: The names.
            lifetimes: Lifetimes and waits.
            me: Who this process is.
            watched: Local copies of the Secret and the configurations; run elsewhere.
            serving: Is given each new leaf.
            reporting: Is told what happens.
            clock: The wall clock.
        """
        self._installation = installation
        self._lifetimes = lifetimes
        self._me = me
        self._watched = watched
        self._serving = serving
        self._reporting = reporting
        self._metrics = reporting.metrics
        self._clock = clock
        self._secret = SecretStore(client, installation)
        self._injector = Injector(client, installation)
        self._presence = Presence(client, installation, me, lifetimes)
        self._changed = asyncio.Event()
        self._untold = asyncio.Event()
        self._renew_from: datetime | None = None
        self._token: str | None = None
        self._warned = ""
        watched.subscribe(self._changed.set)

    async def run(self) -> None:
        """Serve and say so until cancelled; on the way out, say that it is over."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._serve(), name="serve-certificates")
                group.create_task(self._say(), name="say-what-is-served")
        finally:
            await asyncio.shield(self._presence.leave())

    def readiness(self) -> Readiness:
        """Whether requests may be sent here; for the readiness probe."""
        verdict = self._verdict()
        self._metrics.ready(ready=verdict.ready)
        return verdict

    def _verdict(self) -> Readiness:
        if not self._watched.synced:
            return Readiness(ready=False, reason="the configurations have not been read yet")
        silent_s = self._presence.silent_s()
        if silent_s > self._lifetimes.replica_gone_s:
            # The lease holder no longer waits for this replica when it drops a CA.
            return Readiness(ready=False, reason="the API server cannot be told what is served")
        bundles = self._watched.bundles()
        return judge(self._clock(), self._serving.leaf, bundles, self._lifetimes)

    async def _serve(self) -> None:
        await self._watched.wait_synced()
        while True:
            self._changed.clear()
            now = self._clock()
            self._metrics.watched(self._watched.state(now), self._watched.targets())
            self._warn(now)
            try:
                await self._look(now)
            except errors.KubeError as error:
                _log.warning("certs.replica_look_failed", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, self._lifetimes.presence_s)):
                    await self._changed.wait()

    def _warn(self, now: datetime) -> None:
        """Renewal comes well before; a warning means that something stops it."""
        leaf = self._serving.leaf
        if leaf is None:
            return
        what = f"the serving certificate of {self._me.name}"
        message = expiry_warning(what, leaf.certificate, now, self._lifetimes)
        if message and message != self._warned:
            _log.warning("certs.leaf_expiring", message=message)
            notice = Notice("CertificateExpiring", message, warning=True)
            self._reporting.tell(notice, self._watched.secret_uid)
        self._warned = message

    async def _look(self, now: datetime) -> None:
        state, bundles = self._watched.state(now), self._watched.bundles()
        sign = self._choice(now, state, bundles)
        if sign is None:
            return
        leaf = await self._sign(sign, now)
        if self._serving.leaf is None:
            # Said before it is served, then looked again past the caches: a rotation that
            # had already passed us by waits for us, or is seen here.
            await self._presence.tell(leaf, now)
            bundles = [b for target in await self._injector.read() for b in target.bundles]
            state = (await self._secret.read(now)).state
            sign = self._choice(now, state, bundles)
            if sign is None:
                return
            if sign.authority.fingerprint != leaf.issuer:
                leaf = await self._sign(sign, now)
        await self._swap(leaf, sign.why)

    def _choice(
        self, now: datetime, state: CaState | None, bundles: Sequence[Bundle]
    ) -> Sign | None:
        forced = False
        if state is not None and self._serving.leaf is not None:
            forced = self._token is not None and state.rotate_leaf != self._token
            self._token = state.rotate_leaf
        return choose_authority(
            now,
            state,
            bundles,
            self._serving.leaf,
            self._renew_from,
            self._lifetimes,
            forced=forced,
        )

    async def _sign(self, sign: Sign, now: datetime) -> Leaf:
        leaf = await asyncio.to_thread(
            pki.issue_leaf,
            sign.authority,
            self._installation.server_names,
            now,
            self._lifetimes,
        )
        self._metrics.signed()
        return leaf

    async def _swap(self, leaf: Leaf, why: str) -> None:
        try:
            await asyncio.to_thread(self._serving.swap, leaf)
        except PkiError as error:
            _log.error("certs.leaf_not_served", error=str(error))
            self._metrics.load_failed()
            return
        self._renew_from = renew_at(leaf, self._me.name, self._lifetimes)
        self._metrics.served(leaf)
        self._untold.set()
        _log.info(
            "certs.leaf_served",
            why=why,
            leaf=leaf.certificate.fingerprint[:16],
            issuer=leaf.issuer[:16],
            not_after=leaf.certificate.not_after.isoformat(),
        )

    async def _say(self) -> None:
        """Say what is served when it changes, and every few seconds."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lifetimes.presence_s):
                    await self._untold.wait()
            self._untold.clear()
            leaf = self._serving.leaf
            if leaf is None:
                continue
            try:
                await self._presence.tell(leaf, self._clock())
            except errors.KubeError as error:
                _log.warning("certs.presence_not_told", error=str(error))
