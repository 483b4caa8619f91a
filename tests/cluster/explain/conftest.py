"""The rig, one for all tests; each test has a namespace."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.cluster.conftest import _require_own
from tests.cluster.explain.rig import Rig, running_rig
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.simulated_nodes import PROGRAMS


@pytest.fixture(scope="session")
def shared_rig(
    existing: Cluster | None, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """Control plane, nodes, webhook, controller, scheduler and extender."""
    _require_own(existing, binaries, PROGRAMS)
    with running_rig(binaries, tmp_path_factory.mktemp("rig")) as rig:
        yield rig


@pytest.fixture
def rig(shared_rig: Rig) -> Iterator[Rig]:
    """The rig with a namespace of the test's own; its pods are gone afterwards."""
    made = replace(shared_rig, namespace=shared_rig.plane.create_namespace())
    yield made
    made.kubectl("delete", "deployments,jobs", "--all", "--wait=false")
    made.kubectl("delete", "pods", "--all", "--wait=true", "--timeout=60s")
