"""What containers use of their cards, for Prometheus, beside what they were given."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from node_daemon.cards.nvml_driver import Driver
from node_daemon.isolation.usage import CardUsage, Usage, UsageReader
from node_daemon.metrics import MIB
from node_daemon.state.allocation import Binding, PodUid
from node_daemon.state.concurrency import Latest
from node_daemon.state.node_state import NodeState

__all__ = ["UsageGauges"]

_CONTAINER = ["namespace", "pod", "container", "uuid"]


@dataclass(frozen=True, slots=True)
class _Families:
    limit: GaugeMetricFamily
    used: GaugeMetricFamily
    busy: GaugeMetricFamily
    card_used: GaugeMetricFamily
    card_others: GaugeMetricFamily

    def all(self) -> Iterator[Metric]:
        yield from (self.limit, self.used, self.busy, self.card_used, self.card_others)


class UsageGauges(Collector):
    """Limits from the first second, use as NVML accounts it; read when it is asked for.

    Pods are labels here: a node has at most some hundreds, and they go with their pods.
    """

    def __init__(self, state: NodeState, driver: Latest[Driver]) -> None:
        self._state = state
        self._driver = driver
        self._reader: UsageReader | None = None

    def describe(self) -> Iterator[Metric]:
        """The names, without asking NVML."""
        return _families().all()

    def collect(self) -> Iterator[Metric]:
        """The gauges; blocks for a bounded time, on the thread that serves metrics."""
        families = _families()
        bindings = {
            (a.binding.uid, a.binding.container): a.binding
            for a in self._state.store
            if a.binding is not None
        }
        for binding in bindings.values():
            for share in binding.shares:
                families.limit.add_metric(_labels(binding, share.uuid), share.memory_mib * MIB)
        for card in self._read():
            _add(families, card, self._joined(card, bindings))
        return families.all()

    def _read(self) -> tuple[CardUsage, ...]:
        driver, inventory = self._driver.value, self._state.inventory.value
        if driver is None or inventory is None:
            return ()
        self._reader = self._reader or UsageReader(driver)
        return self._reader.read([card.uuid for card in inventory.cards])

    def _joined(
        self, card: CardUsage, bindings: Mapping[tuple[PodUid, str], Binding]
    ) -> Iterator[tuple[Binding, Usage]]:
        """Usage with its container; processes of pods that hold no slice are nobody's."""
        for member, usage in card.by.items():
            pod = self._state.pods.by_uid(PodUid(member.pod_uid))
            name = pod.container_of(member.container_id) if pod is not None else None
            binding = bindings.get((PodUid(member.pod_uid), name or ""))
            if binding is not None:
                yield binding, usage


def _families() -> _Families:
    return _Families(
        GaugeMetricFamily(
            "gpu_fraction_container_memory_limit_bytes",
            "Memory of a card that a container was given.",
            labels=_CONTAINER,
        ),
        GaugeMetricFamily(
            "gpu_fraction_container_memory_used_bytes",
            "Memory of a card that a container's processes hold.",
            labels=_CONTAINER,
        ),
        GaugeMetricFamily(
            "gpu_fraction_container_busy_ratio",
            "Part of the time in which a container's kernels ran on a card, last sample.",
            labels=_CONTAINER,
        ),
        GaugeMetricFamily(
            "gpu_fraction_card_memory_used_bytes",
            "Memory of a card in use, by anybody and the driver.",
            labels=["uuid"],
        ),
        GaugeMetricFamily(
            "gpu_fraction_card_memory_foreign_bytes",
            "Memory of a card held by processes that belong to no pod.",
            labels=["uuid"],
        ),
    )


def _add(families: _Families, card: CardUsage, joined: Iterator[tuple[Binding, Usage]]) -> None:
    if card.error:
        return
    if card.used_bytes is not None:
        families.card_used.add_metric([card.uuid], card.used_bytes)
    families.card_others.add_metric([card.uuid], card.others.memory_bytes)
    for binding, usage in joined:
        labels = _labels(binding, card.uuid)
        families.used.add_metric(labels, usage.memory_bytes)
        if usage.sm_percent is not None:
            families.busy.add_metric(labels, usage.sm_percent / 100)


def _labels(binding: Binding, uuid: str) -> list[str]:
    return [binding.namespace, binding.pod, binding.container, uuid]
