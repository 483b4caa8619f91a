"""A node without containers: its kubelet follows the API server as a real one does.

The device manager and its protocols are those of ``FakeKubelet``. A container that starts is a
record with the environment that its CDI devices give it; no process runs.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import structlog

from gpu_fraction.kube.client import Client
from gpu_fraction.kube.errors import KubeError, NotFoundError
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import NODES, PODS, Address
from gpu_fraction.kube.timestamps import time as api_time
from gpu_fraction.kube.timestamps import utc_now
from gpu_fraction.sandbox.apiserver.storage import Object, Storage
from gpu_fraction.sandbox.controlplane.following import follow, objects
from gpu_fraction.sandbox.kubelet.devices import StartError
from gpu_fraction.sandbox.kubelet.kubelet import FakeKubelet, KubeletPod

RETRY_S: Final = 0.2
"""Between two starts of a container. Chosen: the real kubelet waits ten seconds."""

OWN: Final = {"cpu": "32", "memory": "256Gi", "pods": "110"}
"""Chosen: the node limits GPUs alone."""

INFO: Final = {
    "kubeletVersion": "v1.37.2-sandbox",
    "containerRuntimeVersion": "containerd://2.0.0",
    "operatingSystem": "linux",
    "architecture": "amd64",
}

_log = structlog.get_logger()


class SimulatedNode:
    """One Node with its kubelet.

    Attributes:
        kubelet: Its device manager and runtime.
    """

    def __init__(
        self, name: str, root: Path, storage: Storage, client: Client, resource: str
    ) -> None:
        """Offer one device plugin's ``resource``; ``root`` holds its directories."""
        self.name = name
        self.kubelet_dir = root / "kubelet"
        self.cdi_dir = root / "cdi"
        self.kubelet = FakeKubelet(self.kubelet_dir, self.cdi_dir, resource)
        self._resource = resource
        self._storage = storage
        self._client = client
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._bound: dict[str, Object] = {}

    def manifest(self) -> Object:
        """The Node as the kubelet registers it."""
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name}},
            "spec": {},
            "status": {
                "capacity": dict(OWN),
                "allocatable": dict(OWN),
                "nodeInfo": INFO,
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            },
        }

    async def run(self) -> NoReturn:
        """Follow the API server until cancelled; the Node exists."""
        await asyncio.to_thread(self.cdi_dir.mkdir, parents=True, exist_ok=True)
        await self.kubelet.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(follow(self._storage, self._round), name="node")
        finally:
            await self.kubelet.stop()
        raise AssertionError("unreachable: follows until cancelled")

    async def _round(self) -> None:
        await self._report()
        mine = {
            pod["metadata"]["uid"]: pod
            for pod in objects(self._storage, PODS)
            if pod["spec"].get("nodeName") == self.name
        }
        for uid in self._bound.keys() - mine.keys():
            self._forget(uid)
        for uid, pod in mine.items():
            if "deletionTimestamp" in pod["metadata"]:
                self._forget(uid)
                with suppress(NotFoundError):
                    await self._client.delete(_address(pod), {"gracePeriodSeconds": 0})
            elif uid not in self._bound and pod["status"].get("phase") == "Pending":
                self._bound[uid] = pod
                task = self._tasks.create_task(self._start(pod), name=f"pod {uid}")
                self._starting[uid] = task
            elif pod["status"].get("phase") == "Running":
                await self._show_health(pod)

    async def _report(self) -> None:
        """The devices of the plugin; other extended resources are allocatable as they are."""
        mine = [n for n in objects(self._storage, NODES) if n["metadata"]["name"] == self.name]
        if not mine:
            return  # deleted; a kubelet registers at its start alone
        endpoint = self.kubelet.devices.endpoint
        healthy, sick = len(endpoint.healthy), len(endpoint.unhealthy)
        status = mine[0]["status"]
        capacity = status["capacity"] | {self._resource: str(healthy + sick)}
        allocatable = capacity | {self._resource: str(healthy)}
        wanted = {"capacity": capacity, "allocatable": allocatable}
        if any(status.get(key) != value for key, value in wanted.items()):
            address = NODES.at(self.name).sub("status")
            await self._client.patch(address, PatchKind.MERGE, {"status": wanted}, Identity)

    async def _start(self, pod: Object) -> None:
        """Admit a pod and start its containers, again and again until they run."""
        meta = pod["metadata"]
        try:
            holding = tuple(c["name"] for c in _containers(pod) if self._holds(c))
            own = KubeletPod(meta["namespace"], meta["name"], meta["uid"], holding)
            if holding:
                await self.kubelet.admit(own)
            for name in holding:
                await self._start_container(meta["uid"], name)
        except Exception as e:  # noqa: BLE001 - refused by the plugin, or a pod that makes no sense
            await self._set_status(
                pod, phase="Failed", reason="UnexpectedAdmissionError", message=str(e) or repr(e)
            )
            return
        running = {"running": {"startedAt": api_time(utc_now())}}
        states = [
            {
                "name": c["name"],
                "ready": True,
                "started": True,
                "state": running,
                "restartCount": 0,
            }
            | {"image": c.get("image", ""), "imageID": "", "containerID": ""}
            for c in _containers(pod)
        ]
        ready = [
            {"type": kind, "status": "True"}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        await self._set_status(pod, phase="Running", conditions=ready, containerStatuses=states)

    async def _start_container(self, uid: str, name: str) -> None:
        said = ""
        while True:
            try:
                await self.kubelet.start_container(uid, name)
            except StartError as e:
                if str(e) != said:
                    said = str(e)
                    _log.info("start_refused", node=self.name, pod=uid, error=said)
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _holds(self, container: Object) -> bool:
        limits = (container.get("resources") or {}).get("limits") or {}
        return self._resource in limits

    async def _show_health(self, pod: Object) -> None:
        """Source: Kubernetes KEP-4680, ``allocatedResourcesStatus``."""
        sick = self.kubelet.devices.endpoint.unhealthy
        held = {
            a.container: a.ids
            for a in self.kubelet.devices.allocated
            if a.uid == pod["metadata"]["uid"]
        }
        if not held:
            return
        states = []
        for one in pod["status"].get("containerStatuses", ()):
            shown = [
                {"resourceID": i, "health": "Unhealthy" if i in sick else "Healthy"}
                for i in held.get(one["name"], ())
            ]
            given = [{"name": self._resource, "resources": shown}] if shown else []
            states.append({**one, "allocatedResourcesStatus": given})
        if states != pod["status"].get("containerStatuses"):
            await self._set_status(pod, containerStatuses=states)

    async def _set_status(self, pod: Object, **status: object) -> None:
        address = _address(pod).sub("status")
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        try:
            await self._client.patch(address, PatchKind.MERGE, body, Identity)
        except KubeError as e:  # it was deleted, or the server does not answer now
            _log.info("status_not_written", pod=str(address), error=str(e))

    def _forget(self, uid: str) -> None:
        if self._bound.pop(uid, None) is not None:
            self._starting.pop(uid).cancel()
            self.kubelet.remove(uid)


def _address(pod: Object) -> Address:
    meta = pod["metadata"]
    return PODS.at(meta["name"], namespace=meta["namespace"])


def _containers(pod: Object) -> Iterator[Object]:
    """The containers that last: those of the pod, and its sidecars."""
    for container in pod["spec"].get("initContainers", ()):
        if container.get("restartPolicy") == "Always":
            yield container
    yield from pod["spec"]["containers"]
