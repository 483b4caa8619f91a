"""The lease holder's work: look at everything, plan, do one step, look again."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

import structlog

from certs import pki
from certs.actions import Notice, Plan, PublishBundle, StageAuthority, WriteState
from certs.errors import BundleError
from certs.injection import Injector
from certs.installation import Installation
from certs.lifetimes import Lifetimes
from certs.planner import plan
from certs.presence import Roster
from certs.reporting import Reporting
from certs.secret import Held, SecretStore
from certs.state import Phase
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.timestamps import utc_now

__all__ = ["Controller"]

_log = structlog.get_logger(__name__)

# Chosen: a failed step is tried again soon, because a failed repair means failing requests,
# and later each time, because an API server that is down is not helped by being asked.
RETRY_FIRST_S = 0.2
RETRY_CAP_S = 15.0


@dataclass(slots=True)
class _Seen:
    """Since when this process has seen the state in its phase, on the monotonic clock."""

    phase: tuple[Phase, datetime] | None = None
    since_s: float = 0.0


class Controller:
    """Brings the certificates of one installation to where the planner wants them."""

    def __init__(
        self,
        client: Client,
        installation: Installation,
        lifetimes: Lifetimes,
        *,
        reporting: Reporting,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            client: The API server.
            installation: The names.
            lifetimes: Lifetimes and waits.
            reporting: Is told what happens.
            clock: The wall clock.
        """
        self._secret = SecretStore(client, installation)
        self._injector = Injector(client, installation)
        self._roster = Roster(client, installation, lifetimes)
        self._service = f"{installation.service}.{installation.namespace}"
        self._lifetimes = lifetimes
        self._reporting = reporting
        self._metrics = reporting.metrics
        self._clock = clock
        self._wake = asyncio.Event()
        self._seen = _Seen()
        self._standing: frozenset[Notice] = frozenset()

    def wake(self) -> None:
        """Look again now: something has changed."""
        self._wake.set()

    async def run(self, check: Callable[[], None]) -> None:
        """Work until cancelled.

        Args:
            check: Called right before each write; raises where this process may no longer
                write.
        """
        self._seen = _Seen()
        failures = 0
        while True:
            self._wake.clear()
            try:
                wait_s = await self.step(check)
                failures = 0
            except (errors.ConflictError, errors.AlreadyExistsError) as error:
                # Somebody else was quicker: look again at once.
                _log.info("certs.conflict", error=str(error))
                self._metrics.conflict()
                wait_s = 0.0
            except (errors.KubeError, BundleError) as error:
                failures += 1
                wait_s = min(RETRY_FIRST_S * 2**failures, RETRY_CAP_S)
                _log.warning("certs.step_failed", error=str(error), retry_in_s=wait_s)
                self._metrics.failed()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def step(self, check: Callable[[], None]) -> float:
        """Look, plan, and carry out the plan.

        Returns:
            Seconds until the next look is due.

        Raises:
            KubeError: something could not be read or written.
            BundleError: the planner asked for a caBundle that must not be published.
        """
        now = self._clock()
        held = await self._secret.read(now)
        targets = await self._injector.read()
        replicas = await self._roster.read()
        made = plan(now, held.state, targets, replicas, self._lifetimes, self._seen_s(held))
        self._metrics.planned(made.phase, held.state, targets)
        self._announce(made, held)
        for kind, group in groupby(made.actions, key=_kind_of):
            check()
            if kind is not None:
                await self._injector.publish([a for a in group if isinstance(a, PublishBundle)])
                self._metrics.published()
                continue
            for action in group:
                if not isinstance(action, PublishBundle):
                    held = await self._write(held, action, now)
        return made.wake_in_s

    async def _write(self, held: Held, action: WriteState | StageAuthority, now: datetime) -> Held:
        state = action.state
        if isinstance(action, StageAuthority):
            authority = await asyncio.to_thread(
                pki.new_authority, self._service, now, self._lifetimes
            )
            state = replace(state, next=authority, phase=Phase.TRUST, since=now)
        written = await self._secret.write(held, state)
        _log.info(
            "certs.phase",
            phase=state.phase.value,
            reason=action.notice.reason,
            message=action.notice.message,
        )
        self._reporting.tell(action.notice, written.uid)
        return written

    def _seen_s(self, held: Held) -> float:
        """How long this process has itself seen the state in this phase."""
        now_s = asyncio.get_running_loop().time()
        phase = None if held.state is None else (held.state.phase, held.state.since)
        if phase != self._seen.phase:
            self._seen = _Seen(phase, now_s)
        return now_s - self._seen.since_s

    def _announce(self, made: Plan, held: Held) -> None:
        """Say each standing notice once, and again when it has changed."""
        new = frozenset(made.notices) - self._standing
        self._standing = frozenset(made.notices)
        for notice in new:
            _log.warning("certs.notice", reason=notice.reason, message=notice.message)
            self._reporting.tell(notice, held.uid)


def _kind_of(action: PublishBundle | WriteState | StageAuthority) -> tuple[str, str] | None:
    """Groups caBundles by their configuration; everything else stands alone."""
    if isinstance(action, PublishBundle):
        return action.target.kind.value, action.target.name
    return None
