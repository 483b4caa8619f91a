"""A cluster whose certificates live for seconds goes through rotation after rotation."""

import time

import pytest

from tests.cluster.harness.certificates import Load, self_managed
from tests.cluster.harness.control_plane import ControlPlane

pytestmark = pytest.mark.long

ROTATIONS = 10
RATE = 200.0


@pytest.mark.timeout(420)
async def test_ten_ca_rotations_by_themselves(own_control_plane: ControlPlane) -> None:
    """Ten CAs wear out and are replaced, leaves many times more; no create fails."""
    async with self_managed(
        own_control_plane,
        # A rotation takes seconds and half a CA's life is left for it, so that only a fault
        # lets a certificate expire.
        ca_life_s=40,
        leaf_life_s=24,
        settle_s=2,
        retire_s=1,
    ) as webhook:
        load = Load(webhook.client, webhook.plane.create_namespace(), RATE)
        seen = [await webhook.steady()]
        started = time.monotonic()
        async with load.at_work():
            for _ in range(ROTATIONS):
                seen.append(await webhook.steady(other_than=seen[-1]))
        print(load.report(f"{ROTATIONS} CA rotations in {time.monotonic() - started:.0f} s"))
        assert load.failed.total() == 0
        assert len(set(seen)) == ROTATIONS + 1
        logs = [p.log.read_text() for p in webhook.serving.values()]
        assert all(log.count("certs.leaf_served") > ROTATIONS for log in logs)
