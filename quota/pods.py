"""Pods as quotas see them, and which of them count.

The watch keeps one object for each pod of the cluster, so every pod sheds what quotas do not read
as it is decoded, and a pod without GPUs everything but its identity.
"""

from dataclasses import replace
from typing import Final

import msgspec

from gpu_fraction.domain import assignment, keys, request_annotation, user_annotations
from gpu_fraction.domain.backends import demand, is_gpu, placed_late
from gpu_fraction.domain.pod import Metadata, Pod, Spec, containers
from gpu_fraction.domain.request import Bounds, Refused, Request
from gpu_fraction.kube.objects import Meta
from gpu_fraction.quota.charge import PodFacts

TERMINAL: Final = frozenset({"Succeeded", "Failed"})

DEFAULT_GRACE_S: Final = 30
"""Where a pod that is being deleted does not say (core/v1 terminationGracePeriodSeconds)."""


class OwnerReference(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who made the pod."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class PodMeta(Meta, frozen=True, kw_only=True, rename="camel"):
    """Identity, annotations and the way to deletion."""

    generate_name: str | None = None
    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    owner_references: list[OwnerReference] | None = None


class Status(msgspec.Struct, frozen=True):
    """The pod's phase."""

    phase: str | None = None


_NO_SPEC: Final = Spec()
_UNREAD: Final = (
    *("volumes", "ephemeral_containers", "node_selector", "tolerations", "resource_claims"),
)


class PodRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A pod with what its charge depends on, and its identity besides."""

    metadata: PodMeta = PodMeta()
    spec: Spec = _NO_SPEC
    status: Status | None = None

    def __post_init__(self) -> None:
        if demand(self.pod()):
            msgspec.structs.force_setattr(self, "spec", _without_env(self.spec))
            return
        meta = self.metadata
        bare = PodMeta(
            name=meta.name,
            namespace=meta.namespace,
            uid=meta.uid,
            resource_version=meta.resource_version,
            deletion_timestamp=meta.deletion_timestamp,
        )
        msgspec.structs.force_setattr(self, "metadata", bare)
        msgspec.structs.force_setattr(self, "spec", _NO_SPEC)
        msgspec.structs.force_setattr(self, "status", None)

    def pod(self) -> Pod:
        """The pod as the domain knows it."""
        return Pod(Metadata(self.metadata.annotations), self.spec)

    @property
    def owner(self) -> OwnerReference | None:
        """The controller that made it."""
        return next((o for o in self.metadata.owner_references or () if o.controller), None)


def _without_env(spec: Spec) -> Spec:
    """The specification without variables and the fields that no charge depends on."""
    kept = {
        name: [msgspec.structs.replace(c, env=None, security_context=None) for c in found]
        for name in ("containers", "init_containers")
        if (found := getattr(spec, name))
    }
    shed = dict.fromkeys(_UNREAD)
    return msgspec.structs.replace(spec, **shed, **kept)


def terminal(pod: PodRecord) -> bool:
    """True once the pod's containers can never run again."""
    return pod.status is not None and pod.status.phase in TERMINAL


def overdue_after_s(pod: PodRecord) -> int | None:
    """Seconds after its deletion was first seen when a pod no longer counts; None if it stays.

    A node that is gone never confirms the deletion of its pods. ResourceQuota lets go of them
    after twice their grace period (kubernetes pkg/quota/v1/evaluator/core/pods.go, QuotaV1Pod),
    by the wall clock; here the time is measured by whoever watches, so that a clock that is
    set forward lets go of no running pod.
    """
    if pod.metadata.deletion_timestamp is None:
        return None
    grace_s = pod.metadata.deletion_grace_period_seconds
    return 2 * (DEFAULT_GRACE_S if grace_s is None else max(0, grace_s))


def facts_of(record: PodRecord) -> PodFacts:
    """What quotas need to know of a pod, but for the GPUs that it may land on."""
    pod = record.pod()
    cost = demand(pod)
    meta = record.metadata
    facts = PodFacts(meta.uid, meta.name, cost, record.spec.priority_class_name)
    if not cost:
        return facts
    rendered = request_annotation.find(pod.annotations())
    asked = rendered.request if rendered else _written(pod)
    return replace(
        facts,
        models=asked.models if asked else (),
        not_models=asked.not_models if asked else (),
        placed_late=placed_late(
            rendered,
            pod.annotations(),
            scheduler_name=record.spec.scheduler_name,
            node_name=record.spec.node_name,
        ),
        containers=tuple(
            at.container.name
            for at in containers(pod)
            if at.container.resources and any(map(is_gpu, at.container.resources.names()))
        ),
    )


def _written(pod: Pod) -> Request | None:
    """What the pod's author wrote; None where the webhook rendered it, or it says nothing."""
    if keys.REQUEST in pod.annotations():
        return None
    try:
        return user_annotations.parse(pod, Bounds())
    except Refused:
        return None


def assigned_uuids(pod: PodRecord) -> frozenset[str]:
    """The cards that were chosen for the pod; empty while there are none."""
    text = (pod.metadata.annotations or {}).get(keys.ASSIGNED)
    if text is None:
        return frozenset()
    try:
        chosen = assignment.parse(text)
    except assignment.AssignmentError:
        return frozenset()
    return frozenset(share.uuid for shares in chosen.values() for share in shares)
