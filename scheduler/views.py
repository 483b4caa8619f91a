"""A pod as placement sees it."""

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
class PodView:
    """A pod as placement sees it.

    Attributes:
        uid: The pod.
        namespace: Its namespace.
        name: Its name.
        priority: Its priority; higher may preempt lower.
        asks: One for each container that gets cards; none where it wants no GPU.
        problem: Why its request cannot be placed at all; empty where it can.
        charged_early: Quotas charged it at admission for every limited model it may land on,
            see ``domain.backends.placed_late``.
        pod: What else was read of it.
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
        """The node it is bound to, if it is."""
        return self.pod.spec.node_name or ""

    @property
    def nominated(self) -> str:
        """The node that preemption clears for it, if any."""
        return "" if self.node else self.pod.status.nominated_node_name or ""

    @property
    def priority_class(self) -> str:
        """Its priority class; empty for none."""
        return self.pod.spec.priority_class_name or ""

    @property
    def finished(self) -> bool:
        """True once its containers have ended for good: it holds nothing any more."""
        return self.pod.status.phase in _FINISHED

    @property
    def leaving(self) -> bool:
        """True while it is being deleted; it holds its cards until it is gone."""
        return self.pod.metadata.deletion_timestamp is not None


def view_of(pod: Pod) -> PodView:
    """The pod as placement sees it."""
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
    return PodView(
        uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        priority=spec.priority or 0,
        asks=asks,
        problem=problem,
        charged_early=not late,
        pod=pod,
    )


def assigned(view: PodView) -> Assignment | None:
    """The cards that the pod was given; None where nobody chose yet or the text is unreadable."""
    text = view.pod.annotations().get(keys.ASSIGNED)
    if text is None:
        return None
    try:
        return assignment.parse(text)
    except assignment.AssignmentError as e:
        _log.warning(
            "scheduler.assignment_unreadable",
            namespace=view.namespace,
            pod=view.name,
            error=str(e),
        )
        return None
