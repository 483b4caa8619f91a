"""What the outside is told: metrics always, Events where somebody writes them.

The Events are on the Secret of the CA, where ``kubectl describe secret`` shows them.
"""

from dataclasses import dataclass

from certs.actions import Notice
from certs.installation import Installation
from certs.metrics import CertificateMetrics
from gpu_fraction.kube.event_limits import ObjectReference
from gpu_fraction.kube.events import EventRecorder, EventType
from gpu_fraction.kube.resources import SECRETS

__all__ = ["Reporting"]


@dataclass(frozen=True, slots=True)
class Reporting:
    """The ways out.

    Attributes:
        metrics: Numbers.
        installation: Names the Secret.
        recorder: Writes Events; None makes none.
    """

    metrics: CertificateMetrics
    installation: Installation
    recorder: EventRecorder | None = None

    def tell(self, notice: Notice, secret_uid: str) -> None:
        """Make an Event on the Secret with this uid; without a uid nobody would see it.

        Returns at once, and loses what cannot be delivered.
        """
        if self.recorder is None or not secret_uid:
            return
        about = ObjectReference(
            SECRETS.api_version,
            SECRETS.kind,
            self.installation.secret,
            secret_uid,
            self.installation.namespace,
        )
        kind = EventType.WARNING if notice.warning else EventType.NORMAL
        self.recorder.record(about, kind, notice.reason, notice.message)
