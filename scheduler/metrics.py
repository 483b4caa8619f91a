"""Metrics of the extender; no label comes from a pod or a node."""

from collections.abc import Callable, Iterator
from enum import Enum

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gpu_fraction.domain.placement.vectorised import fragmentation
from gpu_fraction.scheduler.state import ClusterState


class Outcome(Enum):
    """The outcome of a bind."""

    BOUND = "bound"
    CONFLICT = "conflict"
    """The cards were taken since filter, or the pod is gone or bound to another node."""
    FAILED = "failed"
    """The API server refused."""
    UNKNOWN = "unknown"
    """No answer arrived."""


class ExtenderMetrics:
    """Counters of one extender."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with ``registry``."""
        self.seconds = Histogram(
            "gpu_fraction_scheduler_request_seconds",
            "Time to answer kube-scheduler, by verb",
            ["verb"],
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 2.5, 10),
            registry=registry,
        )
        self.errors = Counter(
            "gpu_fraction_scheduler_request_errors",
            "Requests refused as malformed, unauthorised or too early, by verb",
            ["verb"],
            registry=registry,
        )
        self.bindings = Counter(
            "gpu_fraction_scheduler_bindings",
            "Binds by outcome; conflict means that the cards were gone since filter",
            ["outcome"],
            registry=registry,
        )
        for verb in ("filter", "prioritize", "bind", "preempt"):
            self.seconds.labels(verb)
            self.errors.labels(verb)
        for outcome in Outcome:
            self.bindings.labels(outcome.value)


class StateCollector(Collector):
    """Gauges that are computed from the state at each scrape."""

    def __init__(
        self, registry: CollectorRegistry, state: ClusterState, clock: Callable[[], float]
    ) -> None:
        """Register with ``registry``.

        Args:
            registry: The registry of the metrics.
            state: The cluster.
            clock: The clock of the state's claims.
        """
        self._state = state
        self._clock = clock
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The current gauges."""
        unseen = self._state.claims.unseen()
        oldest_s = self._clock() - unseen[0].since_s if unseen else 0.0
        found = fragmentation(self._state.table())
        for name, text, value in (
            ("nodes", "Nodes with an inventory of cards", len(self._state.nodes())),
            ("cards", "Healthy cards", found.cards),
            ("whole_cards_free", "Cards with nothing allocated", found.whole_cards),
            (
                "free_share_milli",
                "Free thousandths of all cards; the scarcer of compute and memory",
                found.free_milli,
            ),
            (
                "largest_free_share_milli",
                "Largest share of one card that is free, thousandths",
                found.largest_milli,
            ),
            (
                "overdrawn_cards",
                "Cards allocated beyond their size; only another writer can cause this",
                found.overdrawn,
            ),
            ("assumed_binds", "Binds that the watch has not shown yet", len(unseen)),
            ("assumed_oldest_seconds", "Age of the oldest such bind", oldest_s),
        ):
            family = GaugeMetricFamily(f"gpu_fraction_scheduler_{name}", text)
            family.add_metric([], value)
            yield family
