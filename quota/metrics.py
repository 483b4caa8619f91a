"""Metrics of quotas; labels name namespaces and quotas, never pods or users."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gpu_fraction.domain import amounts, units
from gpu_fraction.quota.decision import Outcome
from gpu_fraction.quota.ledger import Ledger
from gpu_fraction.quota.state import Quota

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class AdmissionMetrics:
    """Metrics of admission.

    Attributes:
        conflicts: Writes that met a newer version.
        writes: Writes that were stored.
        reservations: Reservations in the stored writes.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with ``registry``."""
        self._decisions = Counter(
            "gpu_fraction_quota_decisions",
            "GPU pods judged, by decision: admitted, warned, noted, refused",
            ["decision", "dry_run"],
            registry=registry,
        )
        self.conflicts = Counter(
            "gpu_fraction_quota_conflict_retries",
            "Writes of reservations that met a newer version of the quota and were repeated",
            registry=registry,
        )
        self.writes = Counter(
            "gpu_fraction_quota_reservation_writes",
            "Writes of reservations",
            registry=registry,
        )
        self.reservations = Counter(
            "gpu_fraction_quota_reservations_made",
            "Reservations made; divided by the writes, the pods that share a write",
            registry=registry,
        )

    def decided(self, outcome: Outcome, *, dry_run: bool) -> None:
        """A request was answered."""
        found = {
            "refused": outcome.refusals,
            "warned": outcome.warnings,
            "noted": outcome.notes,
            "admitted": True,
        }
        decision = next(word for word, held in found.items() if held)
        self._decisions.labels(decision, str(dry_run).lower()).inc()


class ControllerMetrics:
    """Metrics of usage and of the delay of the count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with ``registry``."""
        by_key = ["namespace", "quota", "resource"]
        by_quota = ["namespace", "quota"]
        self._used = Gauge(
            "gpu_fraction_quota_used",
            "Counted use: cores as GPUs, memory in bytes, gpus and pods as numbers",
            by_key,
            registry=registry,
        )
        self._hard = Gauge(
            "gpu_fraction_quota_hard",
            "Limits, in the units of gpu_fraction_quota_used; absent where there is none",
            by_key,
            registry=registry,
        )
        self._open = Gauge(
            "gpu_fraction_quota_reservations",
            "Admitted pods that are not counted yet",
            by_quota,
            registry=registry,
        )
        self._oldest = Gauge(
            "gpu_fraction_quota_reservation_oldest_seconds",
            "Age of the oldest reservation without a pod",
            by_quota,
            registry=registry,
        )
        self._took = Histogram(
            "gpu_fraction_quota_reconcile_seconds",
            "Time to count a namespace",
            buckets=SECONDS,
            registry=registry,
        )
        self._lag = Histogram(
            "gpu_fraction_quota_reconcile_lag_seconds",
            "Time from the first reason to count a namespace to the stored count",
            buckets=SECONDS,
            registry=registry,
        )
        self._shown: dict[tuple[str, str], set[str]] = {}

    def counted(self, quota: Quota, state: Ledger, oldest_s: float) -> None:
        """A quota was counted; ``oldest_s`` is the age of its oldest reservation."""
        namespace, name = quota.key
        shown = self._shown.setdefault(quota.key, set())
        self._drop(quota.key, shown - state.used.keys())
        for key, amount in state.used.items():
            self._used.labels(namespace, name, key).set(_in_base_units(key, amount))
        for key in amounts.KEYS if quota.problems else state.used:
            if key in quota.spec.hard:
                value = _in_base_units(key, quota.spec.hard[key])
                self._hard.labels(namespace, name, key).set(value)
            else:
                _forget(self._hard, (namespace, name, key))
        shown |= state.used.keys()
        self._open.labels(namespace, name).set(len(state.reserved))
        self._oldest.labels(namespace, name).set(oldest_s)

    def reconciled(self, took_s: float, lag_s: float) -> None:
        """A namespace was counted, ``lag_s`` after the first reason to."""
        self._took.observe(took_s)
        self._lag.observe(lag_s)

    def forgotten(self, namespace: str, name: str) -> None:
        """A quota was deleted."""
        self._drop((namespace, name), self._shown.pop((namespace, name), set()))
        for gauge in (self._open, self._oldest):
            _forget(gauge, (namespace, name))

    def _drop(self, quota: tuple[str, str], keys: Iterable[str]) -> None:
        for key in keys:
            for gauge in (self._used, self._hard):
                _forget(gauge, (*quota, key))


def _forget(gauge: Gauge, labels: tuple[str, ...]) -> None:
    try:
        gauge.remove(*labels)
    except KeyError:
        return  # it was never shown


def _in_base_units(key: str, amount: int) -> float:
    kind = amounts.split_key(key)[1]
    if kind == amounts.CORES:
        return amount / units.MILLI
    return float(amount * units.MIB if kind == amounts.MEMORY else amount)
