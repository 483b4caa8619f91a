"""Simulated cards on a real kubelet and a real containerd: no GPU, no compiled library."""

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.node_daemon.cards.simulated import FAULT_ANNOTATION
from tests.cluster.daemon import CARDS, Daemon, gpu_pod
from tests.cluster.harness.kubectl import Kubectl

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_share_stays")]

DAEMON_FLAGS = (
    f"--simulated-cards={CARDS}",
    "--simulated-model=NVIDIA A100-SXM4-80GB",
    "--simulated-memory=80Gi",
    "--poll-interval=0.2",
)
NVML_CARDS = 0
SCRIPT = (
    'echo "$GPU_FRACTION $GPU_MEMORY_LIMIT_MIB $GPU_FRACTION_SIMULATED $NVIDIA_VISIBLE_DEVICES"; '
    "ls /dev | grep nvidia; sleep 10000"
)


def test_a_container_gets_its_share_and_no_device(
    daemon: Daemon, kubectl: Kubectl, namespace: str
) -> None:
    """Variables through the CDI file; a pod that nobody assigned is given a simulated card."""
    kubectl.apply(gpu_pod("quarter", None, core_milli=250, memory_mib=20 * 1024, script=SCRIPT))
    kubectl("wait", "pod/quarter", "--for=condition=Ready", "--timeout=150s", timeout_s=180)
    assert daemon.printed(namespace, "quarter") == "0.25 20480 true void"
    notes = kubectl.json("get", "pod", "quarter")["metadata"]["annotations"]
    node = kubectl.json("get", "node", daemon.node.name)["metadata"]
    (uuid,) = [word for word in notes[keys.ASSIGNED].split('"') if word.startswith("GPU-")]
    assert uuid in node["annotations"][keys.INVENTORY]
    assert node["labels"][keys.LABEL_SIMULATED] == "true"
    assert node["labels"][keys.LABEL_MODEL] == "NVIDIA-A100-SXM4-80GB-simulated"
    assert daemon.metric("gpu_fraction_simulated") == 1


def test_an_annotation_of_the_node_makes_a_card_sick(daemon: Daemon, kubectl: Kubectl) -> None:
    """The kubelet reports less, and all of it again once the annotation is gone."""
    kubectl("annotate", "node", daemon.node.name, f"{FAULT_ANNOTATION}=1")
    daemon.wait_allocatable(keys.CORE_MILLI, (CARDS - 1) * 1000)
    kubectl("annotate", "node", daemon.node.name, f"{FAULT_ANNOTATION}-")
    daemon.wait_allocatable(keys.CORE_MILLI, CARDS * 1000)
