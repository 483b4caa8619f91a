"""What holds for every test of the node daemon."""

from collections.abc import Iterator

import blockbuster
import pytest


@pytest.fixture(autouse=True)
def nothing_blocks() -> Iterator[None]:
    """A blocking call of the daemon inside the event loop fails the test."""
    with blockbuster.blockbuster_ctx("node_daemon") as blocked:
        # gRPC joins its poller when its last object is collected, wherever that happens to be.
        for name in ("threading.Lock.acquire", "threading.Lock.acquire_lock"):
            blocked.functions[name].deactivate()
        yield
