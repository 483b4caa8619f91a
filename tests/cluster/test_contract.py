"""What the sandbox's API server promises, kept by a real one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import _require_own
from tests.cluster.harness.binaries import CONTROL_PLANE, Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.control_plane import ControlPlane, running_control_plane
from tests.cluster.harness.options import ControlPlaneOptions

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plane(existing: Cluster | None, binaries: Binaries) -> Iterator[ControlPlane]:
    """A control plane whose pods nobody schedules: the sandbox has no nodes either."""
    _require_own(existing, binaries, CONTROL_PLANE)
    with running_control_plane(binaries, ControlPlaneOptions(scheduler=False)) as made:
        yield made


def test_the_contract_of_the_sandbox_holds_on_a_real_server(plane: ControlPlane) -> None:
    """The same tests that the sandbox passes in the fast level, all of them."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "tests/contract/test_real.py"],
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG_TEST": str(plane.kubectl.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout
