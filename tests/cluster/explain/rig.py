"""An installation without kubelets: webhook, controller, scheduler, extender, simulated nodes.

Some nodes are of the node daemon, one is of the DRA driver; what their daemons would publish, we
publish. The command under test is a process with a kubeconfig, as a person starts it.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_fraction.certs.pod_tls import write_pod_tls
from gpu_fraction.domain import dra, inventory, keys
from tests.builders.cards import card
from tests.cluster.claims.rig import slice_of
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.control_plane import ControlPlane, running_control_plane
from tests.cluster.harness.explaining import explain, explained
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.options import ControlPlaneOptions
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.process import Process
from tests.cluster.harness.quota import Quotas, quotas_installed
from tests.cluster.harness.simulated_nodes import simulated_nodes
from tests.cluster.scheduling.rig import ACCOUNT, extender_of, scheduler_config

ROOT = Path(__file__).parents[3]
CARD_MIB = 16384
RUNS_WITHIN_S = 40
DRA_MIB = 24576

NODES: Mapping[str, tuple[inventory.Card, ...]] = {
    "plain": (card(0, uuid="GPU-plain-0"),),
    "pair": (card(0, uuid="GPU-pair-0"), card(1, uuid="GPU-pair-1")),
    "sick": (card(0, uuid="GPU-sick-0", healthy=False, health_reason="XID 79"),),
    "tainted": (card(0, uuid="GPU-tainted-0"),),
    "cordoned": (card(0, uuid="GPU-cordoned-0"),),
    "silent": (card(0, uuid="GPU-silent-0"),),
    "old": (card(0, uuid="GPU-old-0"),),
}
"""Nodes of the node daemon with their cards."""


@dataclass(frozen=True)
class Rig:
    """The installation.

    Attributes:
        plane: The control plane.
        quotas: Webhook and controller.
        extender: May be killed and started again.
        namespace: Of the test.
    """

    plane: ControlPlane
    quotas: Quotas
    extender: Process
    namespace: str = ""

    @property
    def kubectl(self) -> Kubectl:
        """As administrator in the test's namespace."""
        return self.plane.kubectl.within(self.namespace)

    def explain(self, *words: str) -> tuple[int, dict[str, Any]]:
        """The exit code and the answer of the command."""
        return explain(self.kubectl, *words)

    def explained(self, cause: str, *words: str) -> dict[str, Any]:
        """The answer, once a cause is the first that it names."""
        return explained(self.kubectl, cause, *words)

    def until_running(self, name: str) -> None:
        """Wait for a pod; where it does not run, the command says why."""
        deadline = time.monotonic() + RUNS_WITHIN_S
        while (found := self.explain("pod", name))[0] != 0:
            if time.monotonic() > deadline:
                raise TimeoutError(json.dumps(found[1], indent=1))

    def create(self, name: str, annotations: Mapping[str, str], **spec: Any) -> None:
        """A pod."""
        self.kubectl("create", "-f", "-", stdin=pod(name, annotations, **spec))

    def deploy(self, name: str, annotations: Mapping[str, str], **spec: Any) -> None:
        """A Deployment of one pod."""
        made = pod(name, annotations, **spec)
        labels = {"app": name}
        template = {"metadata": {**made["metadata"], "labels": labels}, "spec": made["spec"]}
        del template["metadata"]["name"]
        manifest = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        }
        self.kubectl("create", "-f", "-", stdin=manifest)


def pod(name: str, annotations: Mapping[str, str], **spec: Any) -> dict[str, Any]:
    """A small pod; ``node`` is the only one that it may go to."""
    node = spec.pop("node", "")
    chosen = {"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": dict(annotations)},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "docker.io/library/busybox:1"}],
            **chosen,
            **spec,
        },
    }


def node_manifest(name: str, cards: tuple[inventory.Card, ...], **spec: Any) -> dict[str, Any]:
    """A node as its daemon leaves it; that of ``silent`` is down."""
    amounts = {"cpu": "64", "memory": "512Gi", "pods": "500"}
    well = sum(one.healthy for one in cards)
    offers = {
        keys.SLOT: str(32 * well),
        keys.CORE_MILLI: str(1000 * well),
        keys.MEMORY_MIB: str(CARD_MIB * well),
    }
    # The kubelet offers none of a device plugin's devices once its stream has ended.
    offers |= {keys.SLOT: "0"} if name == "silent" else {}
    runtime = "containerd://1.7.24" if name == "old" else "containerd://2.4.2"
    text = inventory.render(inventory.Inventory(driver_version="580.65.06", cards=cards))
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name},
            "annotations": {keys.INVENTORY: text} if cards else {},
        },
        "spec": spec,
        "status": {
            "capacity": {**amounts, **(offers if cards else {})},
            "allocatable": {**amounts, **(offers if cards else {})},
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kernelVersion": "",
                "osImage": "",
                "containerRuntimeVersion": runtime,
                "kubeletVersion": "v1.37.2",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
        },
    }


@contextlib.contextmanager
def running_rig(binaries: Binaries, folder: Path) -> Iterator[Rig]:
    """A rig that is gone at the end."""
    tls = folder / "tls"
    tls.mkdir()
    write_pod_tls(tls, datetime.now(UTC))
    port = free_port("127.0.0.1")
    config = scheduler_config(tls, port)
    # One scheduler for both backends: that of ``dra`` is the cluster's own.
    config["profiles"].append({"schedulerName": "default-scheduler"})
    with running_control_plane(binaries, ControlPlaneOptions(scheduler_config=config)) as plane:
        extender = extender_of(plane, tls, port)
        kubelets = simulated_nodes(plane)
        try:
            kubelets.start()
            _create_nodes(plane)
            extender.start()
            extender.wait_healthy(timeout_s=30)
            with quotas_installed(
                plane,
                replicas=1,
                controllers=1,
                webhook_arguments=(
                    *("--namespace-backends", "dra,nvidia"),
                    *(
                        "--system-users",
                        f"system:serviceaccount:{keys.SYSTEM_NAMESPACE}:{ACCOUNT}",
                    ),
                ),
                controller_arguments=("--dra", "labelled"),
                # Two sizes: the MiB of a share are settled when a card is chosen.
                sizes=("--gpu-memory-by-model", f"T4={CARD_MIB},A100=40960"),
            ) as quotas:
                yield Rig(plane, quotas, extender)
        finally:
            extender.kill()
            kubelets.kill()


def _create_nodes(plane: ControlPlane) -> None:
    for name, cards in NODES.items():
        plane.kubectl("create", "-f", "-", stdin=node_manifest(name, cards))
    plane.kubectl("create", "-f", "-", stdin=node_manifest("shared", ()))
    published = slice_of("shared", (DRA_MIB,))
    policy = {"default": "1", "validRange": {"min": "1", "max": "1", "step": "1"}}
    for device in published["spec"]["devices"]:
        device["capacity"][dra.SLOTS] = {"value": "32", "requestPolicy": policy}
    plane.kubectl("create", "-f", "-", stdin=published)
    plane.kubectl("apply", "-f", str(ROOT / "deploy" / "dra" / "device-classes.yaml"))
    plane.kubectl("apply", "-k", str(ROOT / "deploy" / "claims"), "--validate=strict")
    plane.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s")
    plane.kubectl("taint", "node", "tainted", "team=other:NoSchedule")
    plane.kubectl("cordon", "cordoned")
