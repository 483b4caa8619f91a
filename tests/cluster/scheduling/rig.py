"""A real kube-scheduler with our extender, over nodes that kwok simulates.

The scheduler's configuration and the roles are those of ``deploy/``; only paths and ports
are the tests' own. Nodes have an inventory and resources; pods bound to them are Running, but
no container is.
"""

import asyncio
import contextlib
import json
import os
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from ruamel.yaml import YAML

from gpu_fraction.certs.pod_tls import CLIENT_NAME, write_pod_tls
from gpu_fraction.domain import inventory, keys
from gpu_fraction.domain.placement import Ask
from tests.builders import pods
from tests.cluster.harness.api_client import ApiClient, StatusError
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.control_plane import ControlPlane, running_control_plane
from tests.cluster.harness.options import ControlPlaneOptions
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.process import Process
from tests.cluster.harness.simulated_nodes import simulated_nodes

T = TypeVar("T")

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
NODES, CARDS, CARD_MIB = 50, 8, 81559
MODEL = "NVIDIA H100 80GB HBM3"
ACCOUNT = "extender-alone"
"""An account with the extender's role alone: in its pod it has the scheduler's as well, and would
not notice if its own were too small."""
IN_FLIGHT = 40
"""Requests at once where tests create many objects."""


@dataclass(frozen=True)
class Rig:
    """Control plane, scheduler, extender and nodes.

    Attributes:
        plane: the control plane; its scheduler is the one under test.
        extender: may be killed and started again.
        kubelets: one program in the place of all kubelets.
        nodes: names of the nodes.
        namespace: of the test's pods.
    """

    plane: ControlPlane
    extender: Process
    kubelets: Process
    nodes: tuple[str, ...]
    namespace: str = ""

    @property
    def pods_path(self) -> str:
        """Of the test's pods."""
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def restart_extender(self) -> None:
        """Start the extender and wait until it has loaded everything."""
        self.extender.start()
        self.extender.wait_healthy(timeout_s=30)

    async def create_pods(self, manifests: list[dict[str, Any]]) -> None:
        """Create many pods, in order but several at once."""
        async with ApiClient(self.plane.access) as client:
            await in_turns(manifests, lambda m: client.create(self.pods_path, m))

    async def nudge(self) -> None:
        """Change something in the cluster, as happens all the time in a real one."""
        async with ApiClient(self.plane.access) as client:
            label = {"nudged": str(time.monotonic_ns())}
            await client.patch(f"/api/v1/nodes/{self.nodes[0]}", {"metadata": {"labels": label}})

    async def set_model(self, node: str, model: str) -> None:
        """Make all cards of a node ones of that model, as its inventory tells."""
        async with ApiClient(self.plane.access) as client:
            text = pods.inventory_of(cards_of(node, model))
            metadata = {"annotations": {keys.INVENTORY: text}}
            await client.patch(f"/api/v1/nodes/{node}", {"metadata": metadata})

    async def metrics(self) -> dict[str, float]:
        """The extender's own figures, by name with labels."""
        trust = ssl.create_default_context(cafile=self.extender.authority)
        url = self.extender.health_url.replace("/readyz", "/metrics")
        async with aiohttp.ClientSession() as session, session.get(url, ssl=trust) as answer:
            lines = (await answer.text()).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name.removeprefix("gpu_fraction_scheduler_"): float(v) for name, v in pairs}

    async def delete_pods(self, names: Iterable[str] | None = None) -> None:
        """Delete pods, without names the whole namespace's, and wait until they are gone."""
        going = list(await self.pods() if names is None else names)
        async with ApiClient(self.plane.access) as client:

            async def delete(name: str) -> None:
                with contextlib.suppress(StatusError):  # a victim may have gone meanwhile
                    await client.delete(f"{self.pods_path}/{name}")

            await in_turns(going, delete)
        await self.until(lambda found: found.keys().isdisjoint(going), timeout_s=240)

    async def pods(self) -> dict[str, dict[str, Any]]:
        """The namespace's pods by name."""
        async with ApiClient(self.plane.access) as client:
            listed = await client.get(self.pods_path)
        return {item["metadata"]["name"]: item for item in listed["items"]}

    async def until(
        self, condition: Callable[[dict[str, dict[str, Any]]], bool], timeout_s: float = 60
    ) -> dict[str, dict[str, Any]]:
        """Wait until the namespace's pods meet a condition; answer them."""
        found: dict[str, dict[str, Any]] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while not condition(found := await self.pods()):
                    await asyncio.sleep(0.2)
        except TimeoutError:
            bound = sum("nodeName" in pod["spec"] for pod in found.values())
            raise TimeoutError(
                f"{bound} of {len(found)} pods bound; {self.extender.tail()}"
            ) from None
        return found

    async def until_running(self, timeout_s: float) -> None:
        """Wait until all the namespace's pods run, none as well; one that does not is read."""
        query = {"limit": "1", "fieldSelector": "status.phase!=Running"}
        async with asyncio.timeout(timeout_s), ApiClient(self.plane.access) as client:
            while (await client.get(self.pods_path, **query))["items"]:
                await asyncio.sleep(1)

    async def events(self, pod: str, reason: str) -> list[str]:
        """Messages of a pod's events."""
        path = f"/api/v1/namespaces/{self.namespace}/events"
        async with ApiClient(self.plane.access) as client:
            listed = await client.get(path, fieldSelector=f"involvedObject.name={pod}")
        return [item["message"] for item in listed["items"] if item["reason"] == reason]


