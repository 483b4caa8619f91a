"""From the annotation to a started container, by the stock scheduler and the driver."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from gpu_fraction.domain import keys
from tests.cluster.conftest import _require_own, _require_version
from tests.cluster.daemon import DRA, ROOT, Daemon, create_all, running_daemon, wait_started
from tests.cluster.harness.binaries import CONTROL_PLANE, NODE, Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.control_plane import running_control_plane
from tests.cluster.harness.kubectl import Kubectl, KubectlError
from tests.cluster.harness.node import running_node
from tests.cluster.harness.quota import quotas_installed
from tests.cluster.harness.waiting import wait_for

pytestmark = [
    pytest.mark.long,
    pytest.mark.matrix,
    pytest.mark.needs_kubernetes("1.36"),
    pytest.mark.usefixtures("no_share_stays"),
]

CARDS = 3
SIZE = 81_559 - 600
"""MiB of a simulated card, without what its driver keeps."""
SCRIPT = 'echo "$GPU_FRACTION_DEVICES $GPU_MEMORY_LIMIT_MIB $GPU_FRACTION"; sleep 10000'


@pytest.fixture(scope="module")
def daemon(existing: Cluster | None, binaries: Binaries) -> Iterator[Daemon]:
    """Driver, webhook and controller on a cluster of their own."""
    _require_own(existing, binaries, (*CONTROL_PLANE, *NODE))
    _require_version(binaries.version, "1.36")
    if os.geteuid() != 0:
        pytest.skip("a node needs root: mounts, control groups, network interfaces")
    flags = ("--mode=dra", "--poll-interval=0.2")
    with (
        running_control_plane(binaries) as plane,
        running_node(plane) as node,
        running_daemon(node, *flags, cards=CARDS, manifests=DRA) as made,
    ):
        plane.kubectl("apply", "-k", str(ROOT / "deploy" / "claims"))
        sizes = ("--gpu-memory-mib", str(SIZE))
        with quotas_installed(
            plane,
            replicas=1,
            controllers=1,
            webhook_arguments=("--backend", "dra", *sizes),
            controller_arguments=("--dra", "all", *sizes),
        ):
            yield made


def pod(name: str, annotations: dict[str, str], *containers: str) -> dict[str, Any]:
    """A pod as its author writes it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": one,
                    "image": "busybox:1",
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", SCRIPT],
                }
                for one in containers or ("main",)
            ],
        },
    }


@pytest.mark.parametrize(
    ("annotations", "cards", "mib", "share"),
    [
        ({"gpu-fraction": "0.25"}, 1, SIZE // 4, "0.25"),
        ({"gpu-memory": "8Gi"}, 1, 8192, "0.101"),
        ({"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2"}, 2, SIZE // 2, "0.5"),
        ({"gpu-fraction": "1"}, 1, SIZE, "1"),
        ({"gpu-fraction": "0.25", keys.MODEL: "H100"}, 1, SIZE // 4, "0.25"),
    ],
    ids=["fraction", "memory", "two-cards", "whole", "model"],
)
def test_an_annotated_pod_starts_with_its_share(
    daemon: Daemon,
    kubectl: Kubectl,
    annotations: dict[str, str],
    cards: int,
    mib: int,
    share: str,
) -> None:
    """Each container is told its cards and limits, as its claim says."""
    create_all(kubectl, [pod("p", annotations)])
    wait_started(kubectl, "p")
    devices, *told = daemon.printed(kubectl.namespace, "p").split()
    assert set(devices.split(",")) <= set(daemon.uuids)
    assert len(devices.split(",")) == cards
    assert told == [str(mib), share]


def test_two_containers_get_their_own(daemon: Daemon, kubectl: Kubectl) -> None:
    """By one annotation each."""
    shares = {keys.CONTAINER_PREFIX + "a": "0.25", keys.CONTAINER_PREFIX + "b": "0.5"}
    create_all(kubectl, [pod("p", shares, "a", "b")])
    wait_started(kubectl, "p")
    for name, share in (("a", "0.25"), ("b", "0.5")):
        assert daemon.printed(kubectl.namespace, "p", name).split()[2] == share


def test_twelve_quarters_on_three_cards(daemon: Daemon, kubectl: Kubectl) -> None:
    """The thirteenth waits with the scheduler's reason, and starts when one is deleted."""
    names = [f"p{i:02}" for i in range(12)]
    quarter = {"gpu-fraction": "0.25"}
    create_all(kubectl, [pod(name, quarter) for name in names])
    wait_started(kubectl, *names)
    given = [daemon.printed(kubectl.namespace, name).split()[0] for name in names]
    assert {uuid: given.count(uuid) for uuid in daemon.uuids} == dict.fromkeys(daemon.uuids, 4)
    create_all(kubectl, [pod("late", quarter)])

    def reason() -> bool:
        status = kubectl.json("get", "pod", "late")["status"]
        return any(
            "cannot allocate all claims" in c.get("message", "")
            for c in status.get("conditions", ())
        )

    wait_for(reason)
    kubectl("delete", "pod", names[0])
    wait_started(kubectl, "late")


def test_a_refusal_is_readable(kubectl: Kubectl) -> None:
    """Of what no claim can say."""
    with pytest.raises(KubectlError, match="the largest eligible GPU has"):
        create_all(kubectl, [pod("p", {"gpu-memory": "90Gi"})])
