"""Metrics of the admission server; tenants control no label."""

from prometheus_client import CollectorRegistry, Counter, Histogram


class AdmissionMetrics:
    """Counters of one admission server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with ``registry``."""
        self.reviews = Counter(
            "gpu_fraction_admission_reviews",
            "Admission reviews by path, operation and decision",
            ["path", "operation", "decision"],
            registry=registry,
        )
        self.seconds = Histogram(
            "gpu_fraction_admission_seconds",
            "Time from the first byte of a review to its answer",
            ["path"],
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 2.5, 10),
            registry=registry,
        )
