"""What ``kubectl describe`` shows: on the pod, on the quota, on whoever makes the pods.

Messages repeat word for word while nothing changes, so that the recorder counts instead of
writing anew. Admission never waits for an event, and a dry run leaves none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from gpu_fraction.domain import keys, request_annotation, units
from gpu_fraction.domain.request import Slice
from quota.decision import Outcome, Refusal
from quota.pods import PodRecord
from quota.state import Quota
from quota.wire import API_VERSION, KIND

EventType = Literal["Normal", "Warning"]

REWRITTEN: Final = "GPUAssignedByAnnotation"
REFUSED: Final = "GPUQuotaExceeded"
TOLERATED: Final = "GPUQuotaExceededButAdmitted"

__all__ = ["Audit", "EventSink", "Subject"]


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that an event is about; without its uid, describe does not show it."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


class EventSink(Protocol):
    """Takes events and writes them when it can."""

    def record(self, about: Subject, kind: EventType, reason: str, message: str) -> None:
        """Take an event; never waits, and drops it where too many wait already."""


class Audit:
    """Tells of decisions."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink

    def decided(
        self, namespace: str, pod: PodRecord, quotas: Iterable[Quota], outcome: Outcome
    ) -> None:
        """Events of one decision that was no dry run."""
        by_name = {quota.name: quota for quota in quotas}
        who = _maker(namespace, pod)
        author = f"{who.kind} {who.name}" if who else f"pod {_pod_name(pod)}"
        for refusal in outcome.refusals:
            self._about_quota(by_name, refusal, REFUSED, f"refused a pod of {author}")
            if who is not None:
                self._sink.record(who, "Warning", REFUSED, refusal.message)
        for refusal in (*outcome.warnings, *outcome.notes):
            self._about_quota(by_name, refusal, TOLERATED, f"admitted a pod of {author}")
        if not outcome.refusals and (message := rewritten(pod)) is not None:
            about = Subject("v1", "Pod", namespace, pod.metadata.name, pod.metadata.uid)
            self._sink.record(about, "Normal", REWRITTEN, message)

    def _about_quota(
        self, quotas: dict[str, Quota], refusal: Refusal, reason: str, what: str
    ) -> None:
        quota = quotas.get(refusal.quota)
        if quota is None:
            return
        namespace, name = quota.key
        about = Subject(API_VERSION, KIND, namespace, name, quota.wire.metadata.uid)
        self._sink.record(about, "Warning", reason, f"{what}: {refusal.message}")


def rewritten(pod: PodRecord) -> str | None:
    """What became of the pod's annotations, in a sentence; None where it carries none."""
    text = (pod.metadata.annotations or {}).get(keys.REQUEST)
    if text is None:
        return None
    try:
        rendered = request_annotation.load(text)
    except request_annotation.RequestAnnotationError:
        return None
    parts = ", ".join(_share(part) for part in rendered.request.slices)
    return f"gpu-fraction rewrote the pod for backend {rendered.backend}: {parts}"


def _share(part: Slice) -> str:
    gpus = f"{part.cards} GPU{'s' if part.cards > 1 else ''}"
    if part.whole:
        return f"container {part.container} gets {gpus}"
    of = []
    if part.core_milli is not None:
        of.append(f"{units.format_percent(part.core_milli)} of the compute")
    if part.memory_mib is not None:
        of.append(f"{part.memory_mib} MiB")
    elif part.memory_milli is not None:
        of.append(f"{units.format_percent(part.memory_milli)} of the memory")
    return f"container {part.container} gets {' and '.join(of)} of {gpus}"


def _maker(namespace: str, pod: PodRecord) -> Subject | None:
    owner = pod.owner
    if owner is None:
        return None
    return Subject(owner.api_version, owner.kind, namespace, owner.name, owner.uid)


def _pod_name(pod: PodRecord) -> str:
    # Generated names would make every message a new one.
    return pod.metadata.generate_name or pod.metadata.name
