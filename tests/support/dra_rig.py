"""A node in DRA mode: the whole daemon between a kubelet's calls and a small API server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from prometheus_client import CollectorRegistry

from gpu_fraction.domain import dra
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.resources import RESOURCE_CLAIMS, RESOURCE_SLICES
from gpu_fraction.kubelet_api import dra_v1_pb2 as api
from gpu_fraction.kubelet_api import dra_v1_pb2_grpc as api_grpc
from gpu_fraction.kubelet_api import pluginregistration_v1_pb2 as registration
from gpu_fraction.kubelet_api import pluginregistration_v1_pb2_grpc as registration_grpc
from gpu_fraction.node_daemon.app import NodeDaemon
from gpu_fraction.node_daemon.cards.inventory_reader import CardReading
from gpu_fraction.node_daemon.settings import NodeDaemonSettings
from gpu_fraction.sandbox.apiserver.kinds import BUILT_IN
from gpu_fraction.sandbox.apiserver.server import ApiServer
from gpu_fraction.sandbox.kubelet.runtime import CdiRuntime, Started
from tests.support.fake_cards import FakeCards
from tests.support.settings import configured

NODE = "node-1"
QUARTER = {dra.CORES: "250", dra.MEMORY_PPM: "250k", dra.SLOTS: "1"}
WHOLE = {dra.CORES: "1k", dra.MEMORY_PPM: "1M", dra.SLOTS: "1"}
Manifest = dict[str, Any]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def card(index: int, memory_mib: int = 40_000, **fields: Any) -> CardReading:
    """A card by its index."""
    return CardReading(index, f"GPU-{index}", "NVIDIA A100", memory_mib, **fields)


def result(index: int, amounts: Mapping[str, str] | None = None, **fields: Any) -> Manifest:
    """A share of a card, as the scheduler writes it into a claim."""
    given: Manifest = {
        "request": "gpu",
        "driver": dra.DRIVER,
        "pool": NODE,
        "device": f"gpu-{index}",
        "shareID": f"00000000-0000-0000-0000-{index:012d}",
        "consumedCapacity": dict(QUARTER if amounts is None else amounts),
        **fields,
    }
    return {key: value for key, value in given.items() if value is not None}


class World:
    """Everything around the daemon; the methods that are named for a kubelet's do its work."""

    def __init__(self, root: Path, server: ApiServer, client: Client) -> None:
        self.root = root
        self.server = server
        self.client = client
        self.port = free_port()
        self.runtime = CdiRuntime(root / "cdi")
        self.registrar = root / "k" / "plugins_registry" / "gpu-fraction.dev-reg.sock"
        self.endpoint = Path()
        (root / "cdi").mkdir()
        server.add(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": NODE},
                "status": {
                    "capacity": {"gpu-fraction.dev/core-milli": "4000"},
                    "nodeInfo": {"containerRuntimeVersion": "containerd://2.0.0"},
                },
            }
        )
        flags = {
            "node_name": NODE,
            "mode": "dra",
            "kubelet_dir": root / "k",
            "state_dir": root / "state",
            "cdi_dir": root / "cdi",
            "host_cdi_dirs": root / "etc-cdi",
            "host": "127.0.0.1",
            "port": self.port,
            "isolation": "",
        }
        settings = configured(NodeDaemonSettings, **flags)
        self.settings = replace(settings, cards=replace(settings.cards, event_wait_s=0.02))

    @asynccontextmanager
    async def daemon(
        self, cards: FakeCards | None = None, *, ready: bool = True
    ) -> AsyncIterator[None]:
        """The daemon while the block runs, registered; it ends as on SIGTERM.

        Without cards it has those of NVML.
        """
        stop = asyncio.Event()
        open_cards = None if cards is None else lambda: cards
        daemon = NodeDaemon(self.settings, self.client, CollectorRegistry(), open_cards)
        task = asyncio.create_task(daemon.run(stop))
        try:
            await self.register()
            if ready:
                await until(lambda: self.slices() != [])
                async with asyncio.timeout(8):
                    while await self.get("/readyz") != (200, "ok\n"):
                        await asyncio.sleep(0.02)
            yield
        finally:
            stop.set()
            await task

    async def get(self, path: str) -> tuple[int, str]:
        """One of the daemon's pages."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
            ):
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def register(self, error: str = "") -> registration.PluginInfo:
        """Find the driver, and take it unless there is an error."""
        await until(self.registrar.is_socket)
        async with grpc.aio.insecure_channel(f"unix:{self.registrar}") as channel:
            stub = registration_grpc.RegistrationStub(channel)
            info = await stub.GetInfo(registration.InfoRequest(), wait_for_ready=True)
            status = registration.RegistrationStatus(plugin_registered=not error, error=error)
            await stub.NotifyRegistrationStatus(status)
        self.endpoint = Path(info.endpoint)
        return info

    async def prepare(self, *claims: Manifest) -> dict[str, api.NodePrepareResourceResponse]:
        """Prepare claims; the answers by name."""
        async with grpc.aio.insecure_channel(f"unix:{self.endpoint}") as channel:
            request = api.NodePrepareResourcesRequest(claims=map(_ref, claims))
            answer = await api_grpc.DRAPluginStub(channel).NodePrepareResources(request)
        return {c["metadata"]["name"]: answer.claims[c["metadata"]["uid"]] for c in claims}

    async def unprepare(self, *claims: Manifest) -> dict[str, str]:
        """Take claims back; the errors by name, for those that were answered."""
        async with grpc.aio.insecure_channel(f"unix:{self.endpoint}") as channel:
            request = api.NodeUnprepareResourcesRequest(claims=map(_ref, claims))
            answer = await api_grpc.DRAPluginStub(channel).NodeUnprepareResources(request)
        names = {c["metadata"]["uid"]: c["metadata"]["name"] for c in claims}
        return {names[uid]: one.error for uid, one in answer.claims.items()}

    async def fault(self, claim: Manifest) -> str:
        """The error for one claim."""
        (answer,) = (await self.prepare(claim)).values()
        return answer.error

    async def start(self, claim: Manifest) -> Started:
        """Prepare a claim and make a container of it."""
        (answer,) = (await self.prepare(claim)).values()
        assert answer.error == ""
        names = tuple(name for device in answer.devices for name in device.cdi_device_ids)
        return await asyncio.to_thread(self.runtime.create, "uid", "main", names)

    def slices(self) -> list[Manifest]:
        """The node's slices, by name."""
        return sorted(self._all(RESOURCE_SLICES), key=lambda one: str(one["metadata"]["name"]))

    def devices(self) -> list[Manifest]:
        """The devices of the node's slices."""
        return [device for one in self.slices() for device in one["spec"]["devices"]]

    def stored_claim(self, name: str) -> Manifest:
        """A claim as it is at the API server."""
        return next(c for c in self._all(RESOURCE_CLAIMS) if c["metadata"]["name"] == name)

    def _all(self, resource: Any) -> list[Manifest]:
        kind = next(kind for kind in BUILT_IN if kind.resource == resource)
        return [stored.copy() for stored in self.server.storage.snapshot(kind).values()]

    def pod(self, name: str, *containers: Sequence[tuple[str, str]], **spec: Any) -> Manifest:
        """A pod on the node; each container names the claims and requests that it uses.

        The claim ``x`` is ``x`` in the pod, too.
        """
        used = sorted({claim for uses in containers for claim, _ in uses})
        self.server.add(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {
                    "nodeName": NODE,
                    "resourceClaims": [{"name": c, "resourceClaimName": c} for c in used],
                    "containers": [
                        {
                            "name": f"c{i}",
                            "resources": {
                                "claims": [
                                    {"name": claim, "request": request} for claim, request in uses
                                ]
                            },
                        }
                        for i, uses in enumerate(containers)
                    ],
                    **spec,
                },
                "status": {"phase": "Pending"},
            }
        )
        kind = next(kind for kind in BUILT_IN if kind.resource.kind == "Pod")
        stored = self.server.storage.get(kind, ("default", name))
        assert stored is not None
        return stored.copy()

    def claim(
        self,
        name: str,
        *results: Manifest,
        pod: Manifest | None = None,
        owned: bool = True,
        config: Sequence[Manifest] = (),
        allocated: bool = True,
    ) -> Manifest:
        """A claim of a pod; without one, of a pod of its own that uses all of it."""
        pod = pod or self.pod(f"pod-{name}", [(name, "")])
        identity = {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        owner = {"apiVersion": "v1", "kind": "Pod", "controller": True, **identity}
        devices = {"results": list(results), "config": list(config)}
        self.server.add(
            {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaim",
                "metadata": {
                    "name": name,
                    "namespace": "default",
                    "ownerReferences": [owner] if owned else [],
                },
                "spec": {},
                "status": {
                    "reservedFor": [{"resource": "pods", **identity}],
                    **({"allocation": {"devices": devices}} if allocated else {}),
                },
            }
        )
        return self.stored_claim(name)

    def files(self) -> set[str]:
        """Names of the slice files that are there."""
        return {path.name for path in (self.root / "cdi").glob("*.json")}


def _ref(claim: Manifest) -> api.Claim:
    metadata = claim["metadata"]
    return api.Claim(namespace="default", name=metadata["name"], uid=metadata["uid"])


async def until(holds: Callable[[], bool], timeout_s: float = 8.0) -> None:
    """Wait until a function answers true."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)
