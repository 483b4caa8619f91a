from typing import Any

import pytest

from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.node import Node


def _pod(name: str, script: str, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "busybox:1",
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **spec},
    }


@pytest.mark.usefixtures("node")
def test_pod_runs_and_answers(kubectl: Kubectl) -> None:
    """A pod is scheduled and started; its log and a command in it answer."""
    kubectl.apply(_pod("hello", "echo hello; sleep 1000"))
    kubectl("wait", "pod/hello", "--for=condition=Ready", "--timeout=150s")
    assert kubectl("logs", "hello") == "hello\n"
    assert kubectl("exec", "hello", "--", "sh", "-c", "echo $((6 * 7))") == "42\n"
    assert kubectl.json("get", "pod", "hello")["status"]["podIP"].startswith("198.1")


@pytest.mark.usefixtures("node")
def test_pod_ends_and_tells_its_status(kubectl: Kubectl) -> None:
    """A container's exit status reaches the pod's status."""
    kubectl.apply(_pod("failing", "exit 3", restartPolicy="Never"))
    path = "{.status.containerStatuses[0].state.terminated.exitCode}"
    kubectl("wait", "pod/failing", f"--for=jsonpath={path}=3", "--timeout=150s")


def test_pod_survives_a_killed_kubelet(node: Node, kubectl: Kubectl) -> None:
    """The kubelet and its device plugin socket come back; the container went on all the time."""
    kubectl.apply(_pod("lasting", "sleep 1000"))
    kubectl("wait", "pod/lasting", "--for=condition=Ready", "--timeout=150s")
    before = kubectl.json("get", "pod", "lasting")["status"]["containerStatuses"][0]
    node.kubelet.kill()
    (node.device_plugin_dir / "kubelet.sock").unlink()
    node.kubelet.start()
    node.wait_ready()
    socket = node.device_plugin_dir / "kubelet.sock"
    node.kubelet.wait_until(socket.is_socket, 90, "listening for device plugins")
    assert node.pod_resources_socket.is_socket()
    kubectl("wait", "pod/lasting", "--for=condition=Ready", "--timeout=150s")
    after = kubectl.json("get", "pod", "lasting")["status"]["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)


def test_container_runtime_can_be_killed(node: Node, kubectl: Kubectl) -> None:
    """After containerd was killed and started, new pods run."""
    node.containerd.kill()
    node.containerd.start()
    kubectl.apply(_pod("later", "sleep 1000"))
    kubectl("wait", "pod/later", "--for=condition=Ready", "--timeout=150s")