async def in_turns(items: list[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Do the work for each item, in order, at most ``IN_FLIGHT`` at once."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(item: T) -> None:
        try:
            await work(item)
        finally:
            slots.release()

    async with asyncio.TaskGroup() as tasks:
        for item in items:
            await slots.acquire()
            tasks.create_task(one(item))


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pod_manifest(
    name: str, *asks: Ask, priority_class: str = "", node: str = ""
) -> dict[str, Any]:
    """A pod as the webhook would leave it.

    Args:
        name: its name.
        asks: one for each container.
        priority_class: its priority class, if any.
        node: the only node it may go to, if any.
    """
    manifest = pods.asking_manifest(name, *asks)
    del manifest["status"], manifest["spec"]["priority"]
    for field in ("uid", "resourceVersion", "namespace"):
        del manifest["metadata"][field]
    for container in manifest["spec"]["containers"]:
        amounts = container["resources"]["requests"]
        if asks and keys.MEMORY_MIB not in amounts:
            # Settled at admission: all cards of this cluster have one size.
            ask = next(ask for ask in asks if ask.container == container["name"])
            share = CARD_MIB * (ask.memory_milli or 0) // 1000
            amounts[keys.MEMORY_MIB] = str(share * ask.cards)
        if asks and keys.CORE_MILLI not in amounts:
            raise ValueError("tests ask for compute as well")
    manifest["spec"] |= {
        "schedulerName": keys.SCHEDULER,
        **({"priorityClassName": priority_class} if priority_class else {}),
        **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
    }
    return manifest


def cards_of(node: str, model: str = MODEL) -> list[inventory.Card]:
    """Two groups of four cards, each fully linked and on a NUMA node of its own."""
    uuids = [f"GPU-{node}-{at}" for at in range(CARDS)]
    return [
        inventory.Card(
            uuid=uuid,
            index=at,
            model=model,
            memory_mib=CARD_MIB,
            numa=at // 4,
            links={
                other: 1800
                for number, other in enumerate(uuids)
                if other != uuid and number // 4 == at // 4
            },
        )
        for at, uuid in enumerate(uuids)
    ]


def node_manifest(name: str) -> dict[str, Any]:
    """A node with its inventory."""
    amounts = {
        "cpu": "64",
        "memory": "512Gi",
        "pods": "500",
        keys.SLOT: str(32 * CARDS),
        keys.CORE_MILLI: str(1000 * CARDS),
        keys.MEMORY_MIB: str(CARD_MIB * CARDS),
    }
    return {
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name},
            "annotations": {keys.INVENTORY: pods.inventory_of(cards_of(name))},
        },
        "status": {"capacity": amounts, "allocatable": amounts},
    }


