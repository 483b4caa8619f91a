"""What the command ``explain`` says of pods on a real node: kubelet, runtime and daemon."""

import pytest

from gpu_fraction.domain.assignment import CardShare
from tests.cluster.daemon import Daemon, gpu_pod
from tests.cluster.harness.explaining import explain, explained
from tests.cluster.harness.kubectl import Kubectl

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_share_stays")]


def test_a_pod_that_runs(daemon: Daemon, kubectl: Kubectl) -> None:
    """All steps but the last are done."""
    kubectl.apply(gpu_pod("runs", (CardShare(daemon.uuids[0], 100, 1_000),)))
    kubectl("wait", "pod/runs", "--for=condition=Ready", "--timeout=150s", timeout_s=180)
    code, answer = explain(kubectl, "pod", "runs")
    assert code == 0, answer
    assert [step["state"] for step in answer["steps"]] == ["done"] * 8 + ["waiting"]
    assert daemon.uuids[0] in answer["verdict"]


def test_an_image_that_is_missing(daemon: Daemon, kubectl: Kubectl) -> None:
    """Not ours, and the answer says so."""
    pod = gpu_pod("pulls", (CardShare(daemon.uuids[0], 100, 1_000),))
    pod["spec"]["containers"][0]["image"] = "docker.io/library/nothing:1"
    kubectl.apply(pod)
    found = explained(kubectl, "image-missing", "pod", "pulls")
    assert "nothing:1" in found["says"] + found["evidence"][0]["text"]
    assert (found["code"], found["step"]) == (1, 8)


def test_the_daemon_does_not_hand_the_slice_out(kubectl: Kubectl) -> None:
    """Its event on the pod has the reason and the numbers."""
    unknown = CardShare("GPU-00000000-0000-0000-0000-000000000000", 100, 1_000)
    kubectl.apply(gpu_pod("lost", (unknown,)))
    found = explained(kubectl, "slice-refused", "pod", "lost")
    assert found["says"].startswith("CardUnknown")
    assert (found["code"], found["step"]) == (1, 7)


def test_a_container_that_ends_again_and_again(daemon: Daemon, kubectl: Kubectl) -> None:
    """It has its slice; what it does with it is not ours."""
    share = CardShare(daemon.uuids[1], 100, 1_000)
    kubectl.apply(gpu_pod("crashes", (share,), script="exit 3"))
    assert explained(kubectl, "container-fails", "pod", "crashes")["code"] == 1
