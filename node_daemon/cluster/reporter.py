"""Events on pods and on the Node."""

from typing import Final

from gpu_fraction.kube.event_limits import ObjectReference
from gpu_fraction.kube.events import EventRecorder, EventType
from gpu_fraction.node_daemon.cards.health import Change
from gpu_fraction.node_daemon.state.errors import PodRef
from gpu_fraction.node_daemon.state.node_state import NodeState

SICK: Final = "CardUnhealthy"
WELL: Final = "CardHealthy"
RUNTIME: Final = "ContainerRuntimeMayIgnoreCDI"
NOT_OFFERED: Final = "CardsNotOffered"
SIMULATED: Final = "CardsSimulated"


class Reporter:
    """Records Events about pods, cards and the container runtime."""

    def __init__(self, state: NodeState, node_name: str, sink: EventRecorder) -> None:
        self._state = state
        # The kubelet's own Events use the Node's name as its UID, and so do their readers.
        # Source: kubernetes pkg/kubelet/kubelet.go, nodeRef.
        self._node = ObjectReference("v1", "Node", node_name, node_name, "")
        self._sink = sink

    def refused(self, pod: PodRef, reason: str, message: str) -> None:
        """A container of the pod may not start now."""
        self._sink.record(_about(pod), EventType.WARNING, reason, message)

    def runtime_warning(self, why: str) -> None:
        """The container runtime may not read what the daemon writes."""
        self._sink.record(self._node, EventType.WARNING, RUNTIME, why)

    def not_offered(self, why: str) -> None:
        """The DRA driver offers no card."""
        self._sink.record(self._node, EventType.WARNING, NOT_OFFERED, why)

    def simulated(self, count: int) -> None:
        """The cards do not exist."""
        message = f"{count} simulated cards: containers get variables, and no GPU"
        self._sink.record(self._node, EventType.WARNING, SIMULATED, message)

    def card_changed(self, change: Change) -> None:
        """Record on the Node and on every pod with a share of the card that its health changed."""
        reason = WELL if change.healthy else SICK
        verdict = "is healthy again" if change.healthy else f"is not healthy: {change.reason}"
        message = f"card {change.uuid} {verdict}"
        kind = EventType.NORMAL if change.healthy else EventType.WARNING
        for about in (self._node, *map(_about, self._on(change.uuid))):
            self._sink.record(about, kind, reason, message)

    def _on(self, uuid: str) -> list[PodRef]:
        pods = {}
        for allocation in self._state.store:
            binding = allocation.binding
            if binding is not None and any(share.uuid == uuid for share in binding.shares):
                pods[binding.uid] = PodRef(binding.namespace, binding.pod, binding.uid)
        return list(pods.values())


def _about(pod: PodRef) -> ObjectReference:
    return ObjectReference("v1", "Pod", pod.name, pod.uid, pod.namespace)
