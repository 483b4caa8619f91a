"""Fixtures of the tests that run against a real Kubernetes.

``KUBECONFIG_TEST`` names the kubeconfig of an existing cluster to use instead of an own one.
"""

import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts.image.build import Image
from tests.cluster.harness import images
from tests.cluster.harness.api_client import ApiClient
from tests.cluster.harness.binaries import (
    CONTROL_PLANE,
    NODE,
    Binaries,
    MissingBinariesError,
    find_binaries,
)
from tests.cluster.harness.cluster import Cluster, existing_cluster
from tests.cluster.harness.control_plane import ControlPlane, running_control_plane
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.node import Node, running_node
from tests.cluster.harness.options import ControlPlaneOptions
from tests.cluster.harness.quota import Quotas, quotas_installed
from tests.support.chart import Helm, find_helm

_HERE = Path(__file__).parent
_TIMEOUT_S = 600
"""Of one test with its fixtures; chosen: ten times the slowest start of a whole system on two
busy cores. It ends what hangs, nothing else."""


def pytest_configure(config: pytest.Config) -> None:
    """Declares the markers."""
    config.addinivalue_line(
        "markers", 'needs_kubernetes("1.36"): skip on a server older than this minor version'
    )
    config.addinivalue_line(
        "markers", "long: minutes of load, many objects or a whole system; make test-cluster-long"
    )
    config.addinivalue_line("markers", "matrix: long, and run on each version of the matrix")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives these tests more time than the fast ones."""
    for item in items:
        if _HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """The programs found on this machine."""
    return find_binaries()


@pytest.fixture(scope="session")
def existing(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Cluster | None:
    """The cluster of ``KUBECONFIG_TEST``, if that is set."""
    named = os.environ.get("KUBECONFIG_TEST")
    if not named:
        return None
    _require(binaries, ("kubectl",))
    return existing_cluster(Path(named), binaries, tmp_path_factory.mktemp("existing"))


@pytest.fixture(scope="session")
def control_plane(
    existing: Cluster | None, binaries: Binaries, request: pytest.FixtureRequest
) -> Cluster:
    """A cluster's API, administrator rights and kubectl; without a node, pods stay Pending."""
    if existing is not None:
        return existing
    _require(binaries, CONTROL_PLANE)
    own: ControlPlane = request.getfixturevalue("own_control_plane")
    return own


@pytest.fixture(scope="session")
def own_control_plane(existing: Cluster | None, binaries: Binaries) -> Iterator[ControlPlane]:
    """The control plane whose processes a test may stop, kill and restart."""
    _require_own(existing, binaries, CONTROL_PLANE)
    with running_control_plane(binaries) as plane:
        yield plane


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm 4."""
    return find_helm("helm4", tmp_path_factory)


@pytest.fixture(scope="session")
def node(
    request: pytest.FixtureRequest, existing: Cluster | None, binaries: Binaries
) -> Iterator[Node]:
    """A real node of that control plane: a kubelet, containerd, one busybox image."""
    _require_own(existing, binaries, NODE)
    if os.geteuid() != 0:
        pytest.skip("a node needs root: mounts, control groups, network interfaces")
    with running_node(request.getfixturevalue("own_control_plane")) as made:
        yield made


@pytest.fixture(scope="session")
def product_image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The work tree as a container image, in an archive."""
    if shutil.which("apt-get") is None and "CI" not in os.environ:
        pytest.skip("the image is made of packages of Debian, and apt-get is missing")
    return images.product_image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def quotas(own_control_plane: ControlPlane) -> Iterator[Quotas]:
    """The webhook and a controller that counts, for the tests of one module."""
    with quotas_installed(own_control_plane, replicas=1, controllers=1) as running:
        yield running


@pytest.fixture
def start_control_plane(
    existing: Cluster | None, binaries: Binaries
) -> Iterator[Callable[[ControlPlaneOptions], ControlPlane]]:
    """Starts further control planes, for tests that need other options; they end with the test."""
    _require_own(existing, binaries, CONTROL_PLANE)
    with ExitStack() as stack:
        yield lambda options: stack.enter_context(running_control_plane(binaries, options))


@pytest.fixture
def kubectl(control_plane: Cluster, namespace: str) -> Kubectl:
    """Kubectl as administrator, in this test's namespace."""
    return control_plane.kubectl.within(namespace)


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """A fresh namespace in which pods can be created."""
    with control_plane.namespace() as name:
        yield name


@pytest.fixture
async def client(control_plane: Cluster) -> AsyncIterator[ApiClient]:
    """An asynchronous client as administrator."""
    async with ApiClient(control_plane.access) as made:
        yield made


@pytest.fixture(autouse=True)
def _needs_kubernetes(request: pytest.FixtureRequest) -> None:
    """Skips what the server is too old for."""
    marker = request.node.get_closest_marker("needs_kubernetes")
    if marker is None:
        return
    existing = request.getfixturevalue("existing")
    found = (existing or request.getfixturevalue("binaries")).version
    _require_version(found, str(marker.args[0]))


def _require_version(found: tuple[int, ...] | None, wanted: str) -> None:
    """Skips on an older server; for fixtures, which are set up before the marker is looked at."""
    assert re.fullmatch(r"1\.\d+", wanted), wanted
    if found and found[:2] < tuple(map(int, wanted.split("."))):
        pytest.skip(f"needs Kubernetes {wanted}, found {'.'.join(map(str, found))}")


def _require_own(existing: Cluster | None, binaries: Binaries, names: tuple[str, ...]) -> None:
    if existing is not None:
        pytest.skip("needs processes of its own, KUBECONFIG_TEST names an existing cluster")
    _require(binaries, names)


def _require(binaries: Binaries, names: tuple[str, ...]) -> None:
    """Skips where programs are absent; CI has built them, so there it fails."""
    try:
        binaries.require(names)
    except MissingBinariesError as e:
        if "CI" in os.environ:
            pytest.fail(str(e))
        pytest.skip(str(e))
