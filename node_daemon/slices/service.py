"""The part of the daemon that hands out slices: everything between the kubelet and the cards."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

import structlog
from prometheus_client import CollectorRegistry

from gpu_fraction.domain import inventory as inventory_format
from gpu_fraction.domain.frameworks import OFF, Switch
from gpu_fraction.domain.inventory import Inventory, InventoryError
from gpu_fraction.node_daemon.isolation.node import NodeIsolation
from gpu_fraction.node_daemon.kubelet import checkpoint
from gpu_fraction.node_daemon.kubelet.plugin import DevicePlugin, Refused
from gpu_fraction.node_daemon.kubelet.pod_resources import PodResourcesClient
from gpu_fraction.node_daemon.kubelet.session import KubeletSession, Waits
from gpu_fraction.node_daemon.metrics import Metrics, SliceGauges
from gpu_fraction.node_daemon.slices.binder import LateBinder, Timing
from gpu_fraction.node_daemon.slices.cdi import SliceFiles
from gpu_fraction.node_daemon.slices.collector import Collector, Pace
from gpu_fraction.node_daemon.slices.host_spec import HostSpecReader
from gpu_fraction.node_daemon.slices.identity import Identity
from gpu_fraction.node_daemon.slices.publisher import Publisher
from gpu_fraction.node_daemon.slices.shares import Assigner, Shares
from gpu_fraction.node_daemon.state.allocation import Binding, PodUid
from gpu_fraction.node_daemon.state.concurrency import Observable, first_completed
from gpu_fraction.node_daemon.state.durable import write_durably
from gpu_fraction.node_daemon.state.errors import StoreError
from gpu_fraction.node_daemon.state.node_state import NodeState
from gpu_fraction.node_daemon.state.tokens import TokenState, token_states
from gpu_fraction.settings.declaration import group, setting
from gpu_fraction.settings.parsers import path, words

LAST_INVENTORY: Final = "inventory.json"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Paths:
    """The daemon's paths on the host."""

    kubelet: Path = setting(
        path, Path("/var/lib/kubelet"), "the kubelet's directory", name="kubelet_dir"
    )
    state: Path = setting(
        path,
        Path("/var/lib/gpu-fraction"),
        "the daemon's own directory; must survive a reboot",
        name="state_dir",
    )
    cdi: Path = setting(
        path, Path("/var/run/cdi"), "where the container runtime reads CDI files", name="cdi_dir"
    )
    host_cdi: tuple[Path, ...] = setting(
        lambda given: tuple(map(Path, words(given))),
        (Path("/etc/cdi"), Path("/var/run/cdi")),
        "where nvidia-ctk writes CDI files, highest priority last",
        name="host_cdi_dirs",
    )

    @property
    def isolation(self) -> Path:
        """What isolation engines must remember."""
        return self.state / "isolation"

    @property
    def plugins(self) -> Path:
        """The directory of device plugin sockets."""
        return self.kubelet / "device-plugins"

    @property
    def pod_resources(self) -> Path:
        """The kubelet's PodResources socket."""
        return self.kubelet / "pod-resources" / "kubelet.sock"


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
        self._paths = paths
        self.state = state
        self.tokens: Observable[tuple[TokenState, ...]] = Observable(())
        self.metrics = Metrics(registry)
        registry.register(SliceGauges(state))
        self._files = SliceFiles(paths.cdi)
        self._pod_resources = PodResourcesClient(paths.pod_resources)
        kubelet_checkpoint = checkpoint.Checkpoint(paths.plugins / checkpoint.FILE)
        identity = Identity(
            self._pod_resources, kubelet_checkpoint, state.pods, time.time, tempo.timing.listed_s
        )
        shares = Shares(state.ledger, state.pods, ports.assigner)
        self._publisher = publisher = Publisher(
            self._files,
            HostSpecReader(paths.host_cdi),
            ports.isolation,
            frameworks=framework_env != OFF,
        )
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
        last = await asyncio.to_thread(self._load)
        for binding in self._bindings():
            self.state.ledger.record(binding.key, binding.shares)
        self.tokens.set(token_states(last, self.state.store))
        return last

    async def restore(self) -> None:
        """Set isolation up again for all stored bindings, once, when the cards are known."""
        if not self._publisher.restored.is_set():
            await self._publisher.restore(self._bindings())

    def _bindings(self) -> list[Binding]:
        return [a.binding for a in self.state.store if a.binding is not None]

    async def run(self) -> NoReturn:
        """Serve until cancelled, after ``load``."""
        with closing(self.state.store), closing(self._publisher):
            async with self._pod_resources, asyncio.TaskGroup() as tasks:
                tasks.create_task(self.session.run(), name="kubelet session")
                tasks.create_task(self.collector.run(), name="collector")
                tasks.create_task(self._advertise(), name="tokens")
        raise AssertionError("unreachable: the tasks run until cancelled")

    def _load(self) -> Inventory:
        """Read the stored state; the stored inventory only sizes the first list of tokens."""
        aside = self.state.store.load()
        self._files.prepare()
        _log.info("state_loaded", allocations=len(self.state.store), set_aside=aside)
        with suppress(OSError, InventoryError):
            return inventory_format.parse((self._paths.state / LAST_INVENTORY).read_text())
        return Inventory()

    async def _advertise(self) -> None:
        """Update the list of tokens after each change of cards and bindings."""
        inventory = await self.state.inventory.wait()
        remembered: Inventory | None = None
        while True:
            self.binder.changed.clear()
            self.tokens.set(token_states(inventory, self.state.store))
            if inventory != remembered:
                await self._remember(inventory)
                remembered = inventory
            inventory = await self._next(inventory)

    async def _next(self, inventory: Inventory) -> Inventory:
        """The inventory after it or a binding changed."""
        await first_completed(
            inventory=self.state.inventory.changed_from(inventory),
            binding=self.binder.changed.wait(),
        )
        return await self.state.inventory.wait()

    async def _remember(self, inventory: Inventory) -> None:
        content = inventory_format.render(inventory).encode()
        try:
            await asyncio.to_thread(write_durably, self._paths.state / LAST_INVENTORY, content)
        except StoreError as e:
            _log.warning("inventory_not_remembered", error=str(e))
