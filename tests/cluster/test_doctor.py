"""``gpu-fraction doctor`` on a real control plane: an installation that is well, and faults in it.

Webhook and controller run as processes; the pods of the manifests are simulated by kwok, and so are
the nodes.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
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
PARTS = ("controller", "scheduler", "node-daemon")
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
        kubectl.apply(*rendered(kubectl, "crd", "rbac"))
        kubectl.apply(loopback_service(SERVICE, SYSTEM_NAMESPACE))
        webhook_parts = rendered(kubectl, "webhook")
        for one in webhook_parts:
            for hook in one.get("webhooks", ()):
                hook["clientConfig"]["service"]["port"] = port
        kubectl.apply(*(one for one in webhook_parts if one["kind"] != "Service"))
        kubectl.apply(*rendered(kubectl, *PARTS))
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


@pytest.fixture
def planted(installation: Installation) -> Iterator[Callable[[str, str], None]]:
    """Makes a fault by kubectl; the second command repairs it after the test."""
    repairs: list[str] = []

    def plant(command: str, repair: str) -> None:
        repairs.append(repair)
        installation.plane.kubectl(*command.split())

    yield plant
    for repair in reversed(repairs):
        installation.plane.kubectl(*repair.split())


def test_an_installation_is_waited_for_and_then_green(installation: Installation) -> None:
    """``--wait`` ends once the API server trusts the webhook; every check is made, none finds."""
    assert installation.doctor("--wait=90")[0] == 0
    # No container runs in simulated pods, so nothing answers behind the proxy.
    assert installation.found() == {}
    kubectl = installation.plane.kubectl.within("default")
    assert "gpu-fraction-doctor" not in kubectl("get", "pods", "-o", "name")


SYSTEM = f"-n {SYSTEM_NAMESPACE}"
BINDING = "clusterrolebinding gpu-fraction-webhook"
FAULTS = [
    ("taints", "dedicated=ml", "taint node n1 dedicated=ml:NoSchedule", "taint node n1 dedicated-"),
    (
        "unlabelled-nodes",
        "Node n2: label cloud.google.com/gke-accelerator=t4",
        "label node n2 cloud.google.com/gke-accelerator=t4 nvidia.com/gpu.present-",
        "label node n2 cloud.google.com/gke-accelerator- nvidia.com/gpu.present=true",
    ),
    (
        "pod-security",
        "enforce=baseline",
        f"label namespace {SYSTEM_NAMESPACE} pod-security.kubernetes.io/enforce=baseline",
        f"label namespace {SYSTEM_NAMESPACE} pod-security.kubernetes.io/enforce-",
    ),
    (
        "rights",
        "gpu-fraction-system/gpu-fraction-webhook may not",
        f"delete {BINDING}",
        f"create {BINDING} --clusterrole=gpu-fraction-webhook "
        f"--serviceaccount={SYSTEM_NAMESPACE}:gpu-fraction-webhook",
    ),
    (
        "scheduler-version",
        "kube-scheduler 1.34, API server 1.37",
        f"{SYSTEM} set image deployment/gpu-fraction-scheduler kube-scheduler=k/kube-scheduler:v1.34.0",
        f"{SYSTEM} set image deployment/gpu-fraction-scheduler kube-scheduler=k/kube-scheduler:v1.37.2",
    ),
    (
        "webhook-as-shipped",
        "timeoutSeconds is 25 (managedFields: kubectl-patch)",
        'patch mutatingwebhookconfiguration gpu-fraction --type=json -p=[{"op":"replace",'
        '"path":"/webhooks/0/timeoutSeconds","value":25}]',
        'patch mutatingwebhookconfiguration gpu-fraction --type=json -p=[{"op":"replace",'
        '"path":"/webhooks/0/timeoutSeconds","value":5}]',
    ),
    (
        "second-device-plugin",
        "nvidia.com/gpu=1",
        'patch node n1 --subresource=status --type=merge -p={"status":{"allocatable":'
        '{"nvidia.com/gpu":"1"},"capacity":{"nvidia.com/gpu":"1"}}}',
        'patch node n1 --subresource=status --type=merge -p={"status":{"allocatable":'
        '{"nvidia.com/gpu":null},"capacity":{"nvidia.com/gpu":null}}}',
    ),
]


@pytest.mark.parametrize(("check", "seen", "fault", "repair"), FAULTS, ids=lambda x: x[:20])
def test_a_fault_is_found(
    installation: Installation,
    planted: Callable[[str, str], None],
    check: str,
    seen: str,
    fault: str,
    repair: str,
) -> None:
    """By the check that is about it, with what was seen."""
    planted(fault, repair)
    found = installation.found()
    assert seen in found.get(check, ""), found


def test_a_caller_with_few_rights_learns_which_are_missing(installation: Installation) -> None:
    """Nothing is claimed about what was not read."""
    account = installation.plane.service_account_kubeconfig(
        SYSTEM_NAMESPACE, "gpu-fraction-node-daemon"
    )
    code, text = installation.doctor(kubeconfig=account)
    assert code == 0, text
    assert "SKIPPED leases: not permitted: list leases.coordination.k8s.io in namespace" in text
    assert "SKIPPED rights: not permitted: create subjectaccessreviews" in text
    assert "SKIPPED webhook-call: not permitted: create pods in namespace default" in text


def test_a_webhook_that_is_not_trusted_or_not_there(installation: Installation) -> None:
    """The API server's own words lead to the section; last, because nothing repairs it."""
    kubectl = installation.plane.kubectl
    installation.controller.kill()
    other = installation.plane.authority.bundle
    change = [{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": other}]
    name = ("mutatingwebhookconfiguration", "gpu-fraction", "--type=json")
    kubectl("patch", *name, "-p", json.dumps(change))
    installation.webhook.wait_until(
        lambda: "x509" in installation.found().get("webhook-call", ""), 30, "not trusted"
    )
    assert "caBundles of our webhooks differ" in installation.found()["ca-bundle"]
    installation.webhook.restart()
    installation.webhook.kill()
    code, text = installation.doctor()
    assert code == 1
    assert "docs/operations.md#failed-calling-webhook-connection-refused" in text
