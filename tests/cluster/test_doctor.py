"""``gpu-fraction doctor`` on a real control plane: an installation that is well, and faults in it.

Webhook and controller run as processes; kwok simulates the nodes and the pods of the manifests.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.builders.cards import card
from tests.builders.installation import native_node
from tests.cluster.harness.admission import SERVICE, SYSTEM_NAMESPACE
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.control_plane import ControlPlane, running_control_plane
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.process import Process
from tests.cluster.harness.simulated_nodes import PROGRAMS, simulated_nodes
from tests.cluster.harness.webhooks import loopback_service

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PARTS = ("crd", "rbac", "webhook", "controller", "scheduler", "node-daemon")
QUICK = ("--cert-settle", "1", "--cert-retire", "1")
NODES = ("n1", "n2")


@dataclass(frozen=True)
class Installation:
    """The product on a control plane of its own."""

    plane: ControlPlane
    webhook: Process
    controller: Process

    def doctor(self, *words: str, kubeconfig: Path | None = None) -> tuple[int, str]:
        """Exit code and output of the command."""
        found = kubeconfig or self.plane.kubectl.kubeconfig
        done = subprocess.run(
            [sys.executable, "-m", "gpu_fraction.cli.main", "doctor", *words]
            + ["--kubeconfig", str(found)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode in {0, 1}, done.stderr
        return done.returncode, done.stdout

    def found(self) -> dict[str, str]:
        """What each check that is not ok found first."""
        shown = json.loads(self.doctor("-o", "json")[1])
        return {
            one["name"]: one["findings"][0]["seen"] if one["findings"] else one["skipped"]
            for one in shown["checks"]
            if one["level"] != "ok"
        }


def rendered(kubectl: Kubectl, *folders: str) -> list[dict[str, Any]]:
    """The objects of these folders, with an image for the scheduler."""
    objects: list[dict[str, Any]] = []
    for folder in folders:
        text = kubectl("kustomize", str(DEPLOY / folder))
        text = text.replace("your-clusters-version", "v1.37.2")
        listed = kubectl("create", "--dry-run=client", "-o", "json", "-f", "-", stdin=text)
        decoder, at = json.JSONDecoder(), 0
        while at < len(listed.rstrip()):
            one, at = decoder.raw_decode(listed, at)
            objects += one["items"] if one["kind"] == "List" else [one]
            at += 1
    return objects


@pytest.fixture(scope="module")
def installation(existing: Cluster | None, binaries: Binaries) -> Iterator[Installation]:
    """All manifests applied, all pods ready, the webhook trusted."""
    if existing is not None or not set(PROGRAMS) <= binaries.paths.keys():
        pytest.skip("needs a control plane and kwok of its own")
    with running_control_plane(binaries) as plane:
        kubectl = plane.kubectl
        kubectl.run("create", "namespace", SYSTEM_NAMESPACE)
        port = free_port("127.0.0.1")
        objects = [one for one in rendered(kubectl, *PARTS) if one["kind"] != "Service"]
        for one in objects:
            for hook in one.get("webhooks", ()):
                hook["clientConfig"]["service"]["port"] = port
        kubectl.apply(loopback_service(SERVICE, SYSTEM_NAMESPACE), *objects)
        kubelets = simulated_nodes(plane)
        kubelets.start()
        for at, name in enumerate(NODES):
            kubectl("create", "-f", "-", stdin=node(name, at))

        def started(part: str, *words: str) -> Process:
            account = plane.service_account_kubeconfig(SYSTEM_NAMESPACE, f"gpu-fraction-{part}")
            argv = [sys.executable, "-m", "gpu_fraction.cli.main", part, "--host", "127.0.0.1"]
            argv += ["--kubeconfig", str(account), *words, *QUICK]
            made = plane.process(f"doctor-{part}", [*argv], PYTHONPATH=str(ROOT))
            made.start()
            return made

        controller = started("controller", "--port", "0", "--lease-duration", "3")
        webhook = started("webhook", "--port", str(port), "--replica-name", "webhook-0")
        yield Installation(plane, webhook, controller)
        for process in (webhook, controller, kubelets):
            process.kill()


def node(name: str, at: int) -> dict[str, Any]:
    """A node with one card and room for pods."""
    made = native_node(name, card(0, uuid=f"GPU-{at}"))
    room = {"cpu": "64", "memory": "64Gi", "pods": "110"}
    made["status"]["allocatable"] |= room
    made["status"]["capacity"] = dict(made["status"]["allocatable"])
    del made["metadata"]["creationTimestamp"]
    del made["status"]["conditions"]
    return made


def waited_for_and_green(installation: Installation) -> None:
    """``--wait`` ends once the API server trusts the webhook; every check is made, none finds."""
    assert installation.doctor("--wait=90")[0] == 0
    # No container runs in simulated pods, so nothing answers behind the proxy.
    assert installation.found() == {}
    kubectl = installation.plane.kubectl.within("default")
    assert "gpu-fraction-doctor" not in kubectl("get", "pods", "-o", "name")


def patch(kind: str, name: str, change: object, *words: str) -> tuple[str, ...]:
    """A command that changes an object."""
    return ("patch", kind, name, *words, "-p", json.dumps(change))


def amounts(name: str, value: str | None) -> dict[str, object]:
    """A node that offers so much of it."""
    return {"status": {field: {name: value} for field in ("allocatable", "capacity")}}


def image(version: str) -> tuple[str, ...]:
    """A scheduler of that version."""
    named = f"kube-scheduler=registry.test/kube-scheduler:{version}"
    return ("-n", SYSTEM_NAMESPACE, "set", "image", "deployment/gpu-fraction-scheduler", named)


ENFORCE = "pod-security.kubernetes.io/enforce"
ACCELERATOR = "cloud.google.com/gke-accelerator"
BINDING = ("clusterrolebinding", "gpu-fraction-webhook")
TIMEOUT = [{"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 25}]
FAULTS: list[tuple[str, str, tuple[str, ...]]] = [
    ("taints", "dedicated=ml", ("taint", "node", "n1", "dedicated=ml:NoSchedule")),
    (
        "unlabelled-nodes",
        f"Node n2: label {ACCELERATOR}=t4",
        ("label", "node", "n2", f"{ACCELERATOR}=t4", "nvidia.com/gpu.present-"),
    ),
    (
        "pod-security",
        "enforce=baseline",
        ("label", "--overwrite", "namespace", SYSTEM_NAMESPACE, f"{ENFORCE}=baseline"),
    ),
    (
        "rights",
        "gpu-fraction-system/gpu-fraction-webhook may not",
        ("delete", *BINDING),
    ),
    ("scheduler-version", "kube-scheduler 1.34, API server 1.37", image("v1.34.0")),
    (
        "webhook-as-shipped",
        "timeoutSeconds is 25 (managedFields: kubectl-patch)",
        patch("mutatingwebhookconfiguration", "gpu-fraction", TIMEOUT, "--type=json"),
    ),
    (
        "second-device-plugin",
        "nvidia.com/gpu=1",
        patch(
            "node", "n1", amounts("nvidia.com/gpu", "1"), "--subresource=status", "--type=merge"
        ),
    ),
]


def faults_are_found(installation: Installation) -> None:
    """Each by the check that is about it, with what was seen; all of them stand side by side."""
    for _, _, fault in FAULTS:
        installation.plane.kubectl(*fault)
    found = installation.found()
    for check, seen, _ in FAULTS:
        assert seen in found.get(check, ""), found


def few_rights_are_named(installation: Installation) -> None:
    """Nothing is claimed about what was not read."""
    account = installation.plane.service_account_kubeconfig(
        SYSTEM_NAMESPACE, "gpu-fraction-node-daemon"
    )
    code, text = installation.doctor(kubeconfig=account)
    assert code == 0, text
    assert "SKIPPED leases: not permitted: list leases.coordination.k8s.io in namespace" in text
    assert "SKIPPED rights: not permitted: create subjectaccessreviews" in text
    assert "SKIPPED webhook-call: not permitted: create pods in namespace default" in text


def calls_that_fail_are_told_apart(installation: Installation) -> None:
    """The API server's own words lead to the section."""
    kubectl = installation.plane.kubectl
    installation.controller.kill()
    other = installation.plane.authority.bundle
    change = [{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": other}]
    name = ("mutatingwebhookconfiguration", "gpu-fraction", "--type=json")
    kubectl("patch", *name, "-p", json.dumps(change))
    installation.webhook.wait_until(
        lambda: "x509" in installation.found().get("webhook-call", ""), 30, "not trusted"
    )
    assert "which is not in every caBundle" in installation.found()["ca-bundle"]
    installation.webhook.restart()
    installation.webhook.kill()
    code, text = installation.doctor()
    assert code == 1
    assert "docs/operations.md#failed-calling-webhook-connection-refused" in text


def test_an_installation_from_its_start_to_its_end(installation: Installation) -> None:
    """One story, because each part leaves the cluster as the next one needs it."""
    waited_for_and_green(installation)
    few_rights_are_named(installation)
    faults_are_found(installation)
    calls_that_fail_are_told_apart(installation)
