"""Helm as a renderer."""

import pytest

from tests.cluster.harness.binaries import find_binaries
from tests.support.chart import Helm


def _helm(program: str, factory: pytest.TempPathFactory) -> Helm:
    found = find_binaries().paths.get(program)
    if found is None:
        pytest.skip(f"no {program} on this machine: `make cluster-assets` builds it")
    return Helm(found, factory.mktemp(program))


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm 4."""
    return _helm("helm4", tmp_path_factory)


@pytest.fixture(scope="session")
def helm3(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm 3."""
    return _helm("helm3", tmp_path_factory)
