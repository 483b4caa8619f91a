"""The extender's service: its state, kept up to date by watches, and its HTTPS server."""

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry

from gpu_fraction.kube.client import Client
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.resources import NODES, PODS
from gpu_fraction.kube.store import Change
from gpu_fraction.scheduler.auth import AuthError, Callers, server_tls
from gpu_fraction.scheduler.binding import Binder, KubePodApi
from gpu_fraction.scheduler.endpoints import ExtenderApp
from gpu_fraction.scheduler.extender import Extender
from gpu_fraction.scheduler.metrics import ExtenderMetrics, StateCollector
from gpu_fraction.scheduler.model_quota import ModelLimits
from gpu_fraction.scheduler.objects import Node, Pod
from gpu_fraction.scheduler.settings import ExtenderSettings
from gpu_fraction.scheduler.state import ClusterState
from gpu_fraction.serving.background import Work, background
from gpu_fraction.serving.server import Drain, HttpsServer
from gpu_fraction.settings.option import SettingsError

DRAIN: Final = Drain(least_s=0.0, most_s=20.0)
"""The scheduler is in the same pod and ends with it; a bind in progress may take 15 s."""


class ExtenderService:
    """One extender.

    Attributes:
        state: The cluster.
        app: The HTTP application, to be served over TLS.
    """

    def __init__(
        self, client: Client, callers: Callers, limits: ModelLimits, registry: CollectorRegistry
    ) -> None:
        """Connect the parts; :meth:`run` does the work.

        Args:
            client: The API server.
            callers: The callers that may call.
            limits: The limits of namespaces on GPU models; the caller keeps them up to date.
            registry: The registry of the metrics.
        """
        clock = asyncio.get_running_loop().time
        self.state = ClusterState()
        self._nodes = Reflector(client, NODES.at(), Node)
        self._pods = Reflector(client, PODS.at(), Pod)
        metrics = ExtenderMetrics(registry)
        StateCollector(registry, self.state, clock)
        self._limits = limits
        extender = Extender(self.state, limits)
        self._binder = Binder(self.state, extender, KubePodApi(client), metrics, clock)
        self.app = ExtenderApp(
            self.state,
            extender,
            self._binder,
            callers,
            metrics,
            registry=registry,
            check=self.check,
        ).build()
        self._nodes.subscribe(self._on_node)
        self._pods.subscribe(self._on_pod)

    def check(self) -> str | None:
        """Why the extender is not ready; None where it is.

        The watches may lag, because our own binds are claims until the watch shows them.
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
        """Watch the cluster and recheck old claims until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._nodes.run(), name="nodes")
            tasks.create_task(self._pods.run(), name="pods")
            tasks.create_task(self._binder.recheck_forever(), name="recheck")

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


async def serve(
    settings: ExtenderSettings,
    client: Client,
    limits: ModelLimits,
    registry: CollectorRegistry,
    stop: asyncio.Event,
    *work: Work,
) -> None:
    """Serve until ``stop`` is set, then drain.

    Args:
        settings: The address, the certificates and the callers.
        client: The API server.
        limits: The limits of namespaces on GPU models.
        registry: The registry of the metrics.
        stop: Begins the drain.
        *work: Runs beside the server, for example to keep ``limits`` up to date.

    Raises:
        SettingsError: a file that the settings name is missing or does not parse.
    """
    try:
        token = ""
        if settings.token_file is not None:
            token = await asyncio.to_thread(settings.token_file.read_text)
        tls = await asyncio.to_thread(
            server_tls, settings.tls_cert, settings.tls_key, settings.client_ca
        )
        callers = Callers(settings.client_names, token.strip())
    except (OSError, AuthError) as e:
        raise SettingsError([str(e)]) from e
    service = ExtenderService(client, callers, limits, registry)
    server = HttpsServer(service.app, host=settings.host, port=settings.port, tls=tls, drain=DRAIN)
    async with background(service.run, *work):
        await server.serve(stop)
