"""Errors of the node daemon.

NodeDaemonError
├── Refusal            a container may not start now; the kubelet asks again by itself
├── StoreError         the state directory or the CDI directory cannot be written
│   └── LockedError          another daemon works on this node
├── HostSpecError      the host's nvidia.com/gpu specification lacks a card
├── IsolationError     the isolation engines cannot serve a container now
│   ├── NotEnforceableError  its pod requires what no engine on the card enforces
│   └── EngineFailedError    an engine that should work did not; trying again may help
├── KubeletError       the kubelet did not answer, or not in time
└── ApiUnavailableError  the API server did not take a write; its outcome may be unknown
"""

from dataclasses import dataclass
from enum import StrEnum


class NodeDaemonError(Exception):
    """Anything the node daemon raises on purpose."""


class StoreError(NodeDaemonError):
    """A file could not be written; what was there before is unchanged."""


class LockedError(StoreError):
    """Another daemon of this node holds the lock of the state directory."""


class HostSpecError(NodeDaemonError):
    """The host's CDI specification of its GPUs cannot be used; the message names the remedy."""


class IsolationError(NodeDaemonError):
    """A container must not start now; the message names the cause and the remedy."""


class NotEnforceableError(IsolationError):
    """The pod requires what no engine on the card enforces."""


class EngineFailedError(IsolationError):
    """An engine that should work did not; trying again may help."""


class KubeletError(NodeDaemonError):
    """The kubelet did not answer, or not in time."""


class ApiUnavailableError(NodeDaemonError):
    """The API server did not confirm a write, which may have happened all the same."""


class Reason(StrEnum):
    """The reason why a container may not start now, as in the Event and the metric's label."""

    TOKEN_COUNT = "SlotCountInvalid"  # noqa: S105 - no password
    TOKEN_UNKNOWN = "SlotUnknown"  # noqa: S105
    TOKEN_SHARED = "SlotShared"  # noqa: S105
    TOKEN_RECENT = "SlotAmbiguous"  # noqa: S105
    NOT_LISTED = "SlotNotListed"
    POD_UNKNOWN = "PodUnknown"
    POD_REPLACED = "PodReplaced"
    POD_ENDED = "PodEnded"
    CONTAINER_UNFIT = "ContainerUnfit"
    CLAIM_UNFIT = "ClaimUnfit"
    ASSIGNMENT_INVALID = "AssignmentInvalid"
    ASSIGNMENT_DIFFERS = "AssignmentDiffers"
    NO_PLACEMENT = "NoPlacement"
    CARD_UNKNOWN = "CardUnknown"
    CARD_UNHEALTHY = "CardUnhealthy"
    CARD_FULL = "CardFull"
    ISOLATION_MISSING = "IsolationMissing"
    HOST_SPEC = "HostSpecUnfit"
    ISOLATION_FAILED = "IsolationFailed"
    STATE_UNWRITABLE = "StateUnwritable"
    KUBELET_SILENT = "KubeletSilent"
    API_SILENT = "ApiSilent"
    NOT_READY = "NotReady"
    INTERNAL = "InternalError"


@dataclass(frozen=True, slots=True)
class PodRef:
    """The pod that an Event is about."""

    namespace: str
    name: str
    uid: str


class Refusal(NodeDaemonError):  # noqa: N818 - a verdict, not a fault
    """A container may not start now.

    Attributes:
        pods: The pods that get an Event, empty where none is known.
    """

    def __init__(self, reason: Reason, message: str, *pods: PodRef) -> None:
        self.reason = reason
        self.pods = pods
        super().__init__(message)

    def about(self, *pods: PodRef) -> "Refusal":
        """The same refusal with these pods, unless it has some already."""
        return self if self.pods else Refusal(self.reason, str(self), *pods)
