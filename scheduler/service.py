"""The extender's state kept up to date, and everything around it wired together."""

import asyncio
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from gpu_fraction.kube.client import Client
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.resources import NODES, PODS
from gpu_fraction.kube.store import Change
from scheduler.app import ExtenderApp
from scheduler.asks import RequestReader, no_requests
from scheduler.auth import Callers
from scheduler.binding import Binder, KubePodApi
from scheduler.extender import Extender
from scheduler.metrics import ExtenderMetrics, StateCollector
from scheduler.model_quota import NO_LIMITS, ModelLimits
from scheduler.nodes import Node
from scheduler.pods import Pod
from scheduler.state import ClusterState

__all__ = ["ExtenderService", "Wiring"]


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the extender is given by whoever starts it.

    Attributes:
        callers: Who may call.
        read_request: Reads a pod's request annotation.
        limits: What namespaces may hold of GPU models; kept up to date by whoever starts it.
    """

    callers: Callers
    read_request: RequestReader = no_requests
    limits: ModelLimits = NO_LIMITS


class ExtenderService:
    """One extender.

    Attributes:
        state: The cluster.
        app: The HTTP application, to be served over TLS.
    """

    def __init__(self, client: Client, wiring: Wiring, registry: CollectorRegistry) -> None:
        """Wire everything; :meth:`run` does the work.

        Args:
            client: The API server.
            wiring: What the parts need.
            registry: Where the metrics go.
        """
        clock = asyncio.get_running_loop().time
        self.state = ClusterState(wiring.read_request)
        self._nodes = Reflector(client, NODES.at(), Node)
        self._pods = Reflector(client, PODS.at(), Pod)
        metrics = ExtenderMetrics(registry)
        StateCollector(registry, self.state, clock)
        self._limits = wiring.limits
        extender = Extender(self.state, wiring.limits)
        self._binder = Binder(self.state, extender, KubePodApi(client), metrics, clock)
        self.app = ExtenderApp(
            self.state,
            extender,
            self._binder,
            wiring.callers,
            metrics,
            registry=registry,
            check=self.check,
        ).build()
        self._nodes.subscribe(self._on_node)
        self._pods.subscribe(self._on_pod)

    def check(self) -> str | None:
        """Why nothing may be decided yet; None where it may.

        A view that lags is good enough: our own binds are claims until it shows them.
        """
        for name, reflector in (("nodes", self._nodes), ("pods", self._pods)):
            if not reflector.synced.is_set():
                return f"{name} are not loaded"
        return self._limits.unsynced()

    async def synced(self) -> None:
        """Wait until nodes and pods are loaded."""
        await self._nodes.synced.wait()
        await self._pods.synced.wait()

    async def run(self) -> None:
        """Follow the cluster and settle open binds until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._nodes.run(), name="nodes")
            tasks.create_task(self._pods.run(), name="pods")
            tasks.create_task(self._binder.settle_forever(), name="settle")

    def _on_node(self, change: Change[Node]) -> None:
        if change.new is not None:
            node = change.new
            self.state.node_changed(node.metadata.name, node.cards, node.problem)
        elif change.old is not None:
            self.state.node_removed(change.old.metadata.name)

    def _on_pod(self, change: Change[Pod]) -> None:
        if change.new is not None:
            self.state.pod_changed(change.new)
        elif change.old is not None:
            self.state.pod_removed(change.old.metadata.uid)
