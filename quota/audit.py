"""What ``kubectl describe`` shows: on the pod, on the quota, on whoever makes the pods.

Messages repeat word for word while nothing changes, so that the recorder counts instead of
writing anew. Admission never waits for an event, and a dry run leaves none.
"""

from collections.abc import Iterable
from typing import Final

from gpu_fraction.domain import request_annotation, units
from gpu_fraction.domain.request import Slice
from gpu_fraction.kube.event_limits import ObjectReference
from gpu_fraction.kube.events import EventRecorder, EventType, reference
from gpu_fraction.kube.resources import GPU_QUOTAS
from gpu_fraction.quota.decision import Outcome
from gpu_fraction.quota.pods import PodRecord
from gpu_fraction.quota.state import Quota

REWRITTEN: Final = "GPUAssignedByAnnotation"
REFUSED: Final = "GPUQuotaExceeded"
TOLERATED: Final = "GPUQuotaExceededButAdmitted"


class Audit:
    """Tells of decisions."""

    def __init__(self, sink: EventRecorder) -> None:
        self._sink = sink

    def decided(
        self, namespace: str, pod: PodRecord, quotas: Iterable[Quota], outcome: Outcome
    ) -> None:
        """Events of one decision that was no dry run."""
        by_name = {quota.name: quota for quota in quotas}
        who = _maker(namespace, pod)
        author = f"{who.kind} {who.name}" if who else f"pod {_pod_name(pod)}"
        tolerated = (*outcome.warnings, *outcome.notes)
        for word, reason, found in (
            ("refused", REFUSED, outcome.refusals),
            ("admitted", TOLERATED, tolerated),
        ):
            for refusal in found:
                if (quota := by_name.get(refusal.quota)) is not None:
                    about = reference(GPU_QUOTAS, quota.wire.metadata)
                    told = f"{word} a pod of {author}: {refusal.message}"
                    self._sink.record(about, EventType.WARNING, reason, told)
                if who is not None and reason == REFUSED:
                    self._sink.record(who, EventType.WARNING, reason, refusal.message)
        if not outcome.refusals and (message := rewritten(pod)) is not None:
            about = ObjectReference("v1", "Pod", pod.metadata.name, pod.metadata.uid, namespace)
            self._sink.record(about, EventType.NORMAL, REWRITTEN, message)


def rewritten(pod: PodRecord) -> str | None:
    """What became of the pod's annotations, in a sentence; None where it carries none."""
    rendered = request_annotation.find(pod.metadata.annotations or {})
    if rendered is None:
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


def _maker(namespace: str, pod: PodRecord) -> ObjectReference | None:
    owner = pod.owner
    if owner is None:
        return None
    return ObjectReference(owner.api_version, owner.kind, owner.name, owner.uid, namespace)


def _pod_name(pod: PodRecord) -> str:
    # Generated names would make every message a new one.
    return pod.metadata.generate_name or pod.metadata.name
