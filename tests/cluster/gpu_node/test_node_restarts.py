"""What becomes of pods whose containers have not started when kubelet and daemon end.

The kubelet admits every pod anew when it starts. A container that does not run then needs its
token to be there and healthy, or the pod has failed for good: so what counts is who is back first.
"""

from pathlib import Path
from typing import Any

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.assignment import CardShare
from tests.cluster.daemon import CARDS, Daemon, create_all, gpu_pod
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.waiting import wait_for

pytestmark = pytest.mark.long

PODS = 8
REJECTED = "UnexpectedAdmissionError"


@pytest.fixture
def gate(daemon: Daemon, namespace: str) -> Path:
    """A folder; containers behind it start once it has a file ``open``."""
    folder = daemon.node.place.folder / f"gate-{namespace}"
    folder.mkdir()
    return folder


def behind(gate: Path, pod: dict[str, Any]) -> dict[str, Any]:
    """The pod, admitted at once and started when the gate opens."""
    spec = pod["spec"]
    spec["volumes"] = [{"name": "gate", "hostPath": {"path": str(gate)}}]
    spec["initContainers"] = [
        {
            "name": "gate",
            "image": "busybox:1",
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", "until [ -e /gate/open ]; do sleep 0.1; done"],
            "volumeMounts": [{"name": "gate", "mountPath": "/gate"}],
        }
    ]
    return pod


def pods(kubectl: Kubectl) -> list[dict[str, Any]]:
    """The pods of the test's namespace."""
    return list(kubectl.json("get", "pods")["items"])


def wait_admitted(kubectl: Kubectl, number: int) -> None:
    """Wait until so many pods stand before the gate."""

    def standing() -> bool:
        states = [pod["status"].get("initContainerStatuses") for pod in pods(kubectl)]
        return sum("running" in state[0]["state"] for state in states if state) == number

    wait_for(standing)


def gated_pods(daemon: Daemon, kubectl: Kubectl, gate: Path) -> dict[str, CardShare]:
    """Pods that are admitted and do not start yet, and what each of them is to get."""
    shares = {f"waits-{i}": CardShare(daemon.uuids[i % CARDS], 50, 1_000 + i) for i in range(PODS)}
    create_all(kubectl, [behind(gate, gpu_pod(name, (s,))) for name, s in shares.items()])
    wait_admitted(kubectl, PODS)
    return shares


def assert_same_pods_get(
    daemon: Daemon, kubectl: Kubectl, shares: dict[str, CardShare], uids: set[str]
) -> None:
    """Each of the pods that were there becomes Ready with its own slice."""
    kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=150s", timeout_s=180)
    assert {pod["metadata"]["uid"] for pod in pods(kubectl)} == uids
    for name, share in shares.items():
        line = f"{share.uuid} {share.memory_mib} 0.05"
        assert daemon.printed(kubectl.namespace, name) == line
    daemon.wait_allocatable(keys.SLOT, CARDS * 32)


def test_admitted_pods_start_where_the_daemon_is_there_before_the_kubelet(
    daemon: Daemon, kubectl: Kubectl, gate: Path
) -> None:
    """Both are killed; the daemon waits for the kubelet, and no pod is lost."""
    shares = gated_pods(daemon, kubectl, gate)
    uids = {pod["metadata"]["uid"] for pod in pods(kubectl)}
    daemon.process.kill()
    daemon.node.kubelet.kill()
    daemon.process.start()
    daemon.process.wait_until(lambda: daemon.get("/livez")[0] == 200, 60, "alive")
    daemon.node.kubelet.start()
    daemon.wait_ready()
    (gate / "open").touch()
    assert_same_pods_get(daemon, kubectl, shares, uids)


def test_admitted_pods_start_where_the_kubelet_was_away(
    daemon: Daemon, kubectl: Kubectl, gate: Path
) -> None:
    """The daemon lives and meets the next kubelet before that one admits pods.

    The killed kubelet leaves its socket, which refuses the daemon meanwhile.
    """
    shares = gated_pods(daemon, kubectl, gate)
    uids = {pod["metadata"]["uid"] for pod in pods(kubectl)}
    daemon.node.kubelet.kill()

    def tries() -> int:
        return sum(line["event"] == "registration_failed" for line in daemon.log)

    before = tries()
    daemon.process.wait_until(lambda: tries() - before >= 7, 60, "refused seven times")
    daemon.node.kubelet.start()
    daemon.node.wait_ready()
    daemon.wait_ready()
    (gate / "open").touch()
    assert_same_pods_get(daemon, kubectl, shares, uids)


def test_admitted_pods_fail_and_are_made_anew_where_the_daemon_is_late(
    daemon: Daemon, kubectl: Kubectl, gate: Path
) -> None:
    """The kubelet rejects them for good; their Deployment's next pods get slices, others none.

    A container that runs goes on.
    """
    runs = CardShare(daemon.uuids[0], 50, 1_000)
    kubectl.apply(gpu_pod("runs", (runs,)))
    kubectl("wait", "pod/runs", "--for=condition=Ready", "--timeout=150s")
    container = kubectl.json("get", "pod", "runs")["status"]["containerStatuses"][0]
    bare = behind(gate, gpu_pod("bare", None, core_milli=50))
    pod = behind(gate, gpu_pod("owned", None, core_milli=50))
    labels = {"app": "owned"}
    template = {"metadata": {"labels": labels}, "spec": pod["spec"]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "owned"},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": template},
    }
    kubectl.apply(bare, deployment)
    wait_admitted(kubectl, 4)
    admitted = {p["metadata"]["uid"] for p in pods(kubectl)} - {_uid(kubectl, "runs")}
    daemon.process.kill()
    daemon.node.kubelet.kill()
    daemon.node.kubelet.start()

    def rejected() -> bool:
        failed = {
            p["metadata"]["uid"] for p in pods(kubectl) if p["status"].get("reason") == REJECTED
        }
        return admitted <= failed

    wait_for(rejected)
    daemon.process.start()
    daemon.wait_ready()
    (gate / "open").touch()
    kubectl("rollout", "status", "deployment/owned", "--timeout=150s", timeout_s=180)
    ready = [p for p in pods(kubectl) if p["status"]["phase"] == "Running"]
    names = {p["metadata"]["name"] for p in ready}
    assert len(names) == 4
    assert "runs" in names
    for name in names - {"runs"}:
        uuid, limit, part = daemon.printed(kubectl.namespace, name).split()
        assert uuid in daemon.uuids
        assert (limit, part) == ("1000", "0.05")
    status = kubectl.json("get", "pod", "bare")["status"]
    assert (status["phase"], status["reason"]) == ("Failed", REJECTED)
    after = kubectl.json("get", "pod", "runs")["status"]["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (container["containerID"], 0)
    daemon.wait_allocatable(keys.SLOT, CARDS * 32)
    daemon.process.wait_until(lambda: len(daemon.slice_files()) == 4, 120, "other slices back")


def _uid(kubectl: Kubectl, name: str) -> str:
    return str(kubectl.json("get", "pod", name)["metadata"]["uid"])
