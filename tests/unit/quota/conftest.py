"""What tests of quotas start from."""

from collections.abc import AsyncIterator

import pytest

from gpu_fraction.sandbox.apiserver import ApiServer


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    """An API server with one namespace, which knows nothing of GPUQuotas."""
    made = ApiServer()
    made.add_namespace("team")
    async with made.serve():
        yield made
