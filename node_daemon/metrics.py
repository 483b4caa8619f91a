"""Metrics of slices, from the daemon's own state."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gpu_fraction.node_daemon.state.ledger import Usage
from gpu_fraction.node_daemon.state.node_state import NodeState

MIB: Final = 1 << 20
BUCKETS_S: Final = (
    *(0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0),
)


class Metrics:
    """Counters of what the daemon does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.pre_start_seconds = Histogram(
            "gpu_fraction_pre_start_seconds",
            "Time a container start waited for its slice, or a pod for a claim.",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.allocate_seconds = Histogram(
            "gpu_fraction_allocate_seconds",
            "Time the kubelet's admission waited for a name.",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.refusals = Counter(
            "gpu_fraction_refusals_total",
            "Container starts and allocations that were refused, by reason.",
            ["reason"],
            registry=registry,
        )
        self.registrations = Counter(
            "gpu_fraction_kubelet_registrations_total",
            "Registrations with the kubelet, by what made them needed.",
            ["cause"],
            registry=registry,
        )
        self.streams = Gauge(
            "gpu_fraction_kubelet_streams",
            "Open ListAndWatch streams; 1 while the daemon is registered with the kubelet.",
            registry=registry,
        )


class SliceGauges(Collector):
    """Capacity and allocation of each card, read at each scrape."""

    def __init__(self, state: NodeState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """The gauges; registered once with a CollectorRegistry."""
        inventory = self._state.inventory.value
        cards = inventory.cards if inventory is not None else ()
        used = self._state.ledger.usage()
        families = [
            GaugeMetricFamily(f"gpu_fraction_card_{name}", text, labels=["uuid"])
            for name, text in (
                ("capacity_core_milli", "Compute of a card, thousandths."),
                ("capacity_memory_bytes", "Memory of a card."),
                ("healthy", "1 where containers may be placed on a card."),
                ("allocated_core_milli", "Compute of a card that is allocated, thousandths."),
                ("allocated_memory_bytes", "Memory of a card that is allocated."),
                ("slices", "Containers that hold a slice of a card."),
            )
        ]
        for card in cards:
            usage = used.get(card.uuid, Usage())
            values = (
                card.core_milli,
                card.memory_mib * MIB,
                int(card.healthy),
                usage.core_milli,
                usage.memory_mib * MIB,
                usage.slots,
            )
            for family, value in zip(families, values, strict=True):
                family.add_metric([card.uuid], value)
        simulated = inventory is not None and inventory.simulated
        yield GaugeMetricFamily(
            "gpu_fraction_simulated", "1 where the cards do not exist.", value=int(simulated)
        )
        yield from families
