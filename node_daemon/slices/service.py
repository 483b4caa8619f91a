"""The part of the daemon that hands out slices: everything between the kubelet and the cards."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import NoReturn

import grpc
from prometheus_client import CollectorRegistry

from gpu_fraction.domain.frameworks import OFF, Switch
from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2 as api
from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2_grpc as api_grpc
from gpu_fraction.node_daemon.isolation.node import NodeIsolation
from gpu_fraction.node_daemon.kubelet import checkpoint
from gpu_fraction.node_daemon.kubelet.plugin import DevicePlugin, Refused
from gpu_fraction.node_daemon.kubelet.pod_resources import PodResourcesClient
from gpu_fraction.node_daemon.kubelet.probe import answers
from gpu_fraction.node_daemon.kubelet.session import KubeletSession, Waits
from gpu_fraction.node_daemon.metrics import Metrics, SliceGauges
from gpu_fraction.node_daemon.slices.binder import LateBinder, Timing
from gpu_fraction.node_daemon.slices.cdi import SliceFiles
from gpu_fraction.node_daemon.slices.collector import Collector, Pace
from gpu_fraction.node_daemon.slices.host_spec import HostSpecReader
from gpu_fraction.node_daemon.slices.identity import Identity
from gpu_fraction.node_daemon.slices.paths import Paths
from gpu_fraction.node_daemon.slices.publisher import Publisher
from gpu_fraction.node_daemon.slices.shares import Assigner, Shares
from gpu_fraction.node_daemon.slices.stored import StoredSlices
from gpu_fraction.node_daemon.state.allocation import PodUid
from gpu_fraction.node_daemon.state.concurrency import Observable, first_completed
from gpu_fraction.node_daemon.state.node_state import NodeState
from gpu_fraction.node_daemon.state.tokens import TokenState, token_states
from gpu_fraction.settings.declaration import group


@dataclass(frozen=True, slots=True)
class Tempo:
    """Waits and intervals."""

    timing: Timing = group(Timing)
    pace: Pace = field(default_factory=Pace)
    waits: Waits = field(default_factory=Waits)


@dataclass(frozen=True, slots=True)
class Ports:
    """The service's outside dependencies.

    Attributes:
        refused: Reports a refusal to the pod's readers.
        has_cgroup: Whether a pod still has a cgroup on this host.
    """

    assigner: Assigner
    refused: Refused
    has_cgroup: Callable[[PodUid], bool]
    isolation: NodeIsolation


class SliceService:
    """Wires the parts together; ``state.pods`` and ``state.inventory`` are fed from outside."""

    def __init__(
        self,
        paths: Paths,
        state: NodeState,
        ports: Ports,
        registry: CollectorRegistry,
        tempo: Tempo | None = None,
        *,
        framework_env: Switch = "on",
    ) -> None:
        tempo = tempo or Tempo()
        self.state = state
        self.tokens: Observable[tuple[TokenState, ...]] = Observable(())
        self.metrics = Metrics(registry)
        registry.register(SliceGauges(state))
        self._pod_resources = PodResourcesClient(paths.pod_resources)
        kubelet_checkpoint = checkpoint.Checkpoint(paths.plugins / checkpoint.FILE)
        identity = Identity(
            self._pod_resources, kubelet_checkpoint, state.pods, time.time, tempo.timing.listed_s
        )
        shares = Shares(state.ledger, state.pods, ports.assigner)
        files = SliceFiles(paths.cdi)
        self._publisher = publisher = Publisher(
            files,
            HostSpecReader(paths.host_cdi),
            ports.isolation,
            frameworks=framework_env != OFF,
        )
        self._stored = StoredSlices(paths, state, files, publisher)
        self.binder = LateBinder(state, identity, shares, publisher, tempo.timing)
        self.collector = Collector(
            state,
            identity,
            shares,
            publisher,
            self.binder,
            has_cgroup=ports.has_cgroup,
            pace=tempo.pace,
        )
        self.plugin = DevicePlugin(
            self.tokens,
            self.binder.allocate,
            self.binder.pre_start,
            ports.refused,
            self.metrics,
        )
        self.session = KubeletSession(paths.plugins, self.plugin, self.metrics, tempo.waits)

    async def load(self) -> Inventory:
        """Read the state of an earlier process, and advertise it before any card is probed.

        Returns:
            The cards that it knew.

        Raises:
            StoreError: the state or CDI directory cannot be used at all.
        """
        last = await self._stored.load()
        self.tokens.set(token_states(last, self.state.store))
        return last

    async def restore(self) -> None:
        """Set isolation up again for all stored bindings, once, when the cards are known."""
        await self._stored.restore()

    def ready(self) -> str:
        """Why containers cannot start, empty where they can: registered, and the pods known."""
        if not self.plugin.streaming:
            return "the kubelet does not follow the list of slots"
        return "" if self.binder.ready.is_set() else "pods or cards are not known yet"

    async def live(self) -> str:
        """Ask the daemon's own socket, as the kubelet would; a dead listener is seen."""
        socket = self.session.socket
        return "" if socket is None else await answers(socket, _options)

    async def run(self) -> NoReturn:
        """Serve until cancelled, after ``load``."""
        with closing(self.state.store), closing(self._publisher):
            async with self._pod_resources, asyncio.TaskGroup() as tasks:
                tasks.create_task(self.session.run(), name="kubelet session")
                tasks.create_task(self.collector.run(), name="collector")
                tasks.create_task(self._advertise(), name="tokens")
        raise AssertionError("unreachable: the tasks run until cancelled")

    async def _advertise(self) -> None:
        """Update the list of tokens after each change of cards and bindings."""
        inventory = await self.state.inventory.wait()
        remembered: Inventory | None = None
        while True:
            self.binder.changed.clear()
            self.tokens.set(token_states(inventory, self.state.store))
            if inventory != remembered:
                await self._stored.remember(inventory)
                remembered = inventory
            inventory = await self._next(inventory)

    async def _next(self, inventory: Inventory) -> Inventory:
        """The inventory after it or a binding changed."""
        await first_completed(
            inventory=self.state.inventory.changed_from(inventory),
            binding=self.binder.changed.wait(),
        )
        return await self.state.inventory.wait()


async def _options(channel: grpc.aio.Channel) -> None:
    await api_grpc.DevicePluginStub(channel).GetDevicePluginOptions(api.Empty())
