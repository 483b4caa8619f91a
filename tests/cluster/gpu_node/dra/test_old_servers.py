"""A server without shared devices: before Kubernetes 1.36, or with the feature gate off."""

import os

import pytest

from gpu_fraction.domain import dra
from tests.cluster.conftest import _require_own
from tests.cluster.daemon import DRA, ROOT, Daemon, running_daemon
from tests.cluster.gpu_node.dra.rig import pod, refused, slices, template
from tests.cluster.harness.binaries import CONTROL_PLANE, NODE, Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.control_plane import running_control_plane
from tests.cluster.harness.kubectl import Kubectl, KubectlError
from tests.cluster.harness.node import running_node
from tests.cluster.harness.options import ControlPlaneOptions
from tests.cluster.harness.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.matrix]

GATE = "DRAConsumableCapacity"


def test_nothing_is_given_away(existing: Cluster | None, binaries: Binaries) -> None:
    """The server refuses the classes; the driver names the gate, and offers no card to others."""
    _require_own(existing, binaries, (*CONTROL_PLANE, *NODE))
    if os.geteuid() != 0:
        pytest.skip("a node needs root: mounts, control groups, network interfaces")
    # Off by default before 1.36.
    new = binaries.version is not None and binaries.version[:2] >= (1, 36)
    gate = {"kube-apiserver": {"feature-gates": f"{GATE}=false"}} if new else {}
    with (
        running_control_plane(binaries, ControlPlaneOptions(flags=gate)) as plane,
        running_node(plane) as node,
        running_daemon(node, "--mode=dra", manifests=DRA[:-1], ready=False) as daemon,
        plane.namespace() as namespace,
    ):

        def told() -> str:
            events = plane.kubectl.json("get", "events", "--field-selector=reason=CardsNotOffered")
            return "".join(event["message"] for event in events["items"])

        why = f"the feature gate {GATE} is off (on by default from Kubernetes 1.36)"
        assert why in wait_for(told)
        assert any(why in line.get("why", "") for line in daemon.log)
        wait_for(lambda: why in daemon.get("/readyz")[1])
        with pytest.raises(KubectlError, match="undefined field 'allowMultipleAllocations'") as e:
            plane.kubectl("apply", "-f", str(ROOT / "deploy" / DRA[-1]))
        for name in (dra.FRACTION_CLASS, dra.WHOLE_CLASS, dra.MIG_CLASS):
            assert name in str(e.value)
        _assert_a_class_of_others_gets_nothing(daemon, plane.kubectl.within(namespace))


def _assert_a_class_of_others_gets_nothing(daemon: Daemon, kubectl: Kubectl) -> None:
    """One that an administrator made without our guard."""
    kubectl.apply(
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "DeviceClass",
            "metadata": {"name": "bare"},
            "spec": {"selectors": [{"cel": {"expression": f"device.driver == '{dra.DRIVER}'"}}]},
        },
        template("quarter", device_class="bare"),
        pod("one", "quarter"),
    )
    wait_for(lambda: refused(kubectl, "one"))
    assert slices(daemon) == []
