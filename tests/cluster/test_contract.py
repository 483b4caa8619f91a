"""What the sandbox's API server promises, kept by a real one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.harness.control_plane import ControlPlane

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


def test_the_contract_of_the_sandbox_holds_on_a_real_server(
    own_control_plane: ControlPlane,
) -> None:
    """The same tests that the sandbox passes in the fast level."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "tests/contract/test_real.py"],
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG_TEST": str(own_control_plane.kubectl.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
