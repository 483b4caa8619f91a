"""Pods for tests, one function for each form in which the product reads them.

``pod`` is a manifest as a user writes it and ``typed`` the same for the domain; ``plain_pod``
asks for no GPU; ``asking_manifest`` is a manifest after the webhook and ``scheduler_pod`` the
same for the extender; ``quota_pod`` is a pod, ``hand_claim`` a claim as quotas decode it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gpu_fraction.domain import dra, inventory, keys
from gpu_fraction.domain.placement import Ask
from gpu_fraction.domain.pod import Container, Pod, Resources, Spec
from gpu_fraction.kube.objects import OwnerReference
from gpu_fraction.quota.claims import ClaimRecord
from gpu_fraction.quota.pods import PodMeta, PodRecord, Status
from gpu_fraction.scheduler.objects import Pod as SchedulerPod

Raw = dict[str, Any]


def container(name: str = "main", resources: Mapping[str, Any] | None = None, **rest: Any) -> Raw:
    """A container; ``resources`` are limits and requests alike."""
    made: Raw = {"name": name, "image": "busybox", **rest}
    if resources is not None:
        made["resources"] = {"limits": dict(resources), "requests": dict(resources)}
    return made


def pod(
    annotations: Mapping[str, str] | None = None,
    *containers: Raw,
    init: Sequence[Raw] = (),
    ephemeral: Sequence[Raw] = (),
    **spec: Any,
) -> Raw:
    """A pod in namespace ``team-a``; one container ``main`` where none is given."""
    metadata: Raw = {"name": "p", "namespace": "team-a"}
    if annotations is not None:
        metadata["annotations"] = dict(annotations)
    body: Raw = {"containers": [dict(c) for c in containers or (container(),)], **spec}
    if init:
        body["initContainers"] = list(init)
    if ephemeral:
        body["ephemeralContainers"] = list(ephemeral)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}


def plain_pod(name: str, *, node: str = "", **metadata: Any) -> Raw:
    """A small pod, bound to a node where one is named."""
    spec: Raw = {"containers": [{"name": "c", "image": "example.test/i"}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {**spec, "nodeName": node} if node else spec,
    }


def typed(raw: Mapping[str, Any]) -> Pod:
    """The pod as the domain sees it, by the same road as the wire."""
    return msgspec.json.decode(msgspec.json.encode(raw), type=Pod)


def env(*pairs: tuple[str, str | None]) -> list[Raw]:
    """Environment variables; None stands for a reference to somewhere else."""
    return [
        {"name": name, "value": value}
        if value is not None
        else {"name": name, "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
        for name, value in pairs
    ]


def paths(problems: Iterable[Any]) -> list[str]:
    """The fields that problems are about."""
    return [problem.path for problem in problems]


def request_annotation(*asks: Ask) -> str:
    """The request annotation of these asks, in the form the webhook writes."""
    first = asks[0]
    containers = [
        {
            key: value
            for key, value in (
                ("name", ask.container),
                ("cards", ask.cards),
                ("coreMilli", ask.core_milli),
                ("memoryMib", ask.memory_mib),
                ("memoryMilli", ask.memory_milli),
            )
            if value is not None
        }
        for ask in asks
    ]
    return json.dumps(
        {
            "v": 1,
            "backend": "native",
            "containers": containers,
            "placement": first.placement,
            "isolation": first.isolation,
            "models": first.models_in,
            "notModels": first.models_out,
            "uuids": first.uuids,
        }
    )


def asking_manifest(
    name: str,
    *asks: Ask,
    uid: str = "",
    priority: int = 0,
    node: str = "",
    assigned: str = "",
    nominated: str = "",
    phase: str = "Pending",
    deleting: bool = False,
    cpu: str = "",
    spec: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A pod whose containers ask by annotation and by resources, as after the webhook."""
    annotations = {keys.REQUEST: request_annotation(*asks)} if asks else {}
    if assigned:
        annotations[keys.ASSIGNED] = assigned
    containers = []
    for ask in asks or (None,):
        amounts = {"cpu": cpu} if cpu else {}
        if ask is not None:
            amounts[keys.SLOT] = "1"
            if ask.core_milli is not None:
                amounts[keys.CORE_MILLI] = str(ask.core_milli * ask.cards)
            if ask.memory_mib is not None:
                amounts[keys.MEMORY_MIB] = str(ask.memory_mib * ask.cards)
        resources = {"requests": amounts, "limits": amounts}
        containers.append(
            {"name": ask.container if ask else "main", "image": "x", "resources": resources}
        )
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "team",
        "uid": uid or f"uid-{name}",
        "resourceVersion": "1",
        "annotations": annotations,
    }
    if deleting:
        metadata["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    return {
        "metadata": metadata,
        "spec": {
            "containers": containers,
            "priority": priority,
            **({"schedulerName": keys.SCHEDULER} if asks else {}),
            **({"nodeName": node} if node else {}),
            **(spec or {}),
        },
        "status": {"phase": phase, **({"nominatedNodeName": nominated} if nominated else {})},
    }


