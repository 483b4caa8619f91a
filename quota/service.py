"""Admission and controller with everything they watch, ready to run."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from prometheus_client import CollectorRegistry

from gpu_fraction.domain.backends import BackendConfig
from gpu_fraction.kube import objects
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.events import EventRecorder
from gpu_fraction.kube.reflector import Reflector, ReflectorSettings
from gpu_fraction.kube.resources import GPU_QUOTAS, NODES, PODS, RESOURCE_CLAIMS
from gpu_fraction.kube.store import Change
from gpu_fraction.quota import admission
from gpu_fraction.quota.api import ADMISSION_RETRY, ADMISSION_TIMEOUT_S, KubeQuotaApi
from gpu_fraction.quota.audit import Audit
from gpu_fraction.quota.cache import QuotaCache, newer
from gpu_fraction.quota.claims import CHARGED, LISTED, ClaimCache, ClaimRecord
from gpu_fraction.quota.cluster_cards import ClusterCards, NodeRecord
from gpu_fraction.quota.controller import Controller, ControllerSettings
from gpu_fraction.quota.decision import NotReadyError, Outcome, Refusal
from gpu_fraction.quota.gone import Gone
from gpu_fraction.quota.metrics import AdmissionMetrics, ControllerMetrics
from gpu_fraction.quota.pods import PodRecord, facts_of
from gpu_fraction.quota.requeue import Requeue
from gpu_fraction.quota.seen import Objects
from gpu_fraction.quota.usage import PodCache
from gpu_fraction.quota.wire import GPUQuota

Lead = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Runs work in one replica at a time, while that replica leads."""

Claims = Literal["ignored", "listed", "charged"]


class _Watched:
    def __init__(
        self, client: Client, costs: BackendConfig, following: ReflectorSettings | None = None
    ) -> None:
        self.cache = QuotaCache()
        self.cluster = ClusterCards(costs)
        self.quotas = Reflector(client, GPU_QUOTAS.at(), GPUQuota, settings=following)
        self.nodes = Reflector(client, NODES.at(), NodeRecord, settings=following)
        self.quotas.subscribe(self._quota)
        self.nodes.subscribe(lambda change: self.cluster.change(change.old, change.new))

    def _quota(self, change: Change[GPUQuota]) -> None:
        if change.new is not None:
            self.cache.put(change.new)
        elif change.old is not None:
            self.cache.remove(change.old)

    def unsynced(self) -> str | None:
        """Why the copies cannot be trusted, for readiness; None where they can.

        A quota that is created while the watch is dead is unknown. In a namespace without known
        quotas every pod is admitted without a question to the API server.
        """
        return self.quotas.unsynced() or self.nodes.unsynced()


class AdmissionService:
    """The webhook's side."""

    def __init__(
        self,
        client: Client,
        settings: admission.Settings,
        *,
        costs: BackendConfig,
        registry: CollectorRegistry,
        sink: EventRecorder,
        following: ReflectorSettings | None = None,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            client: The API server.
            settings: How pods are admitted.
            costs: What the cost of a pod depends on.
            registry: Where metrics are collected.
            sink: Takes events.
            following: How quotas and Nodes are followed.
        """
        self._watched = _Watched(client, costs, following)
        self._audit = Audit(sink)
        self._admission = admission.Admission(
            KubeQuotaApi(client.with_retry(ADMISSION_RETRY), timeout_s=ADMISSION_TIMEOUT_S),
            self._watched.cache,
            settings,
            metrics=AdmissionMetrics(registry),
        )

    async def run(self) -> None:
        """Watch and answer until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watched.quotas.run(), name="watch-gpuquotas")
            tasks.create_task(self._watched.nodes.run(), name="watch-nodes")
            tasks.create_task(self._admission.run(), name="quota-admission")

    def unsynced(self) -> str | None:
        """Why no request can be answered now."""
        return self._watched.unsynced()

    async def admit_claim(self, namespace: str, body: bytes, *, dry_run: bool) -> Outcome:
        """The decision on a new claim; its pods are not charged for it.

        Args:
            namespace: The request's.
            body: The object, JSON.
            dry_run: Decide, but reserve nothing and record no Event.

        Raises:
            NotReadyError: no answer can be given now.
            MalformedAnswerError: the object is not a claim.
        """
        record = objects.decode(ClaimRecord, body)
        if record.problems:
            return Outcome(refusals=tuple(Refusal("", problem) for problem in record.problems))
        if not record.facts.demand:
            return Outcome()
        if (reason := self.unsynced()) is not None:
            raise NotReadyError(reason)
        quotas = self._watched.cache.within(namespace)
        if any(quota.ledger and not quota.wire.status.claims_resource_version for quota in quotas):
            raise NotReadyError(
                "the controller has not counted claims yet; it does so with "
                "--hand-written-claims=charge"
            )
        facts = record.facts.on(self._watched.cluster.eligible(record.facts))
        outcome = await self._admission.admit(namespace, facts, dry_run=dry_run)
        if not dry_run:
            self._audit.claim_decided(namespace, record, quotas, outcome)
        return outcome

    async def admit(self, namespace: str, body: bytes, *, dry_run: bool) -> Outcome:
        """The decision on a new pod.

        Args:
            namespace: The request's; the object may leave it out.
            body: The object, JSON.
            dry_run: Decide, but reserve nothing and record no Event.

        Raises:
            NotReadyError: no answer can be given now.
            MalformedAnswerError: the object is not a pod.
        """
        record = objects.decode(PodRecord, body)
        facts = facts_of(record, self._watched.cluster.stacks)
        if not facts.demand:
            return Outcome()
        if (reason := self.unsynced()) is not None:
            raise NotReadyError(reason)
        cards = self._watched.cluster.cards_for(record, facts)
        outcome = await self._admission.admit(namespace, facts.on(cards), dry_run=dry_run)
        if not dry_run:
            self._audit.decided(namespace, record, self._watched.cache.within(namespace), outcome)
        return outcome

    def default_fraction(self, namespace: str, priority_class: str | None) -> str | None:
        """The default share of the first matching quota, by name, that has one."""
        for quota in sorted(self._watched.cache.within(namespace), key=lambda q: q.name):
            default = quota.spec.default_fraction
            if default and not quota.problems and quota.spec.matches(priority_class):
                return default
        return None


