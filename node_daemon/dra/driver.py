"""The DRA driver, put together: the other way in which the daemon gives shares to containers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NoReturn

import grpc
from prometheus_client import CollectorRegistry

from gpu_fraction.domain import dra
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
from gpu_fraction.node_daemon.dra.registration import (
    Registration,
    get_info,
    listening,
    remove_deserted,
)
from gpu_fraction.node_daemon.dra.relay import Relay
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
from gpu_fraction.node_daemon.state.durable import run_to_end
from gpu_fraction.node_daemon.state.node_state import NodeState
from gpu_fraction.node_daemon.state.turn import Turn

SWEEP_S: Final = 60.0
"""Pause between two looks for what belongs to nobody. Chosen: the kubelet itself is quicker."""


GRACE_S: Final = 5.0
"""Time for calls in progress when the daemon ends. Chosen: a prepare takes milliseconds, one that
waits for the API server is repeated by the kubelet."""


@dataclass(frozen=True, slots=True)
class DraPorts:
    """The driver's outside dependencies.

    Attributes:
        client: The API server.
        node: This Node as last seen; the owner of its slices.
        refused: Hears why no card is offered.
        has_cgroup: Whether a pod still has a cgroup on this host.
        pod_uid: The daemon's pod, part of the names of its sockets; empty where unknown.
        turn: Says since when the daemon works.
    """

    client: Client
    node: Observable[WireNode]
    refused: Callable[[str], None]
    has_cgroup: Callable[[PodUid], bool]
    isolation: NodeIsolation
    pod_uid: str
    turn: Turn


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
        self._turn = ports.turn
        self._service = Relay(DraService(self._preparer, self._claims.put, metrics), ports.turn)
        self._health = Health(node_name, state.inventory)
        self._socket = paths.dra_socket(ports.pod_uid)
        self._registrar = paths.registrar_socket(ports.pod_uid)
        self._registration = Registration(self._socket, metrics)
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
        await asyncio.to_thread(remove_deserted, self._registrar.parent, f"{dra.DRIVER}*-reg.sock")
        await asyncio.to_thread(remove_deserted, self._socket.parent, "dra*.sock")
        last = await self._stored.load()
        self._turn.begun.set()
        return last

    async def restore(self) -> None:
        """Set isolation up again for all stored claims, once, when the cards are known."""
        await self._stored.restore()

    def ready(self) -> str:
        """Why containers cannot start, empty where they can.

        While the daemon waits for its turn it is ready to take over: an update ends its
        predecessor only then.
        """
        waits = not self._turn.begun.is_set()
        return self._registration.problem or ("" if waits else self._slices.problem)

    async def live(self) -> str:
        """Why the kubelet cannot reach the driver, empty where it can."""
        return await answers(self._registrar, get_info)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """The sockets; at the end they are removed, and nothing is written any more."""
        try:
            # The kubelet calls as soon as the second socket is there.
            async with (
                listening(self._socket, self._add_services, GRACE_S),
                listening(self._registrar, self._add_registration),
            ):
                try:
                    yield
                finally:
                    self._health.end.set()
        finally:
            await run_to_end(asyncio.to_thread(self._close))

    def _close(self) -> None:
        """The next daemon reads the state as soon as this one gives up its turn."""
        self._publisher.close(wait=True)
        self._state.store.close(wait=True)

    async def run(self) -> NoReturn:
        """Work until cancelled, after ``load``."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._slices.run(), name="slices")
            tasks.create_task(self._claims.run(), name="claim status")
            tasks.create_task(self._sweep(), name="sweep")
            tasks.create_task(self._remember(), name="inventory")
        raise AssertionError("unreachable: the tasks run until cancelled")

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
