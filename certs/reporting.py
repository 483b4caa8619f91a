"""Metrics of the certificates, and Events on the Secret of the CA."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from gpu_fraction.certs.actions import Notice
from gpu_fraction.certs.bundle import Target
from gpu_fraction.certs.certificate import Certificate, Leaf
from gpu_fraction.certs.settings import Installation
from gpu_fraction.certs.state import CaState, Phase
from gpu_fraction.kube.event_limits import ObjectReference
from gpu_fraction.kube.events import EventRecorder, EventType
from gpu_fraction.kube.resources import SECRETS

_PREFIX: Final = "gpu_fraction_certificate"


class Reporter:
    """Metrics and Events of one process; labels are bounded by the installation's own names.

    Attributes:
        ready: Whether this process is ready.
        signed: Leaves signed.
        load_failures: Certificates that could not be served.
        published: Configurations written.
        conflicts: Writes that met a newer version.
        failures: Steps that failed.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        installation: Installation,
        recorder: EventRecorder | None = None,
    ) -> None:
        """Register the metrics.

        Args:
            registry: For the metrics.
            installation: Names the Secret.
            recorder: Writes Events; the caller runs it. None for no Events.
        """
        self._installation = installation
        self._recorder = recorder
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
        self.ready = Gauge(
            f"{_PREFIX}_ready",
            "1 while the served leaf chains to every caBundle of ours; where no cluster is seen,"
            " while it is valid.",
            registry=registry,
        )

        def counter(name: str, text: str) -> Counter:
            return Counter(f"{_PREFIX}_{name}_total", text, registry=registry)

        self.signed = counter("leaves_signed", "Leaves that this process signed.")
        self.load_failures = counter(
            "load_failures", "Certificates that could not be served; the one before still is."
        )
        self.published = counter("bundles_published", "Writes of caBundles to a configuration.")
        self.conflicts = counter(
            "conflicts", "Writes refused because another process had written first."
        )
        self.failures = counter(
            "step_failures", "Steps of the lease holder that failed and are tried again."
        )
        self._stored: set[tuple[str, str]] = set()

    def event(self, notice: Notice, secret_uid: str) -> None:
        """Record an Event on the Secret with this uid; none without a uid. Raises nothing."""
        if self._recorder is None or not secret_uid:
            return
        names = self._installation
        about = ObjectReference(
            SECRETS.api_version, SECRETS.kind, names.secret, secret_uid, names.namespace
        )
        kind = EventType.WARNING if notice.warning else EventType.NORMAL
        self._recorder.record(about, kind, notice.reason, notice.message)

    def served(self, leaf: Leaf) -> None:
        """A leaf is served from now on."""
        self._set("served", "leaf", [leaf.certificate])

    def planned(self, phase: Phase, state: CaState | None, targets: Sequence[Target]) -> None:
        """The lease holder has made a plan."""
        for each in Phase:
            self._phase.labels(each.value).set(1 if each is phase else 0)
        self.watched(state, targets)

    def watched(self, state: CaState | None, targets: Sequence[Target]) -> None:
        """The Secret or a configuration has changed."""
        roles = [] if state is None else state.roles()
        for name in ("current", "next", "previous"):
            self._set("stored", name, [c for role, c in roles if role == name])
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
