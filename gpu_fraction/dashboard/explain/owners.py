"""Owners of pods: which can be explained, and what they make."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gpu_fraction.dashboard.objects import Event, Pod
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.errors import KubeError
from gpu_fraction.kube.requests import Selection
from gpu_fraction.kube.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Resource,
)

Raw = Mapping[str, Any]

_SHORT: Final = {
    "po": PODS,
    "deploy": DEPLOYMENTS,
    "rs": REPLICA_SETS,
    "sts": STATEFUL_SETS,
    "ds": DAEMON_SETS,
    "cj": CRON_JOBS,
}
KINDS: Final[Mapping[str, Resource]] = {
    **{
        word: one
        for one in (*_SHORT.values(), JOBS)
        for word in (one.plural, one.kind.lower(), one.qualified)
    },
    **_SHORT,
}
"""What can be explained, by the words that kubectl takes."""

CHILDREN: Final = {"Deployment": REPLICA_SETS, "CronJob": JOBS}
"""Owners whose pods belong to an owner in between."""

_REVISION: Final = "deployment.kubernetes.io/revision"
"""Source: kubernetes pkg/controller/deployment/util."""


def age(raw: Raw) -> tuple[int, str]:
    """What orders the owners in between: revision, then time."""
    meta = raw["metadata"]
    revision = (meta.get("annotations") or {}).get(_REVISION, "")
    return int(revision) if revision.isdecimal() else 0, meta.get("creationTimestamp") or ""


def owned(pod: Pod, uid: str) -> bool:
    """Whether the object with that UID has made the pod."""
    owner = pod.metadata.owner
    return owner is not None and owner.uid == uid


def wanted(owner: Raw) -> int:
    """The number of pods that the owner would have."""
    spec, status = owner.get("spec") or {}, owner.get("status") or {}
    for value in (spec.get("replicas"), status.get("desiredNumberScheduled")):
        if isinstance(value, int):
            return value
    left = (spec.get("completions") or 1) - (status.get("succeeded") or 0)
    return int(min(spec.get("parallelism", 1), left))


def idle(owner: Raw) -> str:
    """The field by which the owner wants no pods now; empty where it wants some."""
    spec = owner.get("spec") or {}
    if spec.get("replicas") == 0:
        return "spec.replicas is 0"
    return "spec.suspend is true" if spec.get("suspend") is True else ""


def template(owner: Raw, namespace: str, name: str) -> Raw:
    """The pod that the owner would make."""
    spec = owner.get("spec") or {}
    spec = (spec.get("jobTemplate") or {}).get("spec") or spec
    template = spec.get("template") or {}
    meta = {**(template.get("metadata") or {}), "namespace": namespace, "name": name}
    return {"metadata": meta, "spec": template.get("spec") or {}}


async def refused_owners(client: Client, namespace: str, *, timeout_s: float) -> Sequence[str]:
    """``kind/name`` of owners whose pods were refused within the last hour, the latest first.

    Args:
        client: The connection.
        namespace: Where to look.
        timeout_s: Seconds for the answer.
    """
    selection = Selection(fields="reason=FailedCreate")
    try:
        found = await client.list(
            EVENTS.at(namespace=namespace), _Refused, selection, timeout_s=timeout_s
        )
    except KubeError:
        return ()
    latest = sorted(found.items, key=lambda event: event.at, reverse=True)
    owners = (f"{e.involved_object.kind.lower()}/{e.involved_object.name}" for e in latest)
    return tuple(dict.fromkeys(owners))


class _Involved(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""


class _Refused(Event, frozen=True, kw_only=True, rename="camel"):
    involved_object: _Involved = _Involved()