def scheduler_config(tls: Path, port: int) -> dict[str, Any]:
    """The configuration of ``deploy/`` with the tests' paths and port."""
    text = YAML(typ="safe").load(DEPLOY / "scheduler" / "config.yaml")["data"]["config.yaml"]
    text = text.replace(":9444", f":{port}").replace("/tls/", f"{tls}/")
    config = YAML(typ="safe").load(text)
    # The harness sets these: one scheduler, its own kubeconfig, no limit of requests.
    for field in ("apiVersion", "kind", "leaderElection", "clientConnection"):
        del config[field]
    return dict(json.loads(json.dumps(config)))


@contextlib.contextmanager
def running_rig(
    binaries: Binaries,
    folder: Path,
    *,
    nodes: int = NODES,
    extender: bool = True,
    client_qps: int = 1000,
) -> Iterator[Rig]:
    """A rig that is gone at the end.

    Args:
        binaries: the programs.
        folder: for certificates.
        nodes: how many.
        extender: False leaves the scheduler alone, to compare with.
        client_qps: requests a second of scheduler and controllers, each.
    """
    tls = folder / "tls"
    tls.mkdir()
    write_pod_tls(tls, datetime.now(UTC))
    port = free_port("127.0.0.1")
    config = scheduler_config(tls, port)
    if not extender:
        del config["extenders"]
    options = ControlPlaneOptions(scheduler_config=config, client_qps=client_qps)
    with running_control_plane(binaries, options) as plane:
        process = extender_of(plane, tls, port)
        kubelets = simulated_nodes(plane)
        rig = Rig(plane, process, kubelets, tuple(f"gpu-{at:02}" for at in range(nodes)))
        try:
            kubelets.start()
            asyncio.run(_create_nodes(rig))
            if extender:
                rig.restart_extender()
            yield rig
        finally:
            process.kill()
            kubelets.kill()


def extender_of(plane: ControlPlane, tls: Path, port: int) -> Process:
    """The extender under the role of ``deploy/``, not started."""
    kubectl = plane.kubectl
    name = keys.SYSTEM_NAMESPACE
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    kubectl("apply", "-f", str(DEPLOY / "scheduler" / "rbac.yaml"))
    kubectl("apply", "-f", str(DEPLOY / "crd" / "gpuquotas.yaml"))
    kubectl("wait", "--for=condition=Established", "crd/gpuquotas.gpu-fraction.dev")
    kubectl("create", "serviceaccount", ACCOUNT, "-n", keys.SYSTEM_NAMESPACE)
    kubectl(
        "create",
        "clusterrolebinding",
        ACCOUNT,
        "--clusterrole=gpu-fraction-scheduler-extender",
        f"--serviceaccount={keys.SYSTEM_NAMESPACE}:{ACCOUNT}",
    )
    kubeconfig = plane.service_account_kubeconfig(keys.SYSTEM_NAMESPACE, ACCOUNT)
    argv: list[str | Path] = [sys.executable, "-m", "gpu_fraction.cli.main", "scheduler-extender"]
    argv += [f"--kubeconfig={kubeconfig}", "--host=127.0.0.1", f"--port={port}"]
    argv += [f"--tls-cert={tls}/tls.crt", f"--tls-key={tls}/tls.key"]
    argv += [f"--client-ca={tls}/ca.crt", f"--client-names={CLIENT_NAME}"]
    process = plane.process("extender", argv, PYTHONPATH=str(ROOT), OPENBLAS_NUM_THREADS="1")
    return replace(
        process, health_url=f"https://127.0.0.1:{port}/readyz", authority=tls / "ca.crt"
    )


async def _create_nodes(rig: Rig) -> None:
    async with ApiClient(rig.plane.access) as client:
        nodes, path = list(rig.nodes), "/api/v1/nodes"
        await in_turns(nodes, lambda name: client.create(path, node_manifest(name)))

        # Admission taints every new node until a controller sees that it is ready.
        def usable(node: Mapping[str, Any]) -> bool:
            return "taints" not in node["spec"]

        await in_turns(nodes, lambda name: client.wait_for(f"{path}/{name}", usable))


Pods = Mapping[str, dict[str, Any]]


def bound(pod: Mapping[str, Any]) -> bool:
    """Whether a node was chosen."""
    return "nodeName" in pod["spec"]


def all_bound(count: int) -> Callable[[Pods], bool]:
    """A condition: so many pods are bound."""
    return lambda found: sum(map(bound, found.values())) >= count
