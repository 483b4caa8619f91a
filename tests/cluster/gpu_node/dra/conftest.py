"""The DRA driver on a real kubelet, with the stock scheduler: one for all tests of the folder."""

import os
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import _require_own, _require_version
from tests.cluster.daemon import DRA, Daemon, running_daemon
from tests.cluster.gpu_node.dra.rig import CARDS
from tests.cluster.harness.binaries import CONTROL_PLANE, NODE, Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.control_plane import running_control_plane
from tests.cluster.harness.node import running_node


@pytest.fixture(scope="package")
def daemon(existing: Cluster | None, binaries: Binaries) -> Iterator[Daemon]:
    """A driver with three cards on a cluster of its own."""
    _require_own(existing, binaries, (*CONTROL_PLANE, *NODE))
    _require_version(binaries.version, "1.36")
    if os.geteuid() != 0:
        pytest.skip("a node needs root: mounts, control groups, network interfaces")
    flags = ("--mode=dra", "--pod-uid=first", "--poll-interval=0.2", "--read-interval=1")
    with (
        running_control_plane(binaries) as plane,
        running_node(plane) as node,
        running_daemon(node, *flags, cards=CARDS, manifests=DRA) as made,
    ):
        yield made
