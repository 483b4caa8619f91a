"""Pods with the fields that placement computes once for each version of a pod."""

from dataclasses import dataclass
from typing import Final

import structlog

from gpu_fraction.domain import assignment, keys
from gpu_fraction.domain.asks import Ask, AskError, asks_of, rendered_for_us
from gpu_fraction.domain.assignment import Assignment
from gpu_fraction.domain.backends import placed_late
from gpu_fraction.scheduler.objects import Pod

_log = structlog.get_logger(__name__)

_FINISHED: Final = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class PodInfo:
    """A pod with its asks.

    Attributes:
        uid: The pod.
        namespace: Its namespace.
        name: Its name.
        priority: Its priority; higher may preempt lower.
        asks: One for each container that gets cards; none where it asks for no GPU.
        problem: Why no node can ever serve it; empty where some can.
        charged_early: True if quotas charged it at admission for every limited model that it
            may get; see ``domain.backends.placed_late``.
        pod: The decoded pod.
    """

    uid: str
    namespace: str
    name: str
    priority: int
    asks: tuple[Ask, ...]
    problem: str
    charged_early: bool
    pod: Pod

    @property
    def node(self) -> str:
        """The node that it is bound to; empty for none."""
        return self.pod.spec.node_name or ""

    @property
    def nominated(self) -> str:
        """The node on which preemption frees cards for it; empty for none."""
        return "" if self.node else self.pod.status.nominated_node_name or ""

    @property
    def priority_class(self) -> str:
        """Its priority class; empty for none."""
        return self.pod.spec.priority_class_name or ""

    @property
    def finished(self) -> bool:
        """True once its containers have ended for good, so it holds no cards."""
        return self.pod.status.phase in _FINISHED

    @property
    def leaving(self) -> bool:
        """True while it is being deleted; it still holds its cards."""
        return self.pod.metadata.deletion_timestamp is not None


def info_of(pod: Pod) -> PodInfo:
    """Compute the info of a pod."""
    problem = ""
    asks: tuple[Ask, ...] = ()
    late = False
    meta, spec = pod.metadata, pod.spec
    try:
        rendered = rendered_for_us(pod.annotations())
        asks = asks_of(
            rendered,
            ((c.name, c.named()) for c in pod.running_containers()),
            ((c.name, c.named()) for c in pod.init_containers()),
        )
        late = placed_late(
            rendered,
            pod.annotations(),
            scheduler_name=spec.scheduler_name,
            node_name=spec.node_name,
        )
    except AskError as e:
        problem = str(e)
    names = meta.uid, meta.namespace, meta.name
    return PodInfo(*names, spec.priority or 0, asks, problem, not late, pod)


def assignment_problem(info: PodInfo) -> str:
    """Why the cards assigned to the pod cannot be read; empty where they can, or it has none."""
    text = info.pod.annotations().get(keys.ASSIGNED)
    if text is None or not (info.asks or info.problem):
        return ""
    try:
        assignment.parse(text)
    except assignment.AssignmentError as e:
        return (
            f"pod {info.namespace}/{info.name} runs on cards that cannot be read, so none are "
            f"given until it is gone: {keys.ASSIGNED}: {e}"
        )
    return ""


def assigned(info: PodInfo) -> Assignment | None:
    """The cards assigned to the pod; None before the choice or if the annotation is unreadable."""
    text = info.pod.annotations().get(keys.ASSIGNED)
    if text is None:
        return None
    try:
        return assignment.parse(text)
    except assignment.AssignmentError as e:
        _log.warning(
            "scheduler.assignment_unreadable",
            namespace=info.namespace,
            pod=info.name,
            error=str(e),
        )
        return None
