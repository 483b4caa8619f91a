"""Reports to people and monitoring: metrics always, Events where a recorder writes them.

The Events are on the Secret of the CA, where ``kubectl describe secret`` shows them.
"""

from dataclasses import dataclass

from certs.actions import Notice
from certs.installation import Installation
from certs.metrics import CertificateMetrics
from gpu_fraction.kube.event_limits import ObjectReference
from gpu_fraction.kube.events import EventRecorder, EventType
from gpu_fraction.kube.resources import SECRETS

__all__ = ["Reporter"]


@dataclass(frozen=True, slots=True)
class Reporter:
    """Metrics and Events of one process.

    Attributes:
        metrics: Numbers.
        installation: Names the Secret.
        recorder: Writes Events; None makes none.
    """

    metrics: CertificateMetrics
    installation: Installation
    recorder: EventRecorder | None = None

    def event(self, notice: Notice, secret_uid: str) -> None:
        """Make an Event on the Secret with this uid; without a uid nobody would see it.

        Returns at once and raises nothing.
        """
        if self.recorder is None or not secret_uid:
            return
        names = self.installation
        about = ObjectReference(
            SECRETS.api_version, SECRETS.kind, names.secret, secret_uid, names.namespace
        )
        kind = EventType.WARNING if notice.warning else EventType.NORMAL
        self.recorder.record(about, kind, notice.reason, notice.message)
