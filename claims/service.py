"""What the backend dra needs of a controller, with everything it watches, ready to run."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

import structlog
from prometheus_client import CollectorRegistry

from gpu_fraction.claims.controller import Controller
from gpu_fraction.claims.metrics import OverlookedMetrics, TemplateMetrics
from gpu_fraction.claims.objects import (
    MANAGED,
    WORKLOADS,
    ClaimingPod,
    NamespaceRecord,
    TemplateRecord,
    WorkloadRecord,
    Workloads,
)
from gpu_fraction.claims.overlooked import Overlooked
from gpu_fraction.claims.settings import TemplateOptions
from gpu_fraction.claims.wanted import of_pod, of_workload
from gpu_fraction.domain import keys
from gpu_fraction.domain.backends.dra import Dra
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.stack import BackendConfig
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.reflector import PROMPT, Reflector
from gpu_fraction.kube.requests import Selection, ServerPath
from gpu_fraction.kube.requests import get as get_request
from gpu_fraction.kube.resources import CLAIM_TEMPLATES, NAMESPACES, PODS
from gpu_fraction.kube.store import Change

ABSENT_S: Final = 300.0
"""Seconds between two looks for a kind that the cluster lacks: chosen; until then the first pod
of such a workload waits for its template."""

RETRY_S: Final = 5.0
"""Seconds after which a server that did not say is asked again: chosen."""

log = structlog.get_logger()


class Pods(Protocol):
    """Pods that somebody watches, each a ``ClaimingPod``, as a Reflector gives them."""

    def subscribe(self, listener: Callable[[Change[Any]], None]) -> None:
        """Call a function for each pod and each change."""

    def unsubscribe(self, listener: Callable[[Change[Any]], None]) -> None:
        """Call it no longer."""

    def unsynced(self) -> str | None:
        """Why they cannot be trusted."""


class TemplateService:
    """Keeps the templates of every namespace for as long as it runs."""

    def __init__(
        self,
        client: Client,
        options: TemplateOptions,
        *,
        costs: BackendConfig,
        registry: CollectorRegistry,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            client: The API server.
            options: Which templates are made.
            costs: The sizes of the cards, the same as the webhook's.
            registry: Where metrics are collected.
        """
        self._client = client
        self._options = options
        self._backend = Dra(costs)
        self._metrics = TemplateMetrics(registry)
        self._overlooked = OverlookedMetrics(registry)

    async def run(self, pods: Pods) -> None:
        """Watch and write until cancelled; one replica at a time.

        Args:
            pods: The cluster's pods whose containers may still have to start.
        """
        made = _Round(self._client, self._options, self._backend, self._metrics, pods.unsynced)
        overlooked = Overlooked(self._client, self._overlooked)
        listeners = (made.pod, overlooked.pod)
        for listener in listeners:
            pods.subscribe(listener)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(overlooked.run(), name="overlooked-pods")
                await made.run()
        finally:
            for listener in listeners:
                pods.unsubscribe(listener)


class _Round:
    """One time of leading, with nothing left from the time before."""

    def __init__(
        self,
        client: Client,
        options: TemplateOptions,
        backend: Dra,
        metrics: TemplateMetrics,
        pods_unsynced: Callable[[], str | None],
    ) -> None:
        self._client = client
        self._mode = options.dra
        self._backend = backend
        (label,) = MANAGED.items()
        self._templates = Reflector(
            client,
            CLAIM_TEMPLATES.at(),
            TemplateRecord,
            selection=Selection(labels="=".join(label)),
            settings=PROMPT,
        )
        self._pods_unsynced = pods_unsynced
        self._namespaces = Reflector(
            client, NAMESPACES.at(), NamespaceRecord, selection=Selection(keys.LABEL_BACKEND)
        )
        self._workloads = {
            kind: Reflector(client, kind.resource.at(), WorkloadRecord) for kind in WORKLOADS
        }
        self._absent: set[Workloads] = set()
        self._controller = Controller(
            client,
            self._templates.store,
            grace_s=options.dra_template_grace_s,
            complete=self._complete,
            metrics=metrics,
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._templates.run(), name="watch-templates")
            tasks.create_task(self._namespaces.run(), name="watch-namespaces")
            await self._templates.synced.wait()
            self._templates.subscribe(self._template)
            tasks.create_task(self._controller.run(), name="claim-templates")
            await self._namespaces.synced.wait()
            self._namespaces.subscribe(self._namespace)
            for kind, reflector in self._workloads.items():
                reflector.subscribe(partial(self._workload, kind.resource.kind))
                name = f"watch-{kind.resource.plural}"
                tasks.create_task(self._follow(kind, reflector), name=name)

    async def _follow(self, kind: Workloads, reflector: Reflector[WorkloadRecord]) -> None:
        """Follow a kind once the server has it."""
        resource = kind.resource
        group = ServerPath(f"/apis/{resource.api_version}")
        while kind.optional:
            try:
                await self._client.send(get_request(group))
                self._absent.discard(kind)
                break
            except errors.NotFoundError:
                self._absent.add(kind)
                log.info("claims.kind_absent", kind=resource.qualified)
                await asyncio.sleep(ABSENT_S)
            except errors.KubeError as e:
                log.warning("claims.kind_unknown", kind=resource.qualified, error=str(e))
                await asyncio.sleep(RETRY_S)
        await reflector.run()

    def _complete(self) -> bool:
        known = [r.unsynced for k, r in self._workloads.items() if k not in self._absent]
        return all(unsynced() is None for unsynced in (self._pods_unsynced, *known))

    def _template(self, change: Change[TemplateRecord]) -> None:
        record = change.new or change.old
        if record is not None:
            self._controller.enqueue((record.metadata.namespace, record.metadata.name))

    def pod(self, change: Change[Any]) -> None:
        """A pod appeared, changed or vanished."""
        record: ClaimingPod | None = change.new or change.old
        if record is not None:
            owner = PODS.kind, record.metadata.namespace, record.metadata.name
            self._controller.need(owner, of_pod(record) if change.new else {})

    def _workload(self, kind: str, change: Change[WorkloadRecord]) -> None:
        record = change.new or change.old
        if record is not None:
            self._need(kind, record, exists=change.new is not None)

    def _need(self, kind: str, record: WorkloadRecord, *, exists: bool = True) -> None:
        namespace = record.metadata.namespace
        early = [p for p in record.asking if exists and self._early(namespace, p)]
        named = of_workload(early, self._backend)
        self._controller.need((kind, namespace, record.metadata.name), named)

    def _early(self, namespace: str, pod: Pod) -> bool:
        """Whether a pod is rendered for this backend, as far as is known without settings."""
        found = self._namespaces.store.get(namespace)
        chosen = pod.annotations().get(keys.BACKEND) or (found.backend if found else None)
        return chosen == Dra.name or (chosen is None and self._mode == "all")

    def _namespace(self, change: Change[NamespaceRecord]) -> None:
        record = change.new or change.old
        if record is None:
            return
        for kind, reflector in self._workloads.items():
            for workload in reflector.store:
                if workload.metadata.namespace == record.metadata.name:
                    self._need(kind.resource.kind, workload)
