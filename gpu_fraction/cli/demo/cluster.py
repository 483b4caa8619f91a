"""The demo's cluster: every component of the product, on an API server and nodes in this process.

Real: webhook, controller, certificates, extender, node daemon, and the kubelet's protocols.
Simulated: API server, kube-scheduler, Deployments, kubelets, containers and cards.
"""

import asyncio
import base64
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
import msgspec
from prometheus_client import CollectorRegistry

from gpu_fraction.certs.pod_tls import CLIENT_NAME, write_pod_tls
from gpu_fraction.certs.settings import Installation
from gpu_fraction.cli import controller, scheduler_extender, webhook
from gpu_fraction.domain import keys
from gpu_fraction.domain.patch import DEFAULT_SCHEDULER
from gpu_fraction.kube.access import Access, AccessSource
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.errors import KubeError
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.requests import WriteOptions
from gpu_fraction.kube.resources import (
    GPU_QUOTAS,
    MUTATING_WEBHOOKS,
    NODES,
    PODS,
    VALIDATING_WEBHOOKS,
)
from gpu_fraction.kube.timestamps import utc_now
from gpu_fraction.node_daemon.app import NodeDaemon
from gpu_fraction.node_daemon.settings import NodeDaemonSettings
from gpu_fraction.sandbox.apiserver import ApiServer, Kind
from gpu_fraction.sandbox.controlplane.following import objects
from gpu_fraction.sandbox.controlplane.scheduler import Extender, Scheduler
from gpu_fraction.sandbox.controlplane.workloads import Workloads
from gpu_fraction.sandbox.kubelet.agent import SimulatedNode
from gpu_fraction.scheduler.settings import ExtenderSettings
from gpu_fraction.serving.background import Work, background
from gpu_fraction.settings.declaration import build, options_of
from gpu_fraction.settings.option import load

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")

HOST: Final = "127.0.0.1"
START_S: Final = 60.0
"""Chosen: sixty times what a machine with two idle cores needs."""

CARDS: Final = 2
"""Of each node."""

SETTLE_S: Final = 1.0
"""Chosen: the shortest that is allowed; this API server knows a caBundle at once."""

POLL_S: Final = 0.05

_ADMIN: Final = "admin"
_SCHEDULER: Final = f"system:serviceaccount:{keys.SYSTEM_NAMESPACE}:{keys.SCHEDULER}"
_DAEMON: Final = f"system:serviceaccount:{keys.SYSTEM_NAMESPACE}:gpu-fraction-node-daemon"
_OTHERS: Final = f"system:serviceaccount:{keys.SYSTEM_NAMESPACE}:gpu-fraction"
_KUBELET: Final = "system:node"


_QUOTAS: Final = Kind(
    GPU_QUOTAS,
    ("gpuq",),
    status=True,
    generation=True,
    custom=True,
    columns={
        "Cores": "status.columns.cores",
        "Memory": "status.columns.memory",
        "GPUs": "status.columns.gpus",
    },
)


@dataclass(frozen=True, slots=True)
class DemoCluster:
    """A cluster that runs.

    Attributes:
        server: Its API server.
        client: An administrator's.
        kubeconfig: For kubectl, an administrator's.
        nodes: Its nodes, by name.
    """

    server: ApiServer
    client: Client
    kubeconfig: Path
    nodes: Mapping[str, SimulatedNode]


@asynccontextmanager
async def running(root: Path, *nodes: str) -> AsyncIterator[DemoCluster]:
    """A cluster with these nodes, ready, while the block runs.

    Args:
        root: An empty directory with a short path: sockets lie below it.
        *nodes: Their names.

    Raises:
        TimeoutError: it was not ready in time.
    """
    users = {u: secrets.token_hex(16) for u in (_ADMIN, _SCHEDULER, _DAEMON, _OTHERS, _KUBELET)}
    server = ApiServer(
        kinds=[_QUOTAS],
        tokens={token: user for user, token in users.items()},
    )
    tls, authority = await asyncio.to_thread(_server_tls, root / "api")
    async with server.serve(tls=tls):
        access = {
            user: Access(server.url, authorization=f"Bearer {token}", ca_pem=authority)
            for user, token in users.items()
        }
        made = _Parts(root, server, {user: _fixed(one) for user, one in access.items()})
        async with made.clients() as client, background(*await made.work(nodes)):
            async with asyncio.timeout(START_S):
                await made.ready()
            kubeconfig = root / "kubeconfig"
            content = _kubeconfig(server.url, authority, users[_ADMIN])
            await asyncio.to_thread(kubeconfig.write_bytes, content)
            yield DemoCluster(server, client, kubeconfig, made.nodes)


