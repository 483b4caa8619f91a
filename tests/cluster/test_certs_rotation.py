"""Certificates change under load on a real API server, and no create fails."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.cluster.harness.api_client import JSON_PATCH
from tests.cluster.harness.certificates import (
    SECRET_PATH,
    Load,
    SelfManaged,
    configurations,
    self_managed,
)
from tests.cluster.harness.control_plane import ControlPlane

pytestmark = pytest.mark.long

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
    return Load(webhook.client, webhook.plane.create_namespace(), RATE)


async def test_leaf_rotation(webhook: SelfManaged, load: Load) -> None:
    """Five times all replicas change their leaf."""
    async with load.at_work():
        await asyncio.sleep(2)
        for number in range(5):
            await webhook.request("rotate-leaf", str(number))
            await webhook.leaves_served(number + 2)
            await asyncio.sleep(1)
    print(load.report("leaf rotation x5"))
    assert load.failed.total() == 0


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
    logs = "".join(p.log.read_text() for p in webhook.serving.values())
    assert "forbidden" not in logs.lower(), "deploy/rbac/certificates.yaml lacks a right"


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


@pytest.mark.parametrize(
    "how", [(), ("--server-side", "--force-conflicts")], ids=["client", "server"]
)
async def test_manifests_are_applied_again(
    webhook: SelfManaged, load: Load, how: tuple[str, ...]
) -> None:
    """Whoever applies the manifests, which have no caBundle, takes none away."""
    manifests = configurations(webhook.port)
    async with load.at_work():
        await asyncio.sleep(1)
        for number in range(3):
            for manifest in manifests:
                manifest["metadata"]["labels"] = {"applied": str(number)}
                await asyncio.to_thread(
                    webhook.plane.kubectl, "apply", *how, "-f", "-", stdin=manifest
                )
            await asyncio.sleep(0.5)
    print(load.report(f"manifests applied again, {how or 'client side'}"))
    assert load.failed.total() == 0


async def test_a_wiped_bundle_is_repaired(webhook: SelfManaged, load: Load) -> None:
    """Creates fail only until the repair, which needs nobody."""
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/gpu-fraction"
    await webhook.client.patch(
        path,
        [{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}],
        content_type=JSON_PATCH,
    )
    repaired = await webhook.client.wait_for(
        path, lambda c: bool(c["webhooks"][0]["clientConfig"].get("caBundle"))
    )
    assert repaired["webhooks"][0]["failurePolicy"] == "Fail"
    async with load.at_work():
        await asyncio.sleep(1)
    assert load.done > 0


async def test_the_load_can_fail(own_control_plane: ControlPlane) -> None:
    """The naive way, a caBundle that is simply replaced, is noticed at once."""
    async with self_managed(own_control_plane, serving=1, leading=1) as webhook:
        for process in webhook.leading.values():
            process.kill()
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/gpu-fraction"
        bundle = webhook.plane.authority.bundle
        change = {"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}
        load = Load(webhook.client, webhook.plane.create_namespace(), RATE)
        async with load.at_work():
            await asyncio.sleep(1)
            await webhook.client.patch(path, [change], content_type=JSON_PATCH)
            await asyncio.sleep(2)
        print(load.report("caBundle replaced by hand, nobody to repair it"))
        assert load.done > 0
        assert load.failed.total() > 0
        assert all("x509" in message for message in load.failed)