def scheduler_pod(name: str, *asks: Ask, **fields: Any) -> SchedulerPod:
    """The same pod, as the extender decodes it."""
    return msgspec.convert(asking_manifest(name, *asks, **fields), SchedulerPod)


def inventory_of(cards: Iterable[inventory.Card]) -> str:
    """The node daemon's annotation."""
    return inventory.render(inventory.Inventory(cards=tuple(cards)))


def quota_pod(
    uid: str = "u1",
    *,
    cores: int = 0,
    memory: int = 0,
    gpus: int = 0,
    name: str = "",
    namespace: str = "team-a",
    priority_class: str | None = None,
    phase: str = "Pending",
    containers: Sequence[Container] | None = None,
    init: Sequence[Container] | None = None,
    annotations: dict[str, str] | None = None,
    owner: OwnerReference | None = None,
    node: str | None = None,
) -> PodRecord:
    """A pod; ``gpus`` are whole NVIDIA cards, ``cores`` and ``memory`` native resources."""
    own = containers or [quota_container(cores=cores, memory=memory, gpus=gpus)]
    return PodRecord(
        metadata=PodMeta(
            name=name or uid,
            namespace=namespace,
            uid=uid,
            annotations=annotations,
            owner_references=[owner] if owner else None,
        ),
        spec=Spec(
            containers=list(own),
            init_containers=list(init) if init else None,
            priority_class_name=priority_class,
            node_name=node,
        ),
        status=Status(phase),
    )


def hand_claim(
    uid: str = "c1",
    *requests: Raw,
    name: str = "",
    cards: int = 1,
    labels: Mapping[str, str] | None = None,
    pod: tuple[str, str] | None = None,
    given: str = "",
) -> ClaimRecord:
    """A ResourceClaim as quotas decode it.

    Args:
        uid: The claim's.
        *requests: Its requests; none for whole cards.
        name: The claim's; the uid if empty.
        cards: Number of those.
        labels: The claim's.
        pod: Uid of the pod that it was made for, and its name there.
        given: The entry that was chosen of a list.
    """
    whole = {"deviceClassName": dra.FRACTION_CLASS, "count": cards}
    metadata: Raw = {
        "name": name or uid,
        "namespace": "team-a",
        "uid": uid,
        "labels": labels and dict(labels),
    }
    if pod is not None:
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod[0], "controller": True}
        metadata["ownerReferences"] = [owner]
        metadata["annotations"] = {"resource.kubernetes.io/pod-claim-name": pod[1]}
    results = [{"driver": dra.DRIVER, "request": given}] if given else []
    raw = {
        "metadata": metadata,
        "spec": {"devices": {"requests": requests or [{"name": "r", "exactly": whole}]}},
        "status": {"allocation": {"devices": {"results": results}}} if given else {},
    }
    return msgspec.json.decode(json.dumps(raw), type=ClaimRecord)


def quota_container(
    name: str = "main",
    *,
    cores: int = 0,
    memory: int = 0,
    gpus: int = 0,
    restart_policy: str | None = None,
    **limits: str,
) -> Container:
    """A container with GPU limits; memory without cores asks for no compute at all."""
    asked = {key.replace("__", "/").replace("_", "-"): value for key, value in limits.items()}
    if cores or memory:
        asked["gpu-fraction.dev/slot"] = "1"
        asked["gpu-fraction.dev/core-milli"] = str(cores)
    if memory:
        asked["gpu-fraction.dev/memory-mib"] = str(memory)
    if gpus:
        asked["nvidia.com/gpu"] = str(gpus)
    return Container(
        name=name,
        resources=Resources(limits=asked) if asked else None,
        restart_policy=restart_policy,
    )
