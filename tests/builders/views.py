"""Manifests of a small cluster, as the views of it read them."""

from collections.abc import Iterable, Mapping
from typing import Any

from gpu_fraction.dashboard import dra_objects, objects
from gpu_fraction.domain import assignment, dra, inventory, keys
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.request_annotation import render
from gpu_fraction.kube.resources import GPU_QUOTAS
from gpu_fraction.sandbox.apiserver import ApiServer, Kind
from tests.builders.cards import card

Raw = dict[str, Any]

KINDS: Mapping[str, tuple[str, type[Any]]] = {
    "Node": ("nodes", objects.Node),
    "Pod": ("pods", objects.Pod),
    "GPUQuota": ("quotas", objects.Quota),
    "ResourceClaim": ("claims", dra_objects.Claim),
    "ResourceSlice": ("devices", dra_objects.DeviceSlice),
}
"""The part of a snapshot that each kind is in, and how it is read."""

CREATED = "2026-12-01T12:00:00Z"
READY = {"type": "Ready", "status": "True"}


def server(*objects: Raw) -> ApiServer:
    """An API server that knows GPUQuotas."""
    api = ApiServer(kinds=[Kind(GPU_QUOTAS, ("gpuq",), status=True, generation=True)])
    for namespace in {o["metadata"].get("namespace", "default") for o in objects} - {"default"}:
        api.add_namespace(namespace)
    api.add(*objects)
    return api


def gpu_node(
    name: str, *cards: inventory.Card, ready: bool = True, text: str | None = None, **spec: Any
) -> Raw:
    """A node with an inventory; ``text`` is the annotation as it is."""
    found = inventory.Inventory(driver_version="580.65.06", cards=cards)
    annotations = {keys.INVENTORY: inventory.render(found) if text is None else text}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": annotations, "creationTimestamp": CREATED},
        "spec": spec,
        "status": {"conditions": [{**READY, "status": "True" if ready else "False"}]},
    }


def gpu_pod(
    name: str,
    *shares: CardShare,
    namespace: str = "team-a",
    node: str = "",
    phase: str = "",
    milli: int = 500,
    conditions: Iterable[Mapping[str, Any]] = (),
    **metadata: Any,
) -> Raw:
    """A pod of our own scheduler after the webhook; ``shares`` are those of container ``main``."""
    request = Request((Slice("main", core_milli=milli, memory_milli=milli),))
    annotations = {keys.FRACTION: str(milli / 1000), keys.REQUEST: render(request, keys.NATIVE)}
    if shares:
        annotations[keys.ASSIGNED] = assignment.render({"main": shares})
    limits = {keys.SLOT: "1", keys.CORE_MILLI: str(milli)}
    spec: Raw = {
        "schedulerName": keys.SCHEDULER,
        "serviceAccountName": "trainer",
        "containers": [{"name": "main", "image": "i", "resources": {"limits": limits}}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{namespace}-{name}",
            "creationTimestamp": CREATED,
            "annotations": annotations,
            **metadata,
        },
        "spec": {**spec, "nodeName": node} if node else spec,
        "status": {
            "phase": phase or ("Running" if node else "Pending"),
            "conditions": list(conditions),
        },
    }


def quota(name: str, hard: Raw, used: Raw | None = None, **fields: Any) -> Raw:
    """A GPUQuota in ``team-a``, counted where ``used`` is given."""
    namespace = fields.pop("namespace", "team-a")
    status: Raw = {"observedGeneration": 1, "hard": hard, **fields.pop("status", {})}
    return {
        "apiVersion": GPU_QUOTAS.api_version,
        "kind": GPU_QUOTAS.kind,
        "metadata": {"name": name, "namespace": namespace, "generation": 1},
        "spec": {"hard": hard, **fields},
        "status": status if used is None else {**status, "used": used},
    }


def device_slice(node: str, *cards: inventory.Card, generation: int = 1) -> Raw:
    """The cards of a node as our driver publishes them."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-{generation}"},
        "spec": {
            "driver": dra.DRIVER,
            "nodeName": node,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": 1},
            "devices": [
                {
                    "name": one.uuid.lower(),
                    "attributes": {
                        dra.UUID: {"string": one.uuid},
                        dra.MODEL: {"string": one.model},
                        dra.MEMORY_MIB: {"int": one.memory_mib},
                        dra.MIG: {"bool": bool(one.parent)},
                    },
                    "capacity": {
                        dra.CORES: {"value": "1k"},
                        dra.MEMORY_PPM: {"value": "1M"},
                        dra.SLOTS: {"value": str(one.slots)},
                    },
                    **({} if one.healthy else {"taints": [{"key": dra.UNHEALTHY}]}),
                }
                for one in cards
            ],
        },
    }


def claim(name: str, pod: Raw, node: str, uuid: str, core_milli: int, ppm: int) -> Raw:
    """A claim of part of a card that a pod holds."""
    result = {
        "request": "gpu",
        "driver": dra.DRIVER,
        "pool": node,
        "device": uuid.lower(),
        "consumedCapacity": {dra.CORES: str(core_milli), dra.MEMORY_PPM: str(ppm)},
    }
    meta = pod["metadata"]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": meta["namespace"]},
        "spec": {},
        "status": {
            "allocation": {"devices": {"results": [result]}},
            "reservedFor": [{"resource": "pods", "name": meta["name"], "uid": meta["uid"]}],
        },
    }


def small_cluster() -> list[Raw]:
    """Two nodes with two cards each, three pods, one of which waits, and two quotas."""
    a100 = {"model": "NVIDIA A100-SXM4-80GB", "memory_mib": 81920}
    return [
        gpu_node(
            "n1", card(0, uuid="GPU-a", **a100), card(1, uuid="GPU-b", **a100, isolation="mps")
        ),
        gpu_node(
            "n2",
            card(0, uuid="GPU-c", healthy=False, health_reason="XID 79"),
            card(1, uuid="GPU-d"),
        ),
        gpu_pod("train", CardShare("GPU-a", 500, 40960), node="n1"),
        gpu_pod("serve", CardShare("GPU-a", 250, 20480), node="n1", namespace="team-b", milli=250),
        gpu_pod("next", milli=900),
        quota("budget", {"cores": "1", "memory": "80Gi"}, {"cores": "500m", "memory": "40Gi"}),
        quota("all", {"gpus": 4}, {"gpus": 1}, namespace="team-b"),
    ]
