"""The rig, one for all tests; each test has a namespace, and all cards are free."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.cluster.claims.rig import Rig, running_rig
from tests.cluster.conftest import _require_own
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.simulated_nodes import PROGRAMS


@pytest.fixture(scope="session")
def rig(existing: Cluster | None, binaries: Binaries) -> Iterator[Rig]:
    """Control plane, two nodes, webhook and controller."""
    _require_own(existing, binaries, PROGRAMS)
    with running_rig(binaries) as made:
        yield made


@pytest.fixture
def team(rig: Rig) -> Iterator[str]:
    """A namespace, emptied afterwards so that its cards are free."""
    name = rig.plane.create_namespace()
    yield name
    rig.plane.kubectl.within(name)("delete", "pods,deployments", "--all", "--wait=false")
    path = f"/apis/resource.k8s.io/v1/namespaces/{name}/resourceclaims"
    asyncio.run(rig.until(path, lambda claims: not claims))
