"""The node daemon on a real node, one for each module of tests."""

import os
from collections.abc import Iterator

import pytest

from gpu_fraction.domain import keys
from tests.cluster.conftest import _require_own
from tests.cluster.daemon import CARDS, Daemon, running_daemon
from tests.cluster.harness.binaries import CONTROL_PLANE, NODE, Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.control_plane import ControlPlane, running_control_plane
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.node import running_node


@pytest.fixture(scope="module")
def daemon(
    request: pytest.FixtureRequest, existing: Cluster | None, binaries: Binaries
) -> Iterator[Daemon]:
    """A daemon with four cards whose capacity the scheduler knows, on a cluster of its own.

    ``DAEMON_FLAGS`` of a module are further flags of its daemon, and ``NVML_CARDS`` the cards of
    the fake NVML library, where the flags bring others.
    """
    _require_own(existing, binaries, (*CONTROL_PLANE, *NODE))
    if os.geteuid() != 0:
        pytest.skip("a node needs root: mounts, control groups, network interfaces")
    flags: tuple[str, ...] = getattr(request.module, "DAEMON_FLAGS", ())
    nvml_cards: int = getattr(request.module, "NVML_CARDS", CARDS)
    with (
        running_control_plane(binaries) as plane,
        running_node(plane) as node,
        running_daemon(node, *flags, cards=nvml_cards) as made,
    ):
        made.wait_allocatable(keys.SLOT, CARDS * 32)
        made.wait_allocatable(keys.CORE_MILLI, CARDS * 1000)
        yield made


@pytest.fixture(scope="module")
def control_plane(daemon: Daemon) -> ControlPlane:
    """The cluster that a module's kubectl talks to."""
    return daemon.node.plane


@pytest.fixture
def no_share_stays(daemon: Daemon, kubectl: Kubectl) -> Iterator[None]:
    """Each test begins and ends without a share: what it leaves would be a claim's for good."""
    yield
    kubectl("delete", "pod", "--all", "--grace-period=0", "--force", "--wait=true")
    daemon.process.wait_until(lambda: not daemon.slice_files(), 120, "without shares")
