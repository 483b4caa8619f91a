"""How a node is configured on servers that are not on this machine."""

import subprocess
from pathlib import Path

import pytest

from tests.cluster.harness.node_config import NodePlace, kubelet_argv
from tests.cluster.harness.options import NodeOptions
from tests.cluster.harness.run_directory import RunDirectory


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((1, 20, 2), {"--container-runtime", "--container-runtime-endpoint"}),
        ((1, 25, 0), {"--container-runtime-endpoint"}),
        ((1, 27, 0), set()),
        ((1, 36, 2), set()),
    ],
)
def test_the_kubelet_gets_the_runtime_flags_that_it_knows(
    version: tuple[int, ...], expected: set[str], tmp_path: Path
) -> None:
    """From 1.27 on the endpoint is in its configuration; 1.24 knows only remote runtimes."""
    with subprocess.Popen(["true"]) as nobody:
        place = NodePlace(RunDirectory(tmp_path / "0a0b0c0d", nobody), 0)
    argv = kubelet_argv(place, version, Path("kubeconfig"), NodeOptions())
    flags = {word.partition("=")[0] for word in argv}
    assert {flag for flag in flags if "container-runtime" in flag} == expected
