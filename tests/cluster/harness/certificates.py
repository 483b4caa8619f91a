"""The webhook with certificates of its own making on a cluster, under load."""

import asyncio
import collections
import contextlib
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.cluster.harness.admission import SERVICE, SYSTEM_NAMESPACE, TIMEOUT_S
from tests.cluster.harness.api_client import ApiClient, StatusError
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.process import Process
from tests.cluster.harness.webhooks import loopback_service

_ROOT = Path(__file__).parents[3]
_ADDRESS = "127.0.0.1"
_START_TIMEOUT_S = 60
SECRET_PATH = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/secrets/gpu-fraction-webhook-ca"
LEASE_PATH = (
    f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}"
    "/leases/gpu-fraction-webhook-certificates"
)
PHASE = "gpu-fraction.dev/certificate-phase"
LIFETIMES: Mapping[str, float] = {
    "settle_s": 2.0,
    "retire_s": 2.0,
    "heartbeat_s": 1.0,
    "ca_life_s": 7200.0,
    "leaf_life_s": 3600.0,
}


@dataclass(frozen=True, slots=True)
class SelfManaged:
    """The installation.

    Attributes:
        plane: the cluster.
        serving: processes behind the Service.
        leading: processes that only stand for election; empty where the serving ones do.
        client: an administrator's.
        kill_file: names the Event reason at which the lease holder kills itself.
        port: of the Service.
    """

    plane: ControlPlane
    serving: Mapping[str, Process]
    leading: Mapping[str, Process]
    client: ApiClient
    kill_file: Path
    port: int

    async def secret(self) -> dict[str, Any]:
        """The CA's Secret; empty while there is none."""
        try:
            return await self.client.get(SECRET_PATH)
        except StatusError as error:
            if error.code != 404:
                raise
            return {}

    async def steady(self, other_than: str = "", timeout_s: float = 180) -> str:
        """The CA in PEM, in base64, once the rotation is over and it is another one."""
        return await self.until(
            lambda s: _phase(s) == "Steady" and _ca(s) not in {"", other_than}, timeout_s
        )

    async def until(self, holds: Any, timeout_s: float = 180) -> str:
        """The CA once a condition on the Secret holds."""
        secret: dict[str, Any] = {}
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            secret = await self.secret()
            if holds(secret):
                return _ca(secret)
            await asyncio.sleep(0.05)
        raise TimeoutError(f"in phase {_phase(secret)} after {timeout_s} s")

    async def leaves_served(self, count: int, timeout_s: float = 60) -> None:
        """Wait until each serving process has served so many leaves."""
        deadline = time.monotonic() + timeout_s
        while not all(
            process.log.read_text().count("certs.leaf_served") >= count
            for process in self.serving.values()
        ):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not every replica has served {count} leaves")
            await asyncio.sleep(0.1)

    async def request(self, annotation: str, token: str) -> None:
        """Ask for a rotation, as the command line does."""
        annotations = {f"gpu-fraction.dev/{annotation}": token}
        await self.client.patch(SECRET_PATH, {"metadata": {"annotations": annotations}})

    async def holder(self) -> str:
        """Name of the process that holds the lease."""
        lease = await self.client.get(LEASE_PATH)
        return str(lease["spec"].get("holderIdentity") or "").partition("_")[0]


@dataclass(slots=True)
class Load:
    """Dry-run creates of a pod that asks for half a GPU, at a steady rate.

    Attributes:
        done: creates that passed both webhooks.
        failed: messages of those that did not, with their number.
        seconds: how long it has lasted.
    """

    client: ApiClient
    namespace: str
    rate: float
    done: int = 0
    failed: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: float = 0.0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.asynccontextmanager
    async def at_work(self, workers: int = 24) -> AsyncIterator["Load"]:
        """Create for as long as the context lasts; a create that has begun is finished."""
        started = time.monotonic()
        turns = itertools.count()
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._work(started, turns), name=f"load-{number}")
            try:
                yield self
            finally:
                self._stop.set()
        self.seconds = time.monotonic() - started

    async def _work(self, started: float, turns: "itertools.count[int]") -> None:
        while not self._stop.is_set():
            due = started + next(turns) / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._create()

    async def _create(self) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        try:
            made = await self.client.create(path, POD, dryRun="All")
        except StatusError as error:
            self.failed[error.message[:400]] += 1
            return
        if "gpu-fraction.dev/request" in made["metadata"]["annotations"]:
            self.done += 1
        else:
            self.failed["not mutated"] += 1

    def report(self, what: str) -> str:
        """One line for people."""
        failures = f"; failures: {dict(self.failed)}" if self.failed else ""
        return (
            f"{what}: {self.failed.total()} of {self.done + self.failed.total()} failed,"
            f" {self.done / max(self.seconds, 0.001):.0f} creates/s for {self.seconds:.0f} s"
            f"{failures}"
        )


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "load-", "annotations": {"gpu-fraction": "0.5"}},
    "spec": {"containers": [{"name": "main", "image": "docker.io/library/busybox:1"}]},
}


