"""The node daemon, put together."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import NoReturn

import structlog
from prometheus_client import CollectorRegistry

from gpu_fraction.domain.container_runtime import cdi_warning
from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.events import EventRecorder
from gpu_fraction.node_daemon.cards import health_events
from gpu_fraction.node_daemon.cards.inventory import CardIsolation
from gpu_fraction.node_daemon.cards.inventory_reader import NodeReading
from gpu_fraction.node_daemon.cards.nvml_cards import NvmlCards
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.cards.simulated import FAULT_ANNOTATION, SimulatedCards
from gpu_fraction.node_daemon.cards.source import Cards, CardSource
from gpu_fraction.node_daemon.cluster.api_server import ApiAssigner, NodePublisher
from gpu_fraction.node_daemon.cluster.pod_feed import PodFeed
from gpu_fraction.node_daemon.cluster.reporter import Reporter
from gpu_fraction.node_daemon.dra.driver import DraDriver, DraPorts
from gpu_fraction.node_daemon.isolation.cgroup_paths import PodCgroups
from gpu_fraction.node_daemon.isolation.configured import ConfiguredIsolation
from gpu_fraction.node_daemon.isolation.node import facts
from gpu_fraction.node_daemon.settings import NodeDaemonSettings
from gpu_fraction.node_daemon.slices.service import Ports, SliceService
from gpu_fraction.node_daemon.state.allocation import PodUid
from gpu_fraction.node_daemon.state.concurrency import first_completed
from gpu_fraction.node_daemon.state.node_state import NodeState
from gpu_fraction.node_daemon.state.turn import Turn
from gpu_fraction.node_daemon.usage_metrics import UsageGauges
from gpu_fraction.serving.probes import serve_probes

_log = structlog.get_logger()


class NodeDaemon:
    """One node's daemon."""

    def __init__(
        self,
        settings: NodeDaemonSettings,
        client: Client,
        registry: CollectorRegistry,
        open_cards: Callable[[], Cards] | None = None,
    ) -> None:
        """Run on the cards of this machine, or on those that ``open_cards`` finds."""
        self._settings = settings
        self._registry = registry
        node_name = settings.node_name
        state = NodeState.below(settings.paths.state)
        self._events = EventRecorder(
            client, component="gpu-fraction-node-daemon", instance=node_name
        )
        self._reporter = reporter = Reporter(state, node_name, self._events)
        cgroups = PodCgroups()
        self._isolation = ConfiguredIsolation(
            settings.isolation, settings.paths.isolation, cgroups
        )
        offers = settings.mode == "device-plugin"
        socket = "" if offers else str(settings.paths.dra_socket(settings.pod_uid))
        waits = not offers and bool(settings.pod_uid)
        self._turn = Turn(settings.paths.state, socket, waits=waits)
        self._node = NodePublisher(client, node_name, state.inventory, offers=offers)

        def has_cgroup(uid: PodUid) -> bool:
            return cgroups.find(uid) is not None

        self._slices: SliceService | DraDriver
        if offers:
            ports = Ports(ApiAssigner(client), reporter.refused, has_cgroup, self._isolation)
            self._slices = SliceService(
                settings.paths,
                state,
                ports,
                registry,
                settings.tempo,
                framework_env=settings.framework_env,
            )
        else:
            outside = DraPorts(
                client,
                self._node.node,
                reporter.not_offered,
                has_cgroup,
                self._isolation,
                settings.pod_uid,
                self._turn,
            )
            self._slices = DraDriver(
                settings.paths,
                node_name,
                state,
                outside,
                registry,
                framework_env=settings.framework_env,
            )
        self._simulated: SimulatedCards | None = None
        if settings.simulated.count:
            simulated = self._simulated = SimulatedCards(
                node_name, settings.simulated, settings.cards.poll_interval_s
            )
            open_cards = open_cards or (lambda: simulated)
        self._cards = CardSource(
            open_cards or partial(NvmlCards.open, settings.cards),
            state.inventory,
            settings.paths.state,
            self._assess,
            reporter.card_changed,
            settings.cards,
        )
        registry.register(UsageGauges(state, self._cards.driver))
        self._pods = PodFeed(client, node_name, state.pods)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set. Running containers are left as they are.

        Raises:
            StoreError: the state or CDI directory cannot be used at all, or another daemon uses
                it and this one cannot wait: two would remove each other's sockets for ever.
        """
        settings = self._settings
        with self._turn:
            await self._turn.take()
            slices = self._slices
            serving = slices.serving() if isinstance(slices, DraDriver) else nullcontext()
            async with (
                serve_probes(
                    settings.host,
                    settings.port,
                    self._registry,
                    ready=slices.ready,
                    live=slices.live,
                ),
                serving,
            ):
                await first_completed(stop=stop.wait(), work=self._work())
        _log.info("stopped")

    async def _work(self) -> None:
        await self._turn.wait()
        last = await self._slices.load()
        if last.simulated or self._simulated is not None:
            last = Inventory()  # a simulated card that is no longer there has never been
        await first_completed(
            slices=self._slices.run(),
            cards=self._cards.run(last),
            pods=self._pods.run(),
            node=self._node.run(),
            clearing=self._watch_clear_annotation(),
            runtime=self._warn_if_cdi_off(),
            simulated=self._simulate(),
            events=self._events.run(),
        )

    async def _assess(
        self, driver: Driver | None, reading: NodeReading
    ) -> Mapping[str, CardIsolation]:
        """Assess the cards, and set isolation up again as soon as they are known."""
        found = await asyncio.to_thread(self._isolation.assess, facts(reading), driver)
        await self._slices.restore()
        return found

    async def _warn_if_cdi_off(self) -> NoReturn:
        """Warn once if the container runtime may not read CDI files."""
        if warning := cdi_warning(await self._node.container_runtime()):
            _log.warning("container_runtime_may_ignore_cdi", why=warning)
            self._reporter.runtime_warning(warning)
        await asyncio.Event().wait()
        raise AssertionError("unreachable: waits until cancelled")

    async def _simulate(self) -> NoReturn:
        """Say that cards are simulated, and give them the faults that the Node shows."""
        if self._simulated is not None:
            settings = self._settings.simulated
            _log.warning(
                "cards_simulated",
                count=settings.count,
                model=settings.model,
                memory_mib=settings.memory_mib,
            )
            self._reporter.simulated(settings.count)
            node = await self._node.node.wait()
            while True:
                faults = (node.metadata.annotations or {}).get(FAULT_ANNOTATION, "")
                self._simulated.show_faults(faults)
                node = await self._node.node.changed_from(node)
        await asyncio.Event().wait()
        raise AssertionError("unreachable: waits until cancelled")

    async def _watch_clear_annotation(self) -> NoReturn:
        """Declare cards healthy when an administrator annotates the Node."""
        while True:
            self._cards.clear(health_events.parse_clear(await self._node.clear_asked()))
