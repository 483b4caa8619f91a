"""Deployments and ReplicaSets become pods, and what lost its owner is deleted.

As kube-controller-manager does it, without rollouts: a changed pod template replaces all pods at
once. A ReplicaSet whose pods are refused waits twice as long each time, and tries again at once
after a change of the ReplicaSet, which is how freed quota reaches it.
Source: kubernetes pkg/controller/replicaset, pkg/controller/deployment.
"""

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgspec

from gpu_fraction.kube.client import Client
from gpu_fraction.kube.errors import KubeError, NotFoundError
from gpu_fraction.kube.events import EventRecorder, EventType, reference
from gpu_fraction.kube.objects import Identity, Meta
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import DEPLOYMENTS, PODS, REPLICA_SETS, Resource
from gpu_fraction.sandbox.apiserver.storage import Object, Storage
from gpu_fraction.sandbox.controlplane.following import each, follow, objects

FIRST_WAIT_S: Final = 1.0
"""Chosen: client-go begins with 5 ms and reaches this at the eighth failure."""

LONGEST_WAIT_S: Final = 1000.0
"""Source: client-go workqueue.DefaultControllerRateLimiter."""


@dataclass(slots=True)
class _Refused:
    """A ReplicaSet whose pod was not created.

    Attributes:
        version: What it was then; a change ends the wait.
        until_s: End of the wait, by the loop's clock.
    """

    version: tuple[Any, ...]
    until_s: float
    wait_s: float


