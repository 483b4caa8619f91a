"""The lease holder's loop: read, plan, carry out one step, read again."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import Final

import structlog

from gpu_fraction.certs import pki
from gpu_fraction.certs.actions import Notice, Plan, PublishBundle, WriteState
from gpu_fraction.certs.bundle import BundleError
from gpu_fraction.certs.injection import Injector
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.planner import plan
from gpu_fraction.certs.replica_leases import ReplicaLister
from gpu_fraction.certs.reporting import Reporter
from gpu_fraction.certs.secret import Held, SecretStore
from gpu_fraction.certs.settings import Installation
from gpu_fraction.certs.state import Phase
from gpu_fraction.kube import errors
from gpu_fraction.kube.backoff import Backoff, TokenBucket
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.timestamps import utc_now

_log = structlog.get_logger(__name__)

RETRY: Final = Backoff(initial_s=0.4, cap_s=5.0)
"""Chosen: a failed step is tried again soon, because requests fail until a repair succeeds, and
later each time, because retries do not help an API server that is down."""

PUBLISH_BURST: Final = 20
PUBLISH_PER_S: Final = 1.0
"""Limit of writes of configurations. Chosen: a rotation needs two writes of each and stays below
the limit; another controller that keeps replacing the caBundle reaches it."""


class Controller:
    """Carries out the planner's steps for one installation."""

    def __init__(
        self,
        client: Client,
        installation: Installation,
        lifetimes: Lifetimes,
        *,
        reporter: Reporter,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            client: The API server.
            installation: The names.
            lifetimes: Lifetimes and waits.
            reporter: For metrics and Events.
            clock: The wall clock.
        """
        self._secret = SecretStore(client, installation)
        self._injector = Injector(client, installation)
        self._lister = ReplicaLister(client, installation, lifetimes)
        self._service = f"{installation.service}.{installation.namespace}"
        self._lifetimes = lifetimes
        self._reporter = reporter
        self._clock = clock
        self._wake = asyncio.Event()
        self._phase: tuple[Phase, datetime] | None = None
        self._phase_since_s = 0.0
        self._publishes = TokenBucket(PUBLISH_BURST, PUBLISH_PER_S)
        self._standing: frozenset[Notice] = frozenset()

    def wake(self) -> None:
        """Run the next step now."""
        self._wake.set()

    async def run(self, check: Callable[[], None]) -> None:
        """Work until cancelled.

        Args:
            check: Called right before each write; raises where this process may no longer
                write.
        """
        self._phase = None
        failures, rng = 0, random.SystemRandom()
        while True:
            self._wake.clear()
            try:
                wait_s = await self.step(check)
                failures = 0
            except (errors.ConflictError, errors.AlreadyExistsError) as error:
                # Another process wrote first: read again at once, then with growing waits.
                wait_s = RETRY.wait_s(failures, rng) if failures else 0.0
                failures += 1
                _log.info("certs.conflict", error=str(error))
                self._reporter.conflicts.inc()
            except (errors.KubeError, BundleError) as error:
                failures += 1
                wait_s = RETRY.wait_s(failures, rng)
                _log.warning("certs.step_failed", error=str(error), retry_in_s=wait_s)
                self._reporter.failures.inc()
            await self._pause(wait_s, failed=failures > 0)

    async def _pause(self, wait_s: float, *, failed: bool) -> None:
        """Wait; a change ends the pause, unless it follows a failure."""
        if failed:
            await asyncio.sleep(wait_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()

    async def step(self, check: Callable[[], None]) -> float:
        """Read, plan, and carry out the plan.

        Returns:
            Seconds until the next step is due.

        Raises:
            KubeError: something could not be read or written.
            BundleError: the planner asked for a caBundle that must not be published.
        """
        now = self._clock()
        held = await self._secret.read(now)
        targets = await self._injector.read()
        replicas = await self._lister.read()
        made = plan(now, held.state, targets, replicas, self._lifetimes, self._seen_s(held))
        self._reporter.planned(made.phase, held.state, targets)
        self._announce(made, held)
        publish = [a for a in made.actions if isinstance(a, PublishBundle)]
        if publish:
            return await self._publish(publish, check)
        for action in made.actions:
            if not isinstance(action, PublishBundle):
                check()
                held = await self._write(held, action, now)
        return made.wake_in_s

    async def _publish(self, actions: Sequence[PublishBundle], check: Callable[[], None]) -> float:
        """Write every configuration, even if one of them cannot be written."""
        problem: errors.KubeError | BundleError | None = None
        for target, group in groupby(actions, key=lambda action: action.target):
            wait_s = self._publishes.take(asyncio.get_running_loop().time())
            if wait_s:
                _log.warning("certs.bundle_contended", target=target.name, wait_s=wait_s)
                return wait_s
            check()
            try:
                await self._injector.publish(list(group))
            except (errors.KubeError, BundleError) as error:
                problem = problem or error
            else:
                self._reporter.published.inc()
        if problem is not None:
            raise problem
        return 0.0

    async def _write(self, held: Held, action: WriteState, now: datetime) -> Held:
        state = action.state
        if action.new_ca:
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
        self._reporter.event(action.notice, written.uid)
        return written

    def _seen_s(self, held: Held) -> float:
        """Seconds for which this process has seen the state in this phase."""
        now_s = asyncio.get_running_loop().time()
        phase = None if held.state is None else (held.state.phase, held.state.since)
        if phase != self._phase:
            self._phase, self._phase_since_s = phase, now_s
        return now_s - self._phase_since_s

    def _announce(self, made: Plan, held: Held) -> None:
        """Report each notice once, and again when it changes."""
        new = frozenset(made.notices) - self._standing
        self._standing = frozenset(made.notices)
        for notice in new:
            _log.warning("certs.notice", reason=notice.reason, message=notice.message)
            self._reporter.event(notice, held.uid)
