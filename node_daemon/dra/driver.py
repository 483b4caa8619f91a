"""The DRA driver, put together: the other way in which the daemon gives shares to containers."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final, NoReturn

import grpc
from prometheus_client import CollectorRegistry

from gpu_fraction.domain.frameworks import OFF, Switch
from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.kube.client import Client
from gpu_fraction.kubelet_api import dra_health_v1_pb2_grpc as health_v1
from gpu_fraction.kubelet_api import dra_health_v1alpha1_pb2_grpc as health_v1alpha1
from gpu_fraction.kubelet_api import dra_v1_pb2_grpc as dra_v1
from gpu_fraction.kubelet_api import pluginregistration_v1_pb2_grpc as registration_v1
from gpu_fraction.node_daemon.cluster.api_server import WireNode
from gpu_fraction.node_daemon.dra.claim_status import ClaimStatusWriter
from gpu_fraction.node_daemon.dra.health import Health, HealthV1, HealthV1alpha1
from gpu_fraction.node_daemon.dra.preparer import Preparer
from gpu_fraction.node_daemon.dra.publisher import SlicePublisher
from gpu_fraction.node_daemon.dra.registration import Registration, get_info, listening
from gpu_fraction.node_daemon.dra.service import DraService
from gpu_fraction.node_daemon.isolation.node import NodeIsolation
from gpu_fraction.node_daemon.kubelet.probe import answers
from gpu_fraction.node_daemon.metrics import Metrics, SliceGauges
from gpu_fraction.node_daemon.slices.cdi import SliceFiles
from gpu_fraction.node_daemon.slices.host_spec import HostSpecReader
from gpu_fraction.node_daemon.slices.paths import Paths
from gpu_fraction.node_daemon.slices.publisher import Publisher
from gpu_fraction.node_daemon.slices.stored import StoredSlices
from gpu_fraction.node_daemon.state.allocation import PodUid
from gpu_fraction.node_daemon.state.concurrency import Observable
from gpu_fraction.node_daemon.state.node_state import NodeState

SWEEP_S: Final = 60.0
"""Pause between two looks for what belongs to nobody. Chosen: the kubelet itself is quicker."""


@dataclass(frozen=True, slots=True)
class DraPorts:
    """The driver's outside dependencies.

    Attributes:
        client: The API server.
        node: This Node as last seen; the owner of its slices.
        refused: Hears why no card is offered.
        has_cgroup: Whether a pod still has a cgroup on this host.
    """

    client: Client
    node: Observable[WireNode]
    refused: Callable[[str], None]
    has_cgroup: Callable[[PodUid], bool]
    isolation: NodeIsolation


class DraDriver:
    """Wires the parts together; ``state.pods`` and ``state.inventory`` are fed from outside."""

    def __init__(
        self,
        paths: Paths,
        node_name: str,
        state: NodeState,
        ports: DraPorts,
        registry: CollectorRegistry,
        *,
        framework_env: Switch = "on",
    ) -> None:
        self._paths = paths
        self._state = state
        metrics = Metrics(registry)
        registry.register(SliceGauges(state))
        files = SliceFiles(paths.cdi)
        self._publisher = Publisher(
            files,
            HostSpecReader(paths.host_cdi),
            ports.isolation,
            frameworks=framework_env != OFF,
        )
        self._stored = StoredSlices(paths, state, files, self._publisher)
        self._preparer = Preparer(state, self._publisher, ports.client, ports.has_cgroup)
        self._claims = ClaimStatusWriter(ports.client)
        self._service = DraService(self._preparer, self._claims.put, metrics)
        self._health = Health(node_name, state.inventory)
        self._registration = Registration(paths.dra_socket, metrics)
        self._slices = SlicePublisher(
            ports.client, node_name, state.inventory, ports.node, ports.refused
        )

    async def load(self) -> Inventory:
        """Read the state of an earlier process.

        Returns:
            The cards that it knew.

        Raises:
            StoreError: the state or CDI directory cannot be used at all.
        """
        return await self._stored.load()

    async def restore(self) -> None:
        """Set isolation up again for all stored claims, once, when the cards are known."""
        await self._stored.restore()

    def ready(self) -> str:
        """Why containers cannot start, empty where they can."""
        return self._registration.problem or self._slices.problem

    async def live(self) -> str:
        """Why the kubelet cannot reach the driver, empty where it can."""
        return await answers(self._paths.registrar_socket, get_info)

    async def run(self) -> NoReturn:
        """Serve until cancelled, after ``load``; the sockets are removed at the end."""
        with closing(self._state.store), closing(self._publisher):
            # The kubelet calls as soon as the second socket is there.
            async with (
                listening(self._paths.dra_socket, self._add_services),
                listening(self._paths.registrar_socket, self._add_registration),
            ):
                try:
                    await self._work()
                finally:
                    self._health.end.set()
        raise AssertionError("unreachable: the tasks run until cancelled")

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._slices.run(), name="slices")
            tasks.create_task(self._claims.run(), name="claim status")
            tasks.create_task(self._sweep(), name="sweep")
            tasks.create_task(self._remember(), name="inventory")

    def _add_services(self, server: grpc.aio.Server) -> None:
        dra_v1.add_DRAPluginServicer_to_server(self._service, server)
        health_v1.add_DRAResourceHealthServicer_to_server(HealthV1(self._health), server)
        health_v1alpha1.add_DRAResourceHealthServicer_to_server(
            HealthV1alpha1(self._health), server
        )

    def _add_registration(self, server: grpc.aio.Server) -> None:
        registration_v1.add_RegistrationServicer_to_server(self._registration, server)

    async def _sweep(self) -> NoReturn:
        await self._state.pods.wait_synced()
        await self._publisher.restored.wait()
        while True:
            await self._preparer.sweep(await self._state.inventory.wait())
            await asyncio.sleep(SWEEP_S)

    async def _remember(self) -> NoReturn:
        inventory = await self._state.inventory.wait()
        while True:
            await self._stored.remember(inventory)
            inventory = await self._state.inventory.changed_from(inventory)
