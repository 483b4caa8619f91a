"""Pods with the fields that quotas read.

The watch keeps one object for each pod of the cluster. So decoding drops the fields that quotas
do not read, and of a pod without GPUs everything but its identity.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import msgspec

from gpu_fraction.domain import (
    assignment,
    claim_template,
    keys,
    request_annotation,
    user_annotations,
)
from gpu_fraction.domain.backends import CHARGED_BY, STACKS, Stacks, demand, is_gpu, placed_late
from gpu_fraction.domain.pod import Container, Metadata, Pod, Spec, containers
from gpu_fraction.domain.request import Bounds, Refused, Request
from gpu_fraction.kube.objects import Meta, OwnerReference, controller_of
from gpu_fraction.quota.charge import PodFacts

TERMINAL: Final = frozenset({"Succeeded", "Failed"})

DEFAULT_GRACE_S: Final = 30
"""For a deleted pod without a grace period (core/v1 terminationGracePeriodSeconds)."""


class PodMeta(Meta, frozen=True, kw_only=True, rename="camel"):
    """Identity, annotations and deletion."""

    generate_name: str | None = None
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    owner_references: list[OwnerReference] | None = None


class Status(msgspec.Struct, frozen=True):
    """The pod's phase."""

    phase: str | None = None


_NO_SPEC: Final = Spec()
_UNREAD: Final = ("volumes", "ephemeral_containers", "tolerations")


class PodRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's identity and the fields that its charge depends on."""

    metadata: PodMeta = PodMeta()
    spec: Spec = _NO_SPEC
    status: Status | None = None

    def __post_init__(self) -> None:
        if demand(self.pod()):
            meta = msgspec.structs.replace(self.metadata, labels=_charged(self.metadata.labels))
            msgspec.structs.force_setattr(self, "metadata", meta)
            msgspec.structs.force_setattr(self, "spec", _kept(self.spec))
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
        return Pod(Metadata(self.metadata.annotations, self.metadata.labels), self.spec)

    @property
    def owner(self) -> OwnerReference | None:
        """The controller that created it."""
        return controller_of(self.metadata.owner_references)


def _charged(given: dict[str, str] | None) -> dict[str, str] | None:
    """The labels or selectors that a charge depends on."""
    return {key: text for key, text in (given or {}).items() if key in CHARGED_BY} or None


def _kept(spec: Spec) -> Spec:
    """The specification without the fields that no charge depends on."""
    containers_kept = {
        name: [_kept_container(container) for container in found]
        for name in ("containers", "init_containers")
        if (found := getattr(spec, name))
    }
    shed = dict.fromkeys(_UNREAD)
    return msgspec.structs.replace(
        spec, node_selector=_charged(spec.node_selector), **shed, **containers_kept
    )


def _kept_container(container: Container) -> Container:
    env = [variable for variable in container.env or () if variable.name in CHARGED_BY]
    return msgspec.structs.replace(container, env=env or None, security_context=None)


def terminal(pod: PodRecord) -> bool:
    """True once the pod's containers can never run again."""
    return pod.status is not None and pod.status.phase in TERMINAL


def overdue_after_s(pod: PodRecord) -> int | None:
    """Seconds from the first sight of a pod's deletion until it stops counting; None if it stays.

    A lost node never confirms the deletion of its pods. ResourceQuota stops counting them after
    twice their grace period (kubernetes pkg/quota/v1/evaluator/core/pods.go, QuotaV1Pod), by the
    wall clock. Here the watching process measures the time, so that no step of a clock frees the
    quota of a running pod.
    """
    if pod.metadata.deletion_timestamp is None:
        return None
    grace_s = pod.metadata.deletion_grace_period_seconds
    return 2 * (DEFAULT_GRACE_S if grace_s is None else max(0, grace_s))


def facts_of(record: PodRecord, stacks: Stacks = STACKS) -> PodFacts:
    """The facts about a pod, without the GPUs that it may get."""
    pod = record.pod()
    cost = demand(pod, stacks)
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
        containers=_asking(pod),
    )


def _asking(pod: Pod) -> tuple[str, ...]:
    """The containers that ask for GPUs, by resources or by claims of our driver."""
    claiming = {name for names in claim_template.holders(pod).values() for name in names}
    return tuple(
        at.container.name
        for at in containers(pod)
        if at.container.name in claiming or any(map(is_gpu, at.container.resource_names()))
    )


def _written(pod: Pod) -> Request | None:
    """The request in the user's annotations; None where there is none or it was rendered."""
    if keys.REQUEST in pod.annotations():
        return None
    try:
        return user_annotations.parse(pod, Bounds())
    except Refused:
        return None


def trued_down(facts: PodFacts, record: PodRecord, chosen: Mapping[str, int]) -> PodFacts:
    """The facts once entries of lists are chosen, by the claim's name in the pod, in MiB.

    A pod that is bound keeps what its claims were given; before, they may be given others.
    """
    if not record.spec.node_name:
        return facts
    spare_core_milli = sum(
        shape.spare_core_milli(chosen.get(name, 0))
        for _, name, shape in claim_template.claims_of(record.pod())
    )
    core_milli = facts.demand.core_milli - spare_core_milli
    return replace(facts, demand=replace(facts.demand, core_milli=core_milli))


def assigned_uuids(pod: PodRecord) -> frozenset[str]:
    """The cards that were chosen for the pod; empty while there are none."""
    chosen = assignment.find(pod.metadata.annotations or {})
    return frozenset(share.uuid for shares in chosen.values() for share in shares)
