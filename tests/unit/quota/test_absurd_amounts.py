"""Amounts beyond all GPUs make no budget unreadable, and none larger."""

import msgspec
import pytest

from gpu_fraction.quota.state import read
from gpu_fraction.quota.wire import AmountsWire, ReservationWire
from tests.builders.pods import quota_pod
from tests.support.quota_world import NAMESPACE, World, quota

HUGE = 9_000_000_000_000_000_000
"""Kubernetes takes quantities up to 2^63 - 1 for what the product asks in thousandths."""


async def test_a_pod_that_asks_for_more_than_any_budget_can_say_is_refused() -> None:
    """Also where that key is not limited: its reservation takes a place in every key."""
    async with World(quota(hard={"memory": "160Gi"})).running() as world:
        refused = await world.create(quota_pod("u0", cores=HUGE, memory=163840))
        (only,) = refused.refusals
        assert only.message == (
            "outside GPU quota: team-a, requested: cores=9000000000000000,gpus=9000000000000000, "
            "maximum per pod: cores=1000000000000,gpus=1000000000000000"
        )
        assert (await world.create(quota_pod("u1", memory=163840))).final
        assert (await world.create(quota_pod("u2", memory=1))).refusals


@pytest.mark.parametrize("enforcement", ["Warn", "Audit"])
async def test_a_quota_that_refuses_nobody_stays_readable(enforcement: str) -> None:
    """The reservation and the count of such a pod are full in its key and exact in the others."""
    wire = quota(hard={"cores": "4", "memory": "160Gi"}, enforcement=enforcement)
    async with World(wire).running() as world:
        outcome = await world.create(quota_pod("u0", cores=HUGE, memory=1024))
        assert [r.message.split(",")[0] for r in (*outcome.warnings, *outcome.notes)] == [
            "outside GPU quota: team-a",
            "exceeded GPU quota: team-a",
        ]
        for _ in range(2):  # as a reservation, then counted
            fits = await world.create(quota_pod("u1", memory=159 * 1024), dry_run=True)
            assert [*fits.warnings, *fits.notes] == []
            over = await world.create(quota_pod("u2", cores=1), dry_run=True)
            assert [*over.warnings, *over.notes]
            await world.settle()
        assert world.condition("Exceeded")[0] == "True"


async def test_pods_from_before_the_webhook_are_counted_readably() -> None:
    """Whoever asks for what they have not used up is admitted beside them."""
    async with World(quota(hard={"cores": "4", "memory": "160Gi"})).running() as world:
        for number in range(3):
            world.server.put_pod(quota_pod(f"u{number}", cores=HUGE, memory=1024))
        await world.settle()
        assert (await world.create(quota_pod("memory", memory=1024))).final
        refused = await world.create(quota_pod("cores", cores=1))
        assert refused.refusals[0].message.startswith("exceeded GPU quota: team-a")
        for number in range(3):
            world.server.delete_pod(f"u{number}")
        await world.settle()
        assert (await world.create(quota_pod("cores", cores=1))).final


@pytest.mark.parametrize("amount", ["lots", "-1", "0.0001", 2**63])
async def test_a_reservation_that_cannot_be_read_takes_all_of_its_key(amount: str | int) -> None:
    """Somebody wrote it for a pod that may come: it is never taken for nothing."""
    world = World(quota(hard={"cores": "4", "memory": "160Gi"}))
    async with world.running():
        stored = world.server.quotas[NAMESPACE, "team-a"]
        reservation = ReservationWire(pod_uid="u0", expires="", cores=amount, memory="1Gi")
        changed = msgspec.structs.replace(stored.status, reserved=[reservation])
        found = read(msgspec.structs.replace(stored, status=changed))
        assert found.ledger is not None
        assert found.ledger.taken["cores"] >= 4000
        assert found.ledger.taken["memory"] == 1024


def test_a_count_that_is_no_amount_is_made_anew() -> None:
    """Somebody else wrote it; until then nobody is admitted."""
    wire = quota(hard={"cores": "4"})
    status = msgspec.structs.replace(wire.status, observed_generation=1)
    for used, counted in (("9E", True), ("lots", False)):
        counts = msgspec.structs.replace(status, used=AmountsWire(cores=used))
        assert (read(msgspec.structs.replace(wire, status=counts)).ledger is not None) == counted
