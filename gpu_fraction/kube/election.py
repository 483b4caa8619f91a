"""Leader election: work that runs in one replica at a time.

The leader renews its Lease and works in one TaskGroup, so the end of one ends the other: a
renewal that fails or hangs beyond the deadline, work that crashes, cancellation.

The work is cancelled ``duration_s - renew_deadline_s`` before another replica may begin. Its
writes must still be safe against the other replica (optimistic concurrency), because a process
can be stopped at any instruction and continued later; :meth:`Election.check` narrows that window.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import structlog

from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.errors import LeaseLostError
from gpu_fraction.kube.lease import LeaseLock
from gpu_fraction.kube.resources import LEASES

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """Durations of an election.

    Source of the defaults: component-base config/v1alpha1/defaults.go,
    RecommendedDefaultLeaderElectionConfiguration.

    Attributes:
        duration_s: seconds without a renewal after which another may lead; whole seconds.
        renew_deadline_s: seconds without a renewal after which the leader stops.
        retry_period_s: seconds between renewals, and about that between tries to lead.
        release_timeout_s: seconds for the release of the Lease at exit.
    """

    duration_s: int = 15
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0
    release_timeout_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.retry_period_s < self.renew_deadline_s < self.duration_s:
            raise ValueError(
                "0 < retry_period_s < renew_deadline_s < duration_s must hold:"
                f" {self.retry_period_s}, {self.renew_deadline_s}, {self.duration_s}"
            )


Work = Callable[[], Awaitable[Any]]
"""The leader's work; it must end when cancelled."""


class Election:
    """One replica's part in the election for one Lease."""

    def __init__(
        self,
        client: Client,
        *,
        name: str,
        namespace: str,
        identity: str,
        timings: LeaseTimings | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; :meth:`run` does the work.

        Args:
            client: the API server.
            name: of the Lease.
            namespace: of the Lease.
            identity: from :func:`gpu_fraction.kube.lease.unique_identity`.
            timings: durations of the election.
            rng: the source of jitter.
        """
        self._timings = timings or LeaseTimings()
        self._lock = LeaseLock(
            client,
            LEASES.at(name, namespace=namespace),
            identity=identity,
            duration_s=self._timings.duration_s,
        )
        self._observer = client.observer
        self._rng = rng or random.SystemRandom()
        self._renewed_at: float | None = None

    @property
    def is_leader(self) -> bool:
        """True while the work may run."""
        return self._renewed_at is not None

    def check(self) -> None:
        """Check that this replica still leads; the work calls it right before a write.

        Raises:
            LeaseLostError: the last renewal is older than the deadline, for example because the
                process was stopped and continued.
        """
        if not self.is_leader or asyncio.get_running_loop().time() >= self._deadline():
            raise self._late()

    async def run(self, work: Work) -> None:
        """Lead whenever possible, until the work returns or this is cancelled.

        A replica that loses the Lease becomes a candidate again. An error of the work ends the
        leadership and is raised; the process should restart.

        Raises:
            ExceptionGroup: the work failed.
        """
        while True:
            await self._acquire()
            try:
                await self._lead(work)
            except* LeaseLostError as lost:
                _log.warning(
                    "kube.lease_lost",
                    lease=str(self._lock.address),
                    error=str(lost.exceptions[0]),
                )
            else:
                return
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # A TaskGroup of Python before 3.13 drops a cancellation that meets an error.
                raise asyncio.CancelledError

    async def _acquire(self) -> None:
        while True:
            if await self._try_acquire():
                return
            # The jitter keeps candidates from trying together.
            await asyncio.sleep(self._timings.retry_period_s * (1 + self._rng.random()))

    async def _try_acquire(self) -> bool:
        try:
            await self._lock.observe(timeout_s=self._call_s())
            if not self._lock.is_free():
                return False
            await self._hold()
        except (errors.ConflictError, errors.AlreadyExistsError, errors.NotFoundError):
            return False  # another candidate was faster
        except errors.KubeError as error:
            _log.warning(
                "kube.lease_not_acquired", lease=str(self._lock.address), error=str(error)
            )
            return False
        return True

    async def _lead(self, work: Work) -> None:
        _log.info("kube.leading", lease=str(self._lock.address), identity=self._lock.identity)
        self._observe(leading=True)
        try:
            async with asyncio.TaskGroup() as tasks:
                renewer = tasks.create_task(self._renew(), name="lease-renewer")
                worker = tasks.create_task(_awaited(work), name="leader-work")
                # Waiting inside the group, because before 3.12 a group that is cancelled by
                # its own children while it closes leaves the task marked as cancelled.
                await asyncio.wait((worker,))
                renewer.cancel()
        finally:
            # The work has ended here, so another replica may begin at once.
            self._renewed_at = None
            self._observe(leading=False)
            await self._release()

    async def _renew(self) -> NoReturn:
        """Renew until renewals fail for too long.

        Raises:
            LeaseLostError: the deadline passed, or another replica holds the Lease.
        """
        loop = asyncio.get_running_loop()
        while True:
            left_s = self._deadline() - loop.time()
            await asyncio.sleep(min(self._timings.retry_period_s, max(left_s, 0.0)))
            self.check()
            try:
                async with asyncio.timeout_at(self._deadline()):
                    await self._renew_once()
            except TimeoutError:
                raise self._late() from None
            except errors.KubeError as error:
                _log.warning(
                    "kube.lease_not_renewed", lease=str(self._lock.address), error=str(error)
                )

    async def _renew_once(self) -> None:
        try:
            await self._hold()
        except (errors.ConflictError, errors.NotFoundError, errors.AlreadyExistsError):
            # Another client wrote it, or an earlier write of ours arrived without an answer.
            await self._lock.observe(timeout_s=self._call_s())
            if self._lock.holder not in {"", self._lock.identity}:
                raise LeaseLostError(f"{self._lock.address}: {self._lock.holder} leads") from None
            await self._hold()

    async def _hold(self) -> None:
        # Counted from before the request: another replica sees the renewal no earlier.
        sent_at = asyncio.get_running_loop().time()
        await self._lock.hold(timeout_s=self._call_s())
        self._renewed_at = sent_at

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(self._timings.release_timeout_s):
                await self._lock.release(timeout_s=self._timings.release_timeout_s)
        except (errors.KubeError, TimeoutError) as error:
            _log.warning(
                "kube.lease_not_released", lease=str(self._lock.address), error=str(error)
            )

    def _late(self) -> LeaseLostError:
        within_s = self._timings.renew_deadline_s
        return LeaseLostError(f"{self._lock.address}: not renewed in {within_s:g} s")

    def _deadline(self) -> float:
        renewed_at = self._renewed_at if self._renewed_at is not None else 0.0
        return renewed_at + self._timings.renew_deadline_s

    def _call_s(self) -> float:
        """Half the deadline: a connection that hangs leaves time for a second try."""
        return self._timings.renew_deadline_s / 2

    def _observe(self, *, leading: bool) -> None:
        if self._observer is not None:
            self._observer.leads(name=self._lock.address.name, leading=leading)


async def _awaited(work: Work) -> None:
    await work()