class _Parts:
    """The parts of the cluster, and what they need of each other."""

    def __init__(self, root: Path, server: ApiServer, access: dict[str, AccessSource]) -> None:
        self._root = root
        self._server = server
        self._access = access
        self._webhook_port, self._extender_port = _free_port(), _free_port()
        self._tls = root / "tls"

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[Client]:
        """The administrator's client, while those of the other parts are connected too."""
        async with (
            connect(self._access[_ADMIN], component="demo") as self._client,
            connect(self._access[_DAEMON], component="node-daemon") as self._daemons,
            connect(self._access[_KUBELET], component="demo-kubelet") as self._kubelets,
        ):
            yield self._client

    async def work(self, nodes: tuple[str, ...]) -> list[Work]:
        """What has to run; the objects that it needs exist."""
        server, root = self._server, self._root
        await asyncio.to_thread(self._tls.mkdir, parents=True)
        await asyncio.to_thread(write_pod_tls, self._tls, utc_now())
        server.add_namespace(keys.SYSTEM_NAMESPACE)
        server.add(*_configurations())
        service = Installation().service
        server.admission.services[keys.SYSTEM_NAMESPACE, service] = (HOST, self._webhook_port)
        self.nodes = {
            name: SimulatedNode(name, root / name, server.storage, self._kubelets, keys.SLOT)
            for name in nodes
        }
        made = self.nodes.values()
        server.add(*(node.manifest() for node in made))
        scheduler = Scheduler(server.storage, self._client, await self._extender())
        workloads = Workloads(server.storage, self._client)
        return [
            self._controller,
            self._webhook,
            self._extending,
            scheduler.run,
            scheduler.events,
            workloads.run,
            workloads.events,
            *(node.run for node in made),
            *map(self._daemon, made),
        ]

    async def _controller(self) -> None:
        settings = _built(
            controller.Settings,
            host=HOST,
            port=0,
            dra="labelled",
            cert_settle=SETTLE_S,
            cert_retire=SETTLE_S,
        )
        shared = _hasty(settings.certificates.shared)
        settings = replace(settings, certificates=replace(settings.certificates, shared=shared))
        await controller.in_cluster(settings, self._access[_OTHERS], *_process())

    async def _webhook(self) -> None:
        settings = _built(
            webhook.Settings,
            host=HOST,
            port=self._webhook_port,
            namespace_backends="dra",
            cert_settle=SETTLE_S,
            cert_retire=SETTLE_S,
            replica_name="demo-webhook",
        )
        shared = _hasty(settings.certificate.shared)
        settings = replace(settings, certificate=replace(settings.certificate, shared=shared))
        await webhook.in_cluster(settings, self._access[_OTHERS], *_process())

    async def _extending(self) -> None:
        settings = _built(
            ExtenderSettings,
            host=HOST,
            port=self._extender_port,
            tls_cert=self._tls / "tls.crt",
            tls_key=self._tls / "tls.key",
            client_ca=self._tls / "ca.crt",
            client_names=CLIENT_NAME,
        )
        await scheduler_extender.in_cluster(settings, self._access[_SCHEDULER], *_process())

    def _daemon(self, node: SimulatedNode) -> Work:
        settings = _built(
            NodeDaemonSettings,
            node_name=node.name,
            kubelet_dir=node.kubelet_dir,
            state_dir=self._root / node.name / "state",
            cdi_dir=node.cdi_dir,
            host_cdi_dirs=node.cdi_dir,
            host=HOST,
            port=0,
            simulated_cards=CARDS,
            poll_interval=0.5,
        )
        registry, stop = _process()
        daemon = NodeDaemon(settings, self._daemons, registry)

        async def run() -> None:
            await daemon.run(stop)

        return run

    async def _extender(self) -> Extender:
        self._trust = await asyncio.to_thread(self._client_tls)
        return Extender(
            f"https://{HOST}:{self._extender_port}",
            self._trust,
            frozenset(keys.NATIVE_RESOURCES),
            frozenset({keys.SCHEDULER, DEFAULT_SCHEDULER}),
        )

    def _client_tls(self) -> ssl.SSLContext:
        trust = ssl.create_default_context(cafile=self._tls / "ca.crt")
        trust.load_cert_chain(self._tls / "client.crt", self._tls / "client.key")
        return trust

    async def ready(self) -> None:
        """Return once a pod with a share could be created, placed and started."""
        while True:
            offered = all(map(_offers, objects(self._server.storage, NODES)))
            if offered and await self._refuses_nonsense() and await self._extender_ready():
                return
            await asyncio.sleep(POLL_S)

    async def _refuses_nonsense(self) -> bool:
        """Whether the webhook answers with a certificate that the API server trusts."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe", "annotations": {keys.FRACTION: "nonsense"}},
            "spec": {"containers": [{"name": "main", "image": "none"}]},
        }
        address = PODS.at(namespace="default")
        try:
            await self._client.create(address, pod, Identity, WriteOptions(dry_run=True))
        except KubeError as e:
            return "denied the request" in str(e)
        return False

    async def _extender_ready(self) -> bool:
        url = f"https://{HOST}:{self._extender_port}/readyz"
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(url, ssl=self._trust) as got,
            ):
                return got.status == 200
        except aiohttp.ClientError:
            return False


def _offers(node: Mapping[str, Any]) -> bool:
    """Whether a node's slots and cores can be given away."""
    allocatable = node["status"]["allocatable"]
    return all(allocatable.get(name, "0") != "0" for name in (keys.SLOT, keys.CORE_MILLI))


