"""Admission: a pod is admitted once every matching quota holds a reservation for it.

Any number of replicas admit pods at the same time. Reservations are written with
compare-and-swap, so two replicas cannot give away the same part of a budget. Requests of one
namespace that wait at the same time share one write.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from gpu_fraction.kube import errors as kube_errors
from gpu_fraction.kube.timestamps import time as api_time
from gpu_fraction.kube.timestamps import utc_now
from gpu_fraction.quota import ledger
from gpu_fraction.quota.api import QuotaApi
from gpu_fraction.quota.cache import QuotaCache
from gpu_fraction.quota.charge import PodFacts
from gpu_fraction.quota.decision import NotReadyError, Outcome, Required, decide
from gpu_fraction.quota.ledger import RESERVATION_S, Reservation
from gpu_fraction.quota.metrics import AdmissionMetrics
from gpu_fraction.quota.state import Quota, reservation_wire

MAX_RESERVATIONS: Final = 2500
"""Reservations in one quota: chosen, at most 1.3 MB of the 1.5 MiB that etcd stores, 520 bytes
each with a name of 253 characters."""

FIRST_PAUSE_S: Final = 0.005
LONGEST_PAUSE_S: Final = 0.04
"""Bounds of the random pause after a conflict: chosen, one write takes some milliseconds, and a
replica that pauses much longer loses against the others."""

LINGER_WRITES: Final = 3.0
LONGEST_LINGER_S: Final = 0.3
CONTENDED_S: Final = 1.0
"""If another replica wrote the same quota within the last second, a replica waits up to the time
of three writes before it writes again, so that others can write and more requests share the write.
Chosen: only writes that overlap in time conflict, and with two replicas each quota is left
unwritten for about half of the time."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Settings:
    """How pods are admitted.

    Attributes:
        required: Resources that may be used only under a quota.
        ttl_s: Seconds until a reservation expires, for the ``expires`` field.
    """

    required: Required = field(default_factory=Required)
    ttl_s: float = RESERVATION_S


@dataclass(eq=False, slots=True)
class _Waiter:
    facts: PodFacts
    dry_run: bool
    answer: "asyncio.Future[Outcome]"


@dataclass(slots=True)
class _Batch:
    """The decisions on all waiters of a namespace, and the quotas that they change."""

    before: dict[str, Quota]
    after: dict[str, Quota]
    outcomes: list[tuple[_Waiter, Outcome]]

    @property
    def refuses(self) -> bool:
        """Whether a waiter would be refused."""
        return any(not outcome.final for _, outcome in self.outcomes)

    def changed(self) -> list[tuple[Quota, Quota]]:
        """The quotas to write: the version read, and the wanted one."""
        return [
            (old, new)
            for name, old in sorted(self.before.items())
            if (new := self.after[name]) is not old
        ]


