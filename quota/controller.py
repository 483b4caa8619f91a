"""The controller: counts pods and claims, and ends the reservations that admission made for them.

One replica counts at a time, the holder of a lease. Two at once do no harm, because every write
keeps three rules:

1. It replaces exactly the version of the quota that it was computed from.
2. The counted pods and claims are no older than those of the count before. Where a watch may be
   behind (a new leader, a write by another replica), they are listed instead.
3. A reservation ends only with its pod or claim: it was seen, or the time in which the API server
   can still store it has passed on this process's steady clock and a later list does not show it.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from gpu_fraction.kube import errors as kube_errors
from gpu_fraction.kube.timestamps import time as api_time
from gpu_fraction.kube.timestamps import utc_now
from gpu_fraction.quota import ledger, plan
from gpu_fraction.quota.api import QuotaApi
from gpu_fraction.quota.cache import QuotaCache, newer
from gpu_fraction.quota.cluster_cards import ClusterCards
from gpu_fraction.quota.metrics import ControllerMetrics
from gpu_fraction.quota.seen import Objects
from gpu_fraction.quota.state import Quota
from gpu_fraction.quota.usage import Usage, count

RESYNC_S: Final = 300.0
"""Source: kube-controller-manager --resource-quota-sync-period."""

INTERVAL_S: Final = 0.5
"""Seconds between two counts of one namespace: chosen, a burst of pods shares a write, and
conflicts with admission, which writes the same object, are rare."""

WORKERS: Final = 5
"""Namespaces counted at once. Source: kube-controller-manager
--concurrent-resource-quota-syncs."""

RETRY_S: Final = (0.05, 5.0)
"""First and longest wait after a failure: chosen."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """How the controller counts.

    Attributes:
        ttl_s: Seconds after which a reservation without a pod may expire.
        resync_s: Seconds after which every namespace is counted again.
        interval_s: Seconds between two counts of one namespace.
    """

    ttl_s: float = ledger.RESERVATION_S
    resync_s: float = RESYNC_S
    interval_s: float = INTERVAL_S


class Controller:
    """Keeps the status of every quota."""

    def __init__(
        self,
        api: QuotaApi,
        cache: QuotaCache,
        objects: Objects,
        cluster: ClusterCards,
        settings: ControllerSettings | None = None,
        *,
        now: Callable[[], datetime] = utc_now,
        metrics: ControllerMetrics | None = None,
        freed: Callable[[str, str], None] = lambda _namespace, _quota: None,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            api: The API server.
            cache: Quotas as the watch shows them.
            objects: Pods and claims as the watches show them.
            cluster: The cluster's GPUs.
            settings: How to count.
            now: The wall clock, for timestamps that people read.
            metrics: Show every count.
            freed: Called with namespace and name of a quota that has more room, or is gone.
        """
        self._api = api
        self._cache = cache
        self._objects = objects
        self._cluster = cluster
        self._settings = settings or ControllerSettings()
        self._clock = objects.clock
        self._now = now
        self._metrics = metrics or ControllerMetrics(CollectorRegistry())
        self._freed = freed
        self._due: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._first_seen: dict[tuple[str, str], float] = {}
        self._wake = asyncio.Event()

    def enqueue(self, namespace: str) -> None:
        """Count a namespace soon."""
        now_s = self._clock()
        self._asked.setdefault(namespace, now_s)
        if now_s < self._due.get(namespace, float("inf")):
            self._due[namespace] = now_s
            self._wake.set()

    async def run(self) -> None:
        """Count until cancelled, every namespace with a quota at least once a resync."""
        for namespace in self._cache.namespaces():
            self.enqueue(namespace)
        while True:
            now_s = self._clock()
            due = [n for n, at_s in self._due.items() if at_s <= now_s][:WORKERS]
            async with asyncio.TaskGroup() as tasks:
                for namespace in due:
                    del self._due[namespace]
                    tasks.create_task(self._attempt(namespace), name=f"count/{namespace}")
            self._wake.clear()
            next_s = min(self._due.values(), default=None)
            wait_s = None if next_s is None else max(0.0, next_s - self._clock())
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _attempt(self, namespace: str) -> None:
        started_s = self._clock()
        asked_s = self._asked.pop(namespace, started_s)
        try:
            again_s = await self.reconcile(namespace)
        except kube_errors.ConflictError:
            again_s = random.SystemRandom().uniform(0, RETRY_S[0])
            self._asked.setdefault(namespace, asked_s)
        except kube_errors.KubeError as e:
            failures = self._failures.get(namespace, 0) + 1
            self._failures[namespace] = failures
            again_s = min(RETRY_S[1], RETRY_S[0] * 2 ** min(failures, 10))
            self._asked.setdefault(namespace, asked_s)
            log.warning(
                "quota.reconcile_failed", namespace=namespace, error=str(e), again_s=again_s
            )
        else:
            self._failures.pop(namespace, None)
            ended_s = self._clock()
            self._metrics.reconciled(ended_s - started_s, ended_s - asked_s)
            again_s = max(self._settings.interval_s, again_s)
        self._reschedule(namespace, again_s)

    def _reschedule(self, namespace: str, again_s: float) -> None:
        """Count again after that time, or after the interval if it was enqueued meanwhile."""
        at_s = self._clock() + again_s
        if namespace in self._due:
            earliest_s = self._clock() + self._settings.interval_s
            self._due[namespace] = min(at_s, max(self._due[namespace], earliest_s))
        elif self._cache.within(namespace):
            self._due[namespace] = at_s

    async def reconcile(self, namespace: str) -> float:
        """Bring every quota of the namespace up to date.

        Returns:
            Seconds until it must be reconciled again even if nothing changes.

        Raises:
            KubeError: a read or write failed; the next call resolves a conflict.
        """
        again_s = self._settings.resync_s
        for quota in self._cache.within(namespace):
            again_s = min(again_s, await self._reconcile(quota))
        return again_s

    async def _reconcile(self, quota: Quota) -> float:
        namespace, name = quota.key
        waiting = self._waiting(quota)
        late = [uid for uid, age_s in waiting.items() if age_s >= self._settings.ttl_s]
        seen = self._objects.watched(namespace)
        status = quota.wire.status
        behind = newer(status.pods_resource_version or "0", seen.pods_version) or (
            seen.claims_version != ""
            and newer(status.claims_resource_version or "0", seen.claims_version)
        )
        if late or behind:
            seen = await self._objects.listed(namespace, self._api)
        names = frozenset(r.name for r in quota.reserved.values())
        usage = count(
            quota.spec, seen.objects, self._cluster, self._clock(), names, chosen=seen.chosen
        )
        # A reservation ends when its pod or claim is counted, deleted, or can never appear.
        here = {one.uid for one in seen.objects}
        void = {uid for uid in late if uid not in here}
        gone = filter(self._objects.gone, quota.reserved)
        state = ledger.recount(quota.reserved, usage.used, here.union(void, gone), usage.by_name)
        recount = plan.Recount(
            usage, state, seen.pods_version, api_time(self._now()), seen.claims_version
        )
        await self._store(quota, recount, waiting)
        if void:
            log.info("quota.reservations_expired", namespace=namespace, name=name, count=len(void))
        return self._next_s(state, waiting, usage)

    async def _store(
        self, quota: Quota, recount: plan.Recount, waiting: Mapping[str, float]
    ) -> None:
        wanted = plan.status(quota, recount)
        namespace, name = quota.key
        if not plan.same(wanted, quota.wire.status):
            try:
                stored = await self._api.write_status(quota.wire, wanted)
            except kube_errors.ConflictError:
                listing = await self._api.list_quotas(namespace)
                self._cache.replace(namespace, listing.items, listing.resource_version)
                raise
            except kube_errors.NotFoundError:
                self._cache.forget(quota.key)
                self.forget(namespace, name)
                return
            self._cache.put(stored)
        oldest_s = max((waiting.get(uid, 0.0) for uid in recount.ledger.reserved), default=0.0)
        self._metrics.counted(quota, recount.ledger, oldest_s)
        if plan.freed(quota, recount):
            self._freed(namespace, name)

    def forget(self, namespace: str, name: str) -> None:
        """A quota was deleted: pods that it refused may fit now."""
        self._metrics.forgotten(namespace, name)
        self._freed(namespace, name)

    def _waiting(self, quota: Quota) -> dict[str, float]:
        """Seconds since this process first saw each open reservation of the quota."""
        now_s, owner = self._clock(), quota.wire.metadata.uid
        waiting = {
            uid: now_s - self._first_seen.setdefault((owner, uid), now_s) for uid in quota.reserved
        }
        for key in [k for k in self._first_seen if k[0] == owner and k[1] not in waiting]:
            del self._first_seen[key]
        return waiting

    def _next_s(self, state: ledger.Ledger, waiting: dict[str, float], usage: Usage) -> float:
        """Seconds until the next reservation expires or a deleted pod stops counting."""
        waits_s = [self._settings.ttl_s - waiting[uid] for uid in state.reserved if uid in waiting]
        if usage.next_change_s is not None:
            waits_s.append(usage.next_change_s - self._clock())
        return max(0.0, min(waits_s, default=self._settings.resync_s))