class ControllerService:
    """The controller's side.

    Attributes:
        pods: The cluster's pods; of those without GPUs, only the identity.
    """

    def __init__(
        self,
        client: Client,
        settings: ControllerSettings,
        *,
        costs: BackendConfig,
        registry: CollectorRegistry,
        lead: Lead,
        claims: Claims = "ignored",
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            client: The API server.
            settings: How to count.
            costs: What the cost of a pod depends on.
            registry: Where metrics are collected.
            lead: Runs the work that one replica does at a time.
            claims: Which ResourceClaims are followed: none, those that lower the charge of their
                pod, or also those that are charged themselves.
        """
        self._watched = _Watched(client, costs)
        self._lead = lead
        gone = Gone(asyncio.get_running_loop().time, 2 * settings.ttl_s)
        selection = CHARGED if claims == "charged" else LISTED
        self._claims: Reflector[ClaimRecord] | None = None
        self._claim_cache: ClaimCache | None = None
        if claims != "ignored":
            followed = Reflector(client, RESOURCE_CLAIMS.at(), ClaimRecord, selection=selection)
            self._claim_cache = ClaimCache(
                gone, lambda: followed.resource_version, charged=claims == "charged"
            )
            followed.subscribe(self._claim)
            self._claims = followed
        self._pod_cache = PodCache(
            asyncio.get_running_loop().time,
            version=lambda: self.pods.resource_version,
            gone=gone,
            stacks=self._watched.cluster.stacks,
        )
        self.pods = Reflector(client, PODS.at(), PodRecord)
        self._requeue = Requeue(client)
        self._controller = Controller(
            KubeQuotaApi(client, claims=selection),
            self._watched.cache,
            Objects(self._pod_cache, self._claim_cache),
            self._watched.cluster,
            settings,
            metrics=ControllerMetrics(registry),
            freed=lambda namespace, _quota: self._requeue.enqueue(namespace),
        )
        self.pods.subscribe(self._pod)
        self._watched.quotas.subscribe(self._quota)
        self._watched.nodes.subscribe(self._node)
        self._cluster_version = 0

    async def run(self) -> None:
        """Watch until cancelled, and count while this replica leads."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watched.quotas.run(), name="watch-gpuquotas")
            tasks.create_task(self._watched.nodes.run(), name="watch-nodes")
            tasks.create_task(self.pods.run(), name="watch-pods")
            if self._claims is not None:
                tasks.create_task(self._claims.run(), name="watch-claims")
                await self._claims.synced.wait()
            for reflector in (self._watched.quotas, self._watched.nodes, self.pods):
                await reflector.synced.wait()
            await self._lead(self._work)

    def unsynced(self) -> str | None:
        """Why the copies cannot be trusted, for readiness; None where they can."""
        claims = self._claims.unsynced() if self._claims else None
        return self.pods.unsynced() or claims or self._watched.unsynced()

    async def _work(self) -> None:
        # The previous leader may have stopped before it notified the owners of refused pods.
        for namespace in self._watched.cache.namespaces():
            self._requeue.enqueue(namespace)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._controller.run(), name="quota-controller")
            tasks.create_task(self._requeue.run(), name="quota-requeue")

    def _pod(self, change: Change[PodRecord]) -> None:
        matters = self._pod_cache.change(change.old, change.new)
        pod = change.new or change.old
        if matters and pod is not None:
            self._enqueue(pod.metadata.namespace)

    def _claim(self, change: Change[ClaimRecord]) -> None:
        claim = change.new or change.old
        if self._claim_cache and self._claim_cache.change(change.old, change.new) and claim:
            self._enqueue(claim.metadata.namespace)

    def _quota(self, change: Change[GPUQuota]) -> None:
        if change.new is None:
            if change.old is not None:
                self._controller.forget(change.old.metadata.namespace, change.old.metadata.name)
            return
        meta = change.new.metadata
        known = self._watched.cache.get((meta.namespace, meta.name))
        # A version that the cache already has is our own write.
        if known is None or not newer(known.wire.metadata.resource_version, meta.resource_version):
            self._controller.enqueue(meta.namespace)

    def _node(self, _change: Change[NodeRecord]) -> None:
        if self._watched.cluster.version != self._cluster_version:
            self._cluster_version = self._watched.cluster.version
            for namespace in self._watched.cache.namespaces():
                self._enqueue(namespace)

    def _enqueue(self, namespace: str) -> None:
        if self._watched.cache.within(namespace):
            self._controller.enqueue(namespace)
