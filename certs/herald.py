"""Tells people: Events on the Secret of the CA, where ``kubectl describe secret`` shows them."""

from certs.actions import Notice
from certs.installation import Installation
from gpu_fraction.kube.event_limits import ObjectReference
from gpu_fraction.kube.events import EventRecorder, EventType
from gpu_fraction.kube.resources import SECRETS

__all__ = ["SecretHerald"]


class SecretHerald:
    """Makes an Event of each notice; returns at once, and loses what cannot be delivered."""

    def __init__(self, recorder: EventRecorder, installation: Installation) -> None:
        self._recorder = recorder
        self._installation = installation

    def tell(self, notice: Notice, secret_uid: str) -> None:
        """Make an Event on the Secret with this uid; without a uid nobody would see it."""
        if not secret_uid:
            return
        about = ObjectReference(
            SECRETS.api_version,
            SECRETS.kind,
            self._installation.secret,
            secret_uid,
            self._installation.namespace,
        )
        kind = EventType.WARNING if notice.warning else EventType.NORMAL
        self._recorder.record(about, kind, notice.reason, notice.message)