class Admission:
    """Reserves quota for new pods."""

    def __init__(
        self,
        api: QuotaApi,
        cache: QuotaCache,
        settings: Settings | None = None,
        *,
        metrics: AdmissionMetrics | None = None,
        rng: random.Random | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            api: The API server.
            cache: Quotas as the watch shows them; this replica adds its own writes.
            settings: How pods are admitted.
            metrics: Count what happens.
            rng: The source of jitter.
            now: The wall clock.
        """
        self._api = api
        self._cache = cache
        self._settings = settings or Settings()
        self._metrics = metrics or AdmissionMetrics(CollectorRegistry())
        self._rng = rng or random.SystemRandom()
        self._now = now
        self._waiting: dict[str, list[_Waiter]] = {}
        self._busy: set[str] = set()
        self._contended: dict[str, float] = {}
        self._write_s = FIRST_PAUSE_S
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Answer requests until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await asyncio.get_running_loop().create_future()
        finally:
            self._tasks = None
            for waiters in self._waiting.values():
                _fail(waiters, NotReadyError("stopping", 0))
            self._waiting.clear()
            self._busy.clear()

    async def admit(self, namespace: str, facts: PodFacts, *, dry_run: bool = False) -> Outcome:
        """The decision on a new pod; the reservations of an admitted pod are stored.

        The caller's timeout bounds the wait. If the caller has gone, the reservation expires.

        Raises:
            NotReadyError: no answer can be given now.
        """
        if not facts.demand:
            return Outcome()
        if self._tasks is None:
            raise NotReadyError("quota admission is not running")
        waiter = _Waiter(facts, dry_run, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(namespace, []).append(waiter)
        if namespace not in self._busy:
            self._busy.add(namespace)
            self._tasks.create_task(self._serve(namespace), name=f"quota-admission/{namespace}")
        outcome = await waiter.answer
        self._metrics.decided(outcome, dry_run=dry_run)
        return outcome

    async def _serve(self, namespace: str) -> None:
        """Answer the namespace's waiters in batches until none is left."""
        try:
            while self._waiting.get(namespace):
                await self._linger(namespace)
                waiters = self._waiting.pop(namespace, [])
                try:
                    await self._answer(namespace, waiters)
                except (NotReadyError, kube_errors.KubeError) as e:
                    _fail(waiters, _as_not_ready(e))
                except Exception as e:
                    # A bug fails these requests, not the server.
                    log.exception("quota.admission_failed", namespace=namespace)
                    _fail(waiters, e)
        finally:
            self._busy.discard(namespace)

    async def _answer(self, namespace: str, waiters: list[_Waiter]) -> None:
        pause_s = FIRST_PAUSE_S
        while waiters := [waiter for waiter in waiters if not waiter.answer.done()]:
            batch = self._decide(namespace, waiters)
            if batch.refuses:
                # The watch may be behind, so a refusal needs a fresh read.
                await self._refresh(namespace)
                batch = self._decide(namespace, waiters)
            if await self._write(batch):
                _answer(batch.outcomes)
                return
            self._metrics.conflicts.inc()
            self._contended[namespace] = asyncio.get_running_loop().time()
            await asyncio.sleep(self._rng.uniform(0, pause_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            if not self._moved(batch):
                await self._refresh(namespace)

    def _moved(self, batch: _Batch) -> bool:
        """Whether the watch has brought a later version of every quota in the batch."""
        return all(self._cache.get(old.key) is not old for old, _ in batch.changed())

    async def _linger(self, namespace: str) -> None:
        """Wait so that other replicas can write, if there were conflicts lately."""
        loop = asyncio.get_running_loop()
        since_s = self._contended.get(namespace)
        if since_s is None:
            return
        if loop.time() - since_s > CONTENDED_S:
            del self._contended[namespace]
            return
        longest_s = min(LONGEST_LINGER_S, LINGER_WRITES * self._write_s)
        await asyncio.sleep(self._rng.uniform(0, longest_s))

    def _decide(self, namespace: str, waiters: Iterable[_Waiter]) -> _Batch:
        """Decide on every waiter, each after the reservations of the ones before it."""
        before = {quota.name: quota for quota in self._cache.within(namespace)}
        after = dict(before)
        outcomes = []
        expires = api_time(self._now() + timedelta(seconds=self._settings.ttl_s))
        for waiter in waiters:
            outcome = decide(waiter.facts, after.values(), self._settings.required)
            outcomes.append((waiter, outcome))
            if waiter.dry_run:
                continue
            for name, amounts in outcome.reservations.items():
                quota = after[name]
                if quota.ledger is not None:
                    made = Reservation(amounts, expires, waiter.facts.name)
                    taken = ledger.reserve(quota.ledger, waiter.facts.uid, made)
                    after[name] = replace(quota, ledger=taken)
        return _Batch(before, after, outcomes)

    async def _write(self, batch: _Batch) -> bool:
        """Store the reservations; False where a quota has changed meanwhile."""
        for old, new in batch.changed():
            reserved = new.ledger.reserved if new.ledger else {}
            if len(reserved) > MAX_RESERVATIONS:
                raise NotReadyError(
                    f"GPU quota {old.name} waits for its controller to count "
                    f"{len(old.reserved)} admitted pods"
                )
            wires = [reservation_wire(uid, r) for uid, r in reserved.items()]
            loop = asyncio.get_running_loop()
            started_s = loop.time()
            try:
                self._cache.put(await self._api.write_reserved(old.wire, wires))
                self._write_s = loop.time() - started_s
            except kube_errors.ConflictError:
                return False
            except kube_errors.NotFoundError:
                self._cache.forget(old.key)
                return False
            self._metrics.writes.inc()
            self._metrics.reservations.inc(max(0, len(reserved) - len(old.reserved)))
        return True

    async def _refresh(self, namespace: str) -> None:
        listing = await self._api.list_quotas(namespace)
        self._cache.replace(namespace, listing.items, listing.resource_version)


def _answer(outcomes: Sequence[tuple[_Waiter, Outcome]]) -> None:
    for waiter, outcome in outcomes:
        if waiter.answer.done():
            continue
        if outcome.uncounted and not outcome.refusals:
            names = ", ".join(outcome.uncounted)
            waiter.answer.set_exception(
                NotReadyError(f"status unknown for GPU quota: {names}: its pods are being counted")
            )
        else:
            waiter.answer.set_result(outcome)


def _fail(waiters: Iterable[_Waiter], error: Exception) -> None:
    for waiter in waiters:
        if not waiter.answer.done():
            waiter.answer.set_exception(error)


def _as_not_ready(error: Exception) -> Exception:
    """The error for the caller: retryable where another try can help."""
    if isinstance(error, kube_errors.TransientError):
        return NotReadyError(f"the API server did not answer in time: {error}")
    return error
