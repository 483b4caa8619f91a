"""Prometheus metrics of everything in this package.

One object serves a process: it is the observer of the client, the reflectors, the elections
and the recorders. Labels are bounded: resources, verbs, codes, classes of errors and names
chosen in the program; never names of objects.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gpu_fraction.kube.errors import KubeError
from gpu_fraction.kube.event_limits import Fate
from gpu_fraction.kube.requests import Request
from gpu_fraction.kube.watching import EventKind

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class KubeMetrics:
    """Counts and times the work of a client and of everything built on it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics.

        Args:
            registry: where they are collected; once per registry.
        """
        self._requests = Counter(
            "gpu_fraction_kube_requests_total",
            "Tries of requests to the API server; code 0 is no answer.",
            ("verb", "resource", "code"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "gpu_fraction_kube_request_duration_seconds",
            "Duration of one try of a request to the API server.",
            ("verb",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._lists = Counter(
            "gpu_fraction_kube_lists_total",
            "Lists read into a local copy; more than one means a watch was lost.",
            ("resource",),
            registry=registry,
        )
        self._watch_events = Counter(
            "gpu_fraction_kube_watch_events_total",
            "Watch events applied to a local copy.",
            ("resource", "kind"),
            registry=registry,
        )
        self._malformed = Counter(
            "gpu_fraction_kube_malformed_objects_total",
            "Objects that did not decode; the earlier version is kept.",
            ("resource",),
            registry=registry,
        )
        self._watch_failures = Counter(
            "gpu_fraction_kube_watch_failures_total",
            "Lists and watches that failed and were tried again.",
            ("resource", "error"),
            registry=registry,
        )
        self._leader = Gauge(
            "gpu_fraction_leader",
            "1 in the replica that leads.",
            ("lease",),
            registry=registry,
        )
        self._events = Counter(
            "gpu_fraction_events_total",
            "Kubernetes Events by outcome.",
            ("fate",),
            registry=registry,
        )

    def answered(self, request: Request, code: int, duration_s: float) -> None:
        """A try of a request ended."""
        self._requests.labels(request.verb, request.address.qualified, str(code)).inc()
        self._request_seconds.labels(request.verb).observe(duration_s)

    def listed(self, resource: str) -> None:
        """A list was read; ``resource`` is ``plural.group``."""
        self._lists.labels(resource).inc()

    def received(self, resource: str, kind: EventKind) -> None:
        """A watch event was applied."""
        self._watch_events.labels(resource, kind.value).inc()

    def malformed(self, resource: str) -> None:
        """An object did not decode."""
        self._malformed.labels(resource).inc()

    def failed(self, resource: str, error: KubeError) -> None:
        """A list or watch failed."""
        self._watch_failures.labels(resource, type(error).__name__).inc()

    def leads(self, *, name: str, leading: bool) -> None:
        """This replica began or stopped leading."""
        self._leader.labels(name).set(leading)

    def event(self, fate: Fate) -> None:
        """The outcome of an event is known."""
        self._events.labels(fate.value).inc()
