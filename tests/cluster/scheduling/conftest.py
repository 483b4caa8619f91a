"""The rig, one for all tests of scheduling; each test has a namespace and empty cards."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.conftest import _require_own
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.simulated_nodes import PROGRAMS
from tests.cluster.scheduling.rig import Rig, running_rig


@pytest.fixture(scope="session")
def shared_rig(
    existing: Cluster | None, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """Control plane, 50 nodes and an extender."""
    _require_own(existing, binaries, PROGRAMS)
    with running_rig(binaries, tmp_path_factory.mktemp("rig")) as rig:
        yield rig


@pytest.fixture
def rig(shared_rig: Rig) -> Iterator[Rig]:
    """The rig with a namespace of the test's own, emptied afterwards."""
    namespace = shared_rig.plane.create_namespace()
    shared_rig.restart_extender()
    made = replace(shared_rig, namespace=namespace)
    yield made
    asyncio.run(made.delete_pods())


@pytest.fixture
def large_rig(existing: Cluster | None, binaries: Binaries, tmp_path: Path) -> Iterator[Rig]:
    """A rig of its own with a thousand nodes."""
    _require_own(existing, binaries, PROGRAMS)
    with running_rig(binaries, tmp_path, nodes=1000) as made:
        yield replace(made, namespace=made.plane.create_namespace())
