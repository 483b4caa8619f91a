"""Certificates change under load on a real API server, and no create fails."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.cluster.harness.certificates import (
    SECRET_PATH,
    Load,
    SelfManaged,
    create_namespace,
    self_managed,
)
from tests.cluster.harness.control_plane import ControlPlane

RATE = 200.0
"""Creates a second that are asked for; what the machine gives is printed."""


@pytest.fixture
async def webhook(own_control_plane: ControlPlane) -> AsyncIterator[SelfManaged]:
    """Two replicas behind a Service; each may hold the lease."""
    async with self_managed(own_control_plane) as installed:
        yield installed


@pytest.fixture
def load(webhook: SelfManaged) -> Load:
    """Dry-run creates in a namespace of their own."""
    return Load(webhook.client, create_namespace(webhook.plane), RATE)


async def test_leaf_rotation(webhook: SelfManaged, load: Load) -> None:
    """Five times all replicas change their leaf."""
    async with load.at_work():
        await asyncio.sleep(2)
        for number in range(5):
            await webhook.request("rotate-leaf", str(number))
            await asyncio.sleep(1)
    print(load.report("leaf rotation x5"))
    assert load.failed.total() == 0
    logs = [p.log.read_text() for p in webhook.serving.values()]
    assert all(log.count("certs.leaf_served") == 6 for log in logs)


async def test_ca_rotation(webhook: SelfManaged, load: Load) -> None:
    """One rotation through all its phases."""
    before = await webhook.steady()
    async with load.at_work():
        await asyncio.sleep(2)
        await webhook.request("rotate-ca", "1")
        after = await webhook.steady(other_than=before)
        await asyncio.sleep(2)
    print(load.report("CA rotation"))
    assert after != before
    assert load.failed.total() == 0


async def test_secret_deletion(webhook: SelfManaged, load: Load) -> None:
    """The CA and its key are gone; a new one takes over without a failed create."""
    before = await webhook.steady()
    async with load.at_work():
        await asyncio.sleep(2)
        await webhook.client.delete(SECRET_PATH)
        await webhook.steady(other_than=before)
        await asyncio.sleep(2)
    print(load.report("Secret deletion"))
    assert load.failed.total() == 0
