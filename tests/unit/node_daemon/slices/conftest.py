"""What holds for every test of the node daemon."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import blockbuster
import pytest


@pytest.fixture(autouse=True)
def nothing_blocks() -> Iterator[None]:
    """A blocking call of the daemon inside the event loop fails the test."""
    with blockbuster.blockbuster_ctx("gpu_fraction.node_daemon") as blocked:
        # gRPC joins its poller when its last object is collected, wherever that happens to be.
        for name in ("threading.Lock.acquire", "threading.Lock.acquire_lock"):
            blocked.functions[name].deactivate()
        yield


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: a socket's path has 107 bytes, of which pytest's own may leave too few."""
    with tempfile.TemporaryDirectory(prefix="gf-", ignore_cleanup_errors=True) as name:
        yield Path(name)