def _process() -> tuple[CollectorRegistry, asyncio.Event]:
    """What each component's own process would have."""
    return CollectorRegistry(), asyncio.Event()


def _built(cls: type[D], **flags: Any) -> D:
    return build(cls, load(options_of(cls), flags=flags, environ={}, file={}))


def _hasty(shared: Any) -> Any:
    """Replicas report every second, so that a rotation takes seconds and not minutes."""
    return replace(shared, lifetimes=replace(shared.lifetimes, heartbeat_s=SETTLE_S))


def _fixed(access: Access) -> AccessSource:
    async def find() -> Access:
        return access

    return AccessSource(find)


def _free_port() -> int:
    with socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _configurations() -> list[dict[str, Any]]:
    """The webhooks as deploy/webhook registers them, without the CEL that this server lacks."""

    def hook(name: str, path: str, *rules: tuple[str, list[str]]) -> dict[str, Any]:
        service = {"name": Installation().service, "namespace": keys.SYSTEM_NAMESPACE}
        return {
            "name": f"{name}.{keys.GROUP}",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {**service, "path": path, "port": 443}},
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "sideEffects": "NoneOnDryRun",
            "timeoutSeconds": 5,
            "rules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": [operation],
                    "resources": resources,
                }
                for operation, resources in rules
            ],
        }

    created = ("CREATE", ["pods"])
    changed = ("UPDATE", ["pods", "pods/status", "pods/ephemeralcontainers"])
    bound = ("CREATE", ["pods/binding"])
    hooks = {
        MUTATING_WEBHOOKS: [hook("mutate", "/mutate", created)],
        VALIDATING_WEBHOOKS: [
            hook("validate", "/validate", created),
            hook("changes", "/validate", changed, bound),
        ],
    }
    return [
        {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": "gpu-fraction"},
            "webhooks": listed,
        }
        for resource, listed in hooks.items()
    ]


def _server_tls(folder: Path) -> tuple[ssl.SSLContext, str]:
    """The API server's certificate, and its authority: kubectl sends tokens over TLS alone."""
    folder.mkdir()
    write_pod_tls(folder, utc_now())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context, (folder / "ca.crt").read_text()


def _kubeconfig(server: str, authority: str, token: str) -> bytes:
    name = "gpu-fraction-demo"
    trusted = base64.b64encode(authority.encode()).decode()
    cluster = {"server": server, "certificate-authority-data": trusted}
    return msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
        }
    )
