"""Metrics of the containers' limits and use."""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.isolation.usage import CardUsage, ContainerUse, UsageReader
from gpu_fraction.node_daemon.metrics import MIB
from gpu_fraction.node_daemon.state.allocation import Binding, PodUid
from gpu_fraction.node_daemon.state.concurrency import Observable
from gpu_fraction.node_daemon.state.node_state import NodeState

_CONTAINER: Final = ("namespace", "pod", "container", "uuid")

LIMIT: Final = "container_memory_limit_bytes"
USED: Final = "container_memory_used_bytes"
BUSY: Final = "container_busy_ratio"
CARD_USED: Final = "card_memory_used_bytes"
CARD_OTHERS: Final = "card_memory_foreign_bytes"

_METRICS: Final = (
    (LIMIT, "Memory of a card that a container was given.", _CONTAINER),
    (USED, "Memory of a card that a container's processes hold.", _CONTAINER),
    (
        BUSY,
        "Part of the time in which a container's kernels ran on a card, last sample.",
        _CONTAINER,
    ),
    (CARD_USED, "Memory of a card in use, by any process and the driver.", ("uuid",)),
    (CARD_OTHERS, "Memory of a card held by processes that belong to no pod.", ("uuid",)),
)


class UsageGauges(Collector):
    """Limits from the first second, use as NVML accounts it; read when it is asked for.

    Pods are labels here: a node has at most some hundreds, and they go with their pods.
    """

    def __init__(self, state: NodeState, driver: Observable[Driver]) -> None:
        self._state = state
        self._driver = driver
        self._reader: UsageReader | None = None

    def describe(self) -> Iterator[Metric]:
        """The names, without asking NVML."""
        return iter(_families().values())

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
                families[LIMIT].add_metric(_labels(binding, share.uuid), share.memory_mib * MIB)
        for card in self._read():
            _add(families, card, self._joined(card, bindings))
        return iter(families.values())

    def _read(self) -> tuple[CardUsage, ...]:
        driver, inventory = self._driver.value, self._state.inventory.value
        if driver is None or inventory is None:
            return ()
        self._reader = self._reader or UsageReader(driver)
        return self._reader.read([card.uuid for card in inventory.cards])

    def _joined(
        self, card: CardUsage, bindings: Mapping[tuple[PodUid, str], Binding]
    ) -> Iterator[tuple[Binding, ContainerUse]]:
        """Usage with its container; processes of pods without a slice are left out."""
        for member, usage in card.by.items():
            pod = self._state.pods.by_uid(PodUid(member.pod_uid))
            name = pod.container_of(member.container_id) if pod is not None else None
            binding = bindings.get((PodUid(member.pod_uid), name or ""))
            if binding is not None:
                yield binding, usage


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        name: GaugeMetricFamily(f"gpu_fraction_{name}", text, labels=labels)
        for name, text, labels in _METRICS
    }


def _add(
    families: Mapping[str, GaugeMetricFamily],
    card: CardUsage,
    joined: Iterator[tuple[Binding, ContainerUse]],
) -> None:
    if card.error:
        return
    if card.used_bytes is not None:
        families[CARD_USED].add_metric([card.uuid], card.used_bytes)
    families[CARD_OTHERS].add_metric([card.uuid], card.others.memory_bytes)
    for binding, usage in joined:
        labels = _labels(binding, card.uuid)
        families[USED].add_metric(labels, usage.memory_bytes)
        if usage.sm_percent is not None:
            families[BUSY].add_metric(labels, usage.sm_percent / 100)


def _labels(binding: Binding, uuid: str) -> list[str]:
    return [binding.namespace, binding.pod, binding.container, uuid]
