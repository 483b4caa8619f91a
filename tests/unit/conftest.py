"""What tests of manifests share: kubectl as a renderer."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.harness.binaries import find_binaries


@pytest.fixture(scope="session")
def rendered() -> Callable[[Path], list[dict[str, Any]]]:
    """What ``kubectl apply -k`` of a folder would send."""
    kubectl = find_binaries().paths.get("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on this machine: `make cluster-assets` builds it")

    def render(folder: Path) -> list[dict[str, Any]]:
        done = subprocess.run(
            [kubectl, "kustomize", str(folder)],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return list(YAML(typ="safe").load_all(done.stdout))

    return render
