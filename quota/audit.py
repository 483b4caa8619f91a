"""Events about decisions, on the quota and on the owner of the pod, or on a pod without one.

The same decision always has the same message, so the recorder raises a count instead of writing
another Event. Admission never waits for an Event, and a dry run makes none.
"""

from collections.abc import Iterable
from typing import Final

from gpu_fraction.domain import request_annotation, units
from gpu_fraction.domain.request import Slice
from gpu_fraction.kube.event_limits import REMEMBERED, ObjectReference
from gpu_fraction.kube.events import EventRecorder, EventType, reference
from gpu_fraction.kube.resources import GPU_QUOTAS
from gpu_fraction.quota.claims import ClaimRecord
from gpu_fraction.quota.decision import Outcome
from gpu_fraction.quota.pods import PodRecord
from gpu_fraction.quota.state import Quota

REWRITTEN: Final = "GPUAssignedByAnnotation"
REFUSED: Final = "GPUQuotaExceeded"
TOLERATED: Final = "GPUQuotaExceededButAdmitted"


class Audit:
    """Records decisions as Events."""

    def __init__(self, sink: EventRecorder) -> None:
        self._sink = sink
        self._told: dict[tuple[str, str], None] = {}

    def decided(
        self, namespace: str, pod: PodRecord, quotas: Iterable[Quota], outcome: Outcome
    ) -> None:
        """Record a decision that is not a dry run."""
        self._quotas_said("pod", namespace, pod, quotas, outcome)
        if not outcome.refusals and (message := rewritten(pod)) is not None:
            self._rewritten(namespace, pod, message)

    def _rewritten(self, namespace: str, pod: PodRecord, message: str) -> None:
        """Say it once of all pods of an owner, because they are alike."""
        about = _owner(namespace, pod)
        if about is None:
            about = ObjectReference("v1", "Pod", pod.metadata.name, pod.metadata.uid, namespace)
        elif (about.uid, message) in self._told:
            return
        else:
            self._told[about.uid, message] = None
            if len(self._told) > REMEMBERED:
                del self._told[next(iter(self._told))]
        self._sink.record(about, EventType.NORMAL, REWRITTEN, message)

    def claim_decided(
        self, namespace: str, claim: ClaimRecord, quotas: Iterable[Quota], outcome: Outcome
    ) -> None:
        """Record a decision on a claim; a pod that waits for it has Kubernetes' own Event."""
        self._quotas_said("claim", namespace, claim, quotas, outcome)

    def _quotas_said(
        self,
        kind: str,
        namespace: str,
        one: PodRecord | ClaimRecord,
        quotas: Iterable[Quota],
        outcome: Outcome,
    ) -> None:
        by_name = {quota.name: quota for quota in quotas}
        owner = _owner(namespace, one)
        author = f"{owner.kind} {owner.name}" if owner else f"{kind} {_name(one)}"
        tolerated = (*outcome.warnings, *outcome.notes)
        for word, reason, found in (
            ("refused", REFUSED, outcome.refusals),
            ("admitted", TOLERATED, tolerated),
        ):
            for refusal in found:
                if (quota := by_name.get(refusal.quota)) is not None:
                    about = reference(GPU_QUOTAS, quota.wire.metadata)
                    text = f"{word} a {kind} of {author}: {refusal.message}"
                    self._sink.record(about, EventType.WARNING, reason, text)
                if owner is not None and reason == REFUSED:
                    self._sink.record(owner, EventType.WARNING, reason, refusal.message)


def rewritten(pod: PodRecord) -> str | None:
    """A sentence about how the pod was rewritten; None where it was not."""
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


def _owner(namespace: str, one: PodRecord | ClaimRecord) -> ObjectReference | None:
    owner = one.owner
    if owner is None:
        return None
    return ObjectReference(owner.api_version, owner.kind, owner.name, owner.uid, namespace)


def _name(one: PodRecord | ClaimRecord) -> str:
    # With generated names every message would differ.
    return one.metadata.generate_name or one.metadata.name
