"""A node in DRA mode for the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import connect
from gpu_fraction.sandbox.apiserver.server import ApiServer
from tests.support.access import fixed
from tests.support.dra_rig import World
from tests.unit.node_daemon.slices.conftest import nothing_blocks, tmp_path

__all__ = ["nothing_blocks", "tmp_path"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """An API server and a node without cards yet."""
    server = ApiServer()
    async with server.serve(), connect(fixed(Access(server.url)), component="test") as client:
        yield World(tmp_path, server, client)
