"""Nodes that are objects only, with kwok in the place of their kubelets."""

from pathlib import Path

from tests.cluster.harness.binaries import CONTROL_PLANE
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.process import Process

PROGRAMS = (*CONTROL_PLANE, "kwok")
"""What a control plane with such nodes is made of."""

_LEASE_S = 120
"""kwok renews after a quarter of it: in time for the 50 s after which the controllers miss a node
(kube-controller-manager's ``--node-monitor-grace-period``), and 33 writes a second at a thousand
nodes, where the kubelet's own 40 s would be 100."""


def simulated_nodes(plane: ControlPlane) -> Process:
    """kwok, not started, for all nodes of a cluster.

    It makes new nodes Ready and renews their leases; pods bound to them are Running at once, and
    gone a second after they are deleted. Whatever else a node has is left as its creator made it.
    """
    argv: list[str | Path] = [plane.binaries["kwok"], "--manage-all-nodes", "--v=WARN"]
    argv += [f"--config={Path(__file__).with_suffix('.yaml')}"]
    argv += [f"--kubeconfig={plane.user_kubeconfig('kwok', 'system:masters')}"]
    argv += [f"--node-lease-duration-seconds={_LEASE_S}"]
    return plane.process("kwok", argv)
