"""What the outside is told: metrics always, Events where somebody writes them."""

from dataclasses import dataclass

from certs.actions import Herald, Notice
from certs.metrics import CertificateMetrics

__all__ = ["Reporting"]


@dataclass(frozen=True, slots=True)
class Reporting:
    """The ways out.

    Attributes:
        metrics: Numbers.
        herald: Events; None makes none.
    """

    metrics: CertificateMetrics
    herald: Herald | None = None

    def tell(self, notice: Notice, secret_uid: str) -> None:
        """Make an Event, if that is possible."""
        if self.herald is not None:
            self.herald.tell(notice, secret_uid)
