"""Helm as a renderer."""

import pytest

from tests.support.chart import Helm, find_helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm 4."""
    return find_helm("helm4", tmp_path_factory)


@pytest.fixture(scope="session")
def helm3(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm 3."""
    return find_helm("helm3", tmp_path_factory)