class Workloads:
    """Keeps pods as Deployments and ReplicaSets want them."""

    def __init__(self, storage: Storage, client: Client) -> None:
        """Read ``storage``, write by ``client``."""
        self._storage = storage
        self._client = client
        self._events = EventRecorder(client, component="demo-replicasets")
        self._refused: dict[str, _Refused] = {}

    async def run(self) -> NoReturn:
        """Work until cancelled."""
        await follow(self._storage, self._round)

    async def events(self) -> NoReturn:
        """Write Events until cancelled."""
        await self._events.run()

    async def _round(self) -> None:
        await self._collect()
        await each(objects(self._storage, DEPLOYMENTS), self._deployment)
        await each(objects(self._storage, REPLICA_SETS), self._replica_set)

    async def _collect(self) -> None:
        """Delete what a Deployment or ReplicaSet that is gone has owned."""
        alive = {
            one["metadata"]["uid"]
            for resource in (DEPLOYMENTS, REPLICA_SETS)
            for one in objects(self._storage, resource)
        }
        for resource in (REPLICA_SETS, PODS):
            for one in objects(self._storage, resource):
                owner = _owner(one)
                if owner and owner not in alive and "deletionTimestamp" not in one["metadata"]:
                    await self._delete(resource, one)

    async def _deployment(self, deployment: Object) -> None:
        own = _owned(deployment, objects(self._storage, REPLICA_SETS))
        spec, meta = deployment["spec"], deployment["metadata"]
        template = spec["template"]
        digest = hashlib.sha256(msgspec.json.encode(template, order="deterministic"))
        name = f"{meta['name']}-{digest.hexdigest()[:10]}"
        count = spec.get("replicas", 1)
        for one in own:
            wanted = count if one["metadata"]["name"] == name else 0
            if one["spec"].get("replicas") != wanted:
                address = REPLICA_SETS.at(one["metadata"]["name"], namespace=meta["namespace"])
                scaled = {"spec": {"replicas": wanted}}
                await self._client.patch(address, PatchKind.MERGE, scaled, Identity)
        if name not in {one["metadata"]["name"] for one in own}:
            body = {
                "apiVersion": REPLICA_SETS.api_version,
                "kind": REPLICA_SETS.kind,
                "metadata": _child(DEPLOYMENTS, deployment, template, "labels") | {"name": name},
                "spec": {
                    "replicas": count,
                    "selector": spec.get("selector", {}),
                    "template": template,
                },
            }
            await self._client.create(REPLICA_SETS.at(namespace=meta["namespace"]), body, Identity)
        ready = sum((one.get("status") or {}).get("readyReplicas", 0) for one in own)
        total = sum((one.get("status") or {}).get("replicas", 0) for one in own)
        await self._status(
            DEPLOYMENTS,
            deployment,
            replicas=total,
            updatedReplicas=total,
            readyReplicas=ready,
            availableReplicas=ready,
        )

    async def _replica_set(self, replica_set: Object) -> None:
        pods = [p for p in _owned(replica_set, objects(self._storage, PODS)) if _active(p)]
        ready = sum(map(_ready, pods))
        await self._status(REPLICA_SETS, replica_set, replicas=len(pods), readyReplicas=ready)
        missing = replica_set["spec"].get("replicas", 1) - len(pods)
        # Those that do not run yet go first.
        for pod in sorted(pods, key=_ready)[: max(0, -missing)]:
            await self._delete(PODS, pod)
        if missing > 0 and self._may_try(replica_set):
            for _ in range(missing):
                if not await self._create_pod(replica_set):
                    return

    def _may_try(self, replica_set: Object) -> bool:
        refused = self._refused.get(replica_set["metadata"]["uid"])
        if refused is None or refused.version != _version(replica_set):
            return True
        return asyncio.get_running_loop().time() >= refused.until_s

    async def _create_pod(self, replica_set: Object) -> bool:
        meta, template = replica_set["metadata"], replica_set["spec"]["template"]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": _child(REPLICA_SETS, replica_set, template, "labels", "annotations")
            | {"generateName": meta["name"] + "-"},
            "spec": template["spec"],
        }
        try:
            await self._client.create(PODS.at(namespace=meta["namespace"]), body, Identity)
        except KubeError as e:
            refused = self._refused.get(meta["uid"])
            wait_s = min(LONGEST_WAIT_S, 2 * refused.wait_s) if refused else FIRST_WAIT_S
            until_s = asyncio.get_running_loop().time() + wait_s
            self._refused[meta["uid"]] = _Refused(_version(replica_set), until_s, wait_s)
            about = reference(
                REPLICA_SETS,
                Meta(name=meta["name"], namespace=meta["namespace"], uid=meta["uid"]),
            )
            message = f"Error creating: {e}"
            self._events.record(about, EventType.WARNING, "FailedCreate", message)
            return False
        self._refused.pop(meta["uid"], None)
        return True

    async def _status(self, resource: Resource, one: Object, **counts: int) -> None:
        meta = one["metadata"]
        wanted = {**counts, "observedGeneration": meta.get("generation", 1)}
        if (one.get("status") or {}) != wanted:
            address = resource.at(meta["name"], namespace=meta["namespace"], subresource="status")
            body = {"status": wanted}
            await self._client.patch(address, PatchKind.MERGE, body, Identity)

    async def _delete(self, resource: Resource, one: Object) -> None:
        meta = one["metadata"]
        try:
            await self._client.delete(resource.at(meta["name"], namespace=meta["namespace"]))
        except NotFoundError:
            return


def _child(resource: Resource, owner: Object, template: Object, *fields: str) -> Object:
    """Metadata of what an object owns, with these fields of its pod template."""
    given = template.get("metadata") or {}
    reference_ = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    kept = {key: given[key] for key in fields if given.get(key)}
    return {**kept, "ownerReferences": [reference_]}


def _owner(one: Object) -> str:
    """The UID of the Deployment or ReplicaSet that owns it; empty for none."""
    kinds = {DEPLOYMENTS.kind, REPLICA_SETS.kind}
    for owner in one["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner["kind"] in kinds:
            return str(owner["uid"])
    return ""


def _owned(owner: Object, among: Iterable[Object]) -> list[Object]:
    return [one for one in among if _owner(one) == owner["metadata"]["uid"]]


def _version(replica_set: Object) -> tuple[Any, ...]:
    meta = replica_set["metadata"]
    return meta.get("generation"), meta.get("annotations")


def _active(pod: Object) -> bool:
    ended = pod["status"].get("phase") in {"Succeeded", "Failed"}
    return not ended and "deletionTimestamp" not in pod["metadata"]


def _ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