@contextlib.asynccontextmanager
async def self_managed(
    plane: ControlPlane, *, serving: int = 2, leading: int = 0, **lifetimes: float
) -> AsyncIterator[SelfManaged]:
    """The webhook, installed without certificates and ready by itself; gone afterwards."""
    with _processes(plane, serving, leading, lifetimes) as (processes, front, kill, port):
        names = list(processes)
        async with ApiClient(plane.access) as client:
            installed = SelfManaged(
                plane,
                {name: processes[name] for name in names[:serving]},
                {name: processes[name] for name in names[serving:]},
                client,
                kill,
                port,
            )
            for process in (*processes.values(), front):
                process.start()
            await installed.steady()
            await _called(installed)
            yield installed


@contextlib.contextmanager
def _processes(
    plane: ControlPlane, serving: int, leading: int, lifetimes: Mapping[str, float]
) -> Iterator[tuple[dict[str, Process], Process, Path, int]]:
    plane.kubectl.apply(_namespace(), loopback_service(SERVICE, SYSTEM_NAMESPACE))
    plane.kubectl.apply(*_rbac(leads="controller" if leading else "webhook"))
    accounts = {
        part: str(plane.service_account_kubeconfig(SYSTEM_NAMESPACE, f"gpu-fraction-{part}"))
        for part in ("webhook", "controller")
    }
    kill_file = plane.folder / "kill-at"
    kill_file.unlink(missing_ok=True)
    ports = {f"replica-{i}": free_port(_ADDRESS) for i in range(serving)}
    ports |= {f"holder-{i}": 0 for i in range(leading)}
    processes = {}
    for name, port in ports.items():
        settings = {
            "name": name,
            "port": port,
            "kubeconfig": accounts["webhook" if port else "controller"],
            "lifetimes": {**LIFETIMES, **lifetimes},
            "kill_file": str(kill_file),
            "lead": not (leading and port),
        }
        file = plane.folder / f"{name}.json"
        file.write_text(json.dumps(settings))
        argv: list[str | Path] = [
            sys.executable,
            "-m",
            "tests.cluster.harness.certs_process",
            file,
        ]
        processes[name] = plane.process(f"certs-{name}", argv, PYTHONPATH=str(_ROOT))
        processes[name].log.unlink(missing_ok=True)
    front_port = free_port(_ADDRESS)
    balancer: list[str | Path] = [sys.executable, "-m", "tests.cluster.harness.balancer"]
    balancer += [str(port) for port in (front_port, *(p for p in ports.values() if p))]
    front = plane.process("certs-balancer", balancer, PYTHONPATH=str(_ROOT))
    plane.kubectl.apply(*configurations(front_port))
    try:
        yield processes, front, kill_file, front_port
    finally:
        for process in (front, *processes.values()):
            process.kill()
        for kind in ("mutating", "validating"):
            plane.kubectl("delete", f"{kind}webhookconfiguration", "gpu-fraction")
        system = plane.kubectl.within(SYSTEM_NAMESPACE)
        system("delete", "secret", "gpu-fraction-webhook-ca", "--ignore-not-found")
        system("delete", "lease", "--all")


def _namespace() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}


def _rbac(leads: str) -> list[dict[str, Any]]:
    """The rights that people install; those of the lease holder for whoever leads."""
    found = _manifests("rbac/certificates.yaml")
    for name in ("gpu-fraction-webhook", "gpu-fraction-controller"):
        metadata = {"name": name, "namespace": SYSTEM_NAMESPACE}
        found.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    for manifest in found:
        if manifest["metadata"]["name"].endswith("-lead") and "subjects" in manifest:
            manifest["subjects"][0]["name"] = f"gpu-fraction-{leads}"
    return found


def configurations(port: int) -> list[dict[str, Any]]:
    """What people install: no caBundle in it."""
    found = _manifests("webhook/configurations.yaml")
    for manifest in found:
        for webhook in manifest["webhooks"]:
            assert "caBundle" not in webhook["clientConfig"]
            webhook["clientConfig"]["service"]["port"] = port
            webhook["timeoutSeconds"] = TIMEOUT_S
    return found


def _manifests(path: str) -> list[dict[str, Any]]:
    text = (_ROOT / "deploy" / path).read_text(encoding="utf-8")
    return list(YAML(typ="safe").load_all(text))


async def _called(installed: SelfManaged) -> None:
    """Until creates pass the webhooks."""
    namespace = installed.plane.create_namespace()
    load = Load(installed.client, namespace, rate=10)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while load.done < 3:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the webhooks do not work: {dict(load.failed)}")
        await load._create()  # noqa: SLF001 - same module
        await asyncio.sleep(0.1)


def _phase(secret: Mapping[str, Any]) -> str:
    return str(secret.get("metadata", {}).get("annotations", {}).get(PHASE, ""))


def _ca(secret: Mapping[str, Any]) -> str:
    return str((secret.get("data") or {}).get("ca.crt", ""))
