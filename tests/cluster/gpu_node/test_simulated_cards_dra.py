"""Simulated cards as devices of the DRA driver, on a real kubelet with the stock scheduler."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from gpu_fraction.domain import dra
from tests.cluster.conftest import _require_own
from tests.cluster.daemon import DRA, Daemon, running_daemon
from tests.cluster.gpu_node.dra.rig import pod, template
from tests.cluster.harness.binaries import CONTROL_PLANE, NODE, Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.control_plane import running_control_plane
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.node import running_node
from tests.cluster.harness.waiting import wait_for

pytestmark = [
    pytest.mark.long,
    pytest.mark.needs_kubernetes("1.36"),
    pytest.mark.usefixtures("no_share_stays"),
]

SCRIPT = 'echo "$GPU_FRACTION $GPU_MEMORY_LIMIT_MIB $GPU_FRACTION_SIMULATED"; sleep 10000'


@pytest.fixture(scope="module")
def daemon(existing: Cluster | None, binaries: Binaries) -> Iterator[Daemon]:
    """A driver with two simulated cards on a cluster of its own."""
    _require_own(existing, binaries, (*CONTROL_PLANE, *NODE))
    if os.geteuid() != 0:
        pytest.skip("a node needs root: mounts, control groups, network interfaces")
    flags = ("--mode=dra", "--simulated-cards=2", "--simulated-memory=24Gi")
    with (
        running_control_plane(binaries) as plane,
        running_node(plane) as node,
        running_daemon(node, *flags, cards=0, manifests=DRA) as made,
    ):
        yield made


def test_a_claim_by_hand_gets_a_share_of_a_simulated_card(
    daemon: Daemon, kubectl: Kubectl, namespace: str
) -> None:
    """The scheduler places it; the container learns its share, and that there is no card."""
    kubectl.apply(template("quarter"), pod("one", "quarter", script=SCRIPT))
    kubectl("wait", "pod/one", "--for=condition=Ready", "--timeout=150s", timeout_s=180)
    assert daemon.printed(namespace, "one", "c0") == "0.25 6144 true"
    wait_for(lambda: len(devices(kubectl)) == 2)
    assert {str(d["attributes"][dra.SIMULATED]) for d in devices(kubectl)} == {"{'bool': True}"}


def devices(kubectl: Kubectl) -> list[dict[str, Any]]:
    """What the driver publishes."""
    listed = kubectl.json("get", "resourceslices")["items"]
    ours = [one["spec"] for one in listed if one["spec"]["driver"] == dra.DRIVER]
    return [device for spec in ours for device in spec["devices"]]
