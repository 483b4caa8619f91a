"""What holds for every test of the certificates."""

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """A blocking call inside the event loop fails the test."""
    with blockbuster_ctx("gpu_fraction.certs") as blockbuster:
        yield blockbuster
