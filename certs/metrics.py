"""What the outside can see: when every certificate ends, the phase, what was done."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from certs.certificate import Certificate, Leaf
from certs.observation import Target
from certs.state import CaState, Phase

__all__ = ["CertificateMetrics"]

_PREFIX: Final = "gpu_fraction_certificate"


class CertificateMetrics:
    """The metrics of one process; labels are bounded by the installation's own names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._not_after = Gauge(
            f"{_PREFIX}_not_after_timestamp_seconds",
            "End of each certificate that is served, stored or trusted (of several with one"
            " role, the one that ends first), Unix time.",
            ["kind", "role"],
            registry=registry,
        )
        self._phase = Gauge(
            f"{_PREFIX}_rotation_phase",
            "1 for the phase of the CA rotation, as the lease holder saw it last.",
            ["phase"],
            registry=registry,
        )
        self._ready = Gauge(
            f"{_PREFIX}_ready",
            "1 while the served leaf chains to every caBundle of ours; where no cluster is seen,"
            " while it is valid.",
            registry=registry,
        )
        self._signed = Counter(
            f"{_PREFIX}_leaves_signed_total", "Leaves that this process signed.", registry=registry
        )
        self._swap_failed = Counter(
            f"{_PREFIX}_load_failures_total",
            "Certificates that could not be served; the one before still is.",
            registry=registry,
        )
        self._published = Counter(
            f"{_PREFIX}_bundles_published_total",
            "Writes of caBundles to a configuration.",
            registry=registry,
        )
        self._conflicts = Counter(
            f"{_PREFIX}_conflicts_total",
            "Writes refused because somebody else was quicker.",
            registry=registry,
        )
        self._failures = Counter(
            f"{_PREFIX}_step_failures_total",
            "Steps of the lease holder that failed and are tried again.",
            registry=registry,
        )
        self._stored: set[tuple[str, str]] = set()

    def served(self, leaf: Leaf) -> None:
        """A leaf is served from now on."""
        self._set("served", "leaf", [leaf.certificate])

    def signed(self) -> None:
        """A leaf was signed."""
        self._signed.inc()

    def load_failed(self) -> None:
        """A certificate could not be served."""
        self._swap_failed.inc()

    def ready(self, *, ready: bool) -> None:
        """Whether this process is ready."""
        self._ready.set(1 if ready else 0)

    def published(self) -> None:
        """A configuration was written."""
        self._published.inc()

    def conflict(self) -> None:
        """Somebody else was quicker."""
        self._conflicts.inc()

    def failed(self) -> None:
        """A step failed."""
        self._failures.inc()

    def planned(self, phase: Phase, state: CaState | None, targets: Sequence[Target]) -> None:
        """The lease holder has looked."""
        for each in Phase:
            self._phase.labels(each.value).set(1 if each is phase else 0)
        self.watched(state, targets)

    def watched(self, state: CaState | None, targets: Sequence[Target]) -> None:
        """The Secret or a configuration has changed."""
        stored: dict[str, list[Certificate]] = {"current": [], "next": [], "previous": []}
        if state is not None:
            if state.current is not None:
                stored["current"] = [state.current.certificate]
            if state.next is not None:
                stored["next"] = [state.next.certificate]
            stored["previous"] = list(state.previous)
        for role, certificates in stored.items():
            self._set("stored", role, certificates)
        trusted = [c for t in targets for b in t.bundles for c in b.certificates]
        self._set("trusted", "own", [c for c in trusted if c.own])
        self._set("trusted", "foreign", [c for c in trusted if not c.own])

    def _set(self, kind: str, role: str, certificates: Sequence[Certificate]) -> None:
        if certificates:
            first = min(c.not_after.timestamp() for c in certificates)
            self._not_after.labels(kind, role).set(first)
            self._stored.add((kind, role))
        elif (kind, role) in self._stored:
            self._stored.discard((kind, role))
            self._not_after.remove(kind, role)
