"""A sandbox API server and a client for it, for every test that wants them."""

from collections.abc import AsyncIterator, Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from gpu_fraction.kube.access import Access
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.retry import RetryPolicy
from gpu_fraction.sandbox.apiserver import ApiServer
from tests.support.access import fixed


@pytest.fixture
def no_blocking_calls() -> Iterator[BlockBuster]:
    """A blocking call inside the event loop fails the test."""
    with blockbuster_ctx() as blockbuster:
        yield blockbuster


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    """A server with the namespace ``team-a``, on a port of its own."""
    server = ApiServer()
    server.add_namespace("team-a")
    async with server.serve():
        yield server


@pytest.fixture
async def client(api: ApiServer) -> AsyncIterator[Client]:
    """A client whose waits are short, because tests meet many faults."""
    retry = RetryPolicy(Backoff(initial_s=0.01, cap_s=0.05), attempt_timeout_s=3.0)
    source = fixed(Access(server=api.url))
    async with connect(source, component="test", timeout_s=10.0, retry=retry) as client:
        yield client


@pytest.fixture
async def hasty(api: ApiServer) -> AsyncIterator[Client]:
    """A client that gives up on a hanging try soon; on a busy machine also on a slow one."""
    retry = RetryPolicy(Backoff(initial_s=0.01, cap_s=0.05), attempt_timeout_s=0.2)
    source = fixed(Access(server=api.url))
    async with connect(source, component="test", timeout_s=10.0, retry=retry) as client:
        yield client
