"""The lease holder is killed in the middle of rotations, under load."""

import asyncio

import pytest

from tests.cluster.harness.certificates import Load, self_managed
from tests.cluster.harness.control_plane import ControlPlane

pytestmark = pytest.mark.long

RATE = 200.0
# The Event that is recorded right after the write that enters the phase.
PHASES = {
    "Stage": "RotationStarted",
    "Trust": "CaStaged",
    "Settle": "CaTrusted",
    "Switch": "CaSwitching",
    "Retire": "CaSwitched",
}


@pytest.mark.timeout(400)
async def test_the_holder_is_killed_in_each_phase(own_control_plane: ControlPlane) -> None:
    """A holder that serves nothing itself kills itself in each phase; no create fails."""
    async with self_managed(own_control_plane, serving=2, leading=2) as webhook:
        current = await webhook.steady()
        for number, (phase, reason) in enumerate(PHASES.items()):
            load = Load(webhook.client, webhook.plane.create_namespace(), RATE)
            async with load.at_work():
                await asyncio.sleep(1)
                webhook.kill_file.write_text(reason)
                await webhook.request("rotate-ca", str(number))
                current = await webhook.steady(other_than=current)
                await asyncio.sleep(1)
            print(load.report(f"kill -9 of the lease holder in {phase}"))
            assert load.failed.total() == 0, phase
            dead = [p for p in webhook.leading.values() if not p.running]
            assert len(dead) == 1, phase
            dead[0].start()


@pytest.mark.timeout(300)
async def test_the_holder_serves_too(own_control_plane: ControlPlane) -> None:
    """Requests that were on their way to the killed process fail; none for its certificate."""
    async with self_managed(own_control_plane, serving=2) as webhook:
        before = await webhook.steady()
        load = Load(webhook.client, webhook.plane.create_namespace(), RATE)
        async with load.at_work():
            await asyncio.sleep(1)
            webhook.kill_file.write_text(PHASES["Switch"])
            await webhook.request("rotate-ca", "1")
            await webhook.steady(other_than=before)
            await asyncio.sleep(1)
        print(load.report("kill -9 of a lease holder that serves"))
        assert [m for m in load.failed if "x509" in m or "tls" in m.lower()] == []
        assert sum(not p.running for p in webhook.serving.values()) == 1
        assert load.done > 100
