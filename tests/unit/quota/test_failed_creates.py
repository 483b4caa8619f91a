"""Creates that fail after they were admitted do not use up the budget."""

import msgspec
import pytest

from gpu_fraction.quota.ledger import RESERVATION_S
from tests.builders.pods import quota_pod
from tests.support.quota_world import World, quota


async def fail(world: World, *uids: str, name: str = "same", gpus: int = 1) -> None:
    """Creates of one name that are admitted, and not stored."""
    for uid in uids:
        outcome = await world.create(quota_pod(uid, name=name, gpus=gpus), stored=False)
        assert outcome.final


@pytest.mark.parametrize("counted", [False, True])
async def test_creates_of_one_name_cost_what_one_pod_costs(*, counted: bool) -> None:
    """A script creates a pod that exists; another pod still finds room."""
    async with World(quota(hard={"gpus": 2})).running() as world:
        await world.create(quota_pod("u0", name="same", gpus=1))
        if counted:
            await world.settle()
            assert world.used("gpus") == "1"
        await fail(world, "u1", "u2", "u3")
        await world.settle()
        assert (await world.create(quota_pod("other", gpus=1))).final
        assert (await world.create(quota_pod("more", gpus=1))).refusals


async def test_creates_that_others_refuse_cost_what_one_pod_costs() -> None:
    """No pod of the name exists, because another webhook refuses it each time."""
    async with World(quota(hard={"gpus": 2})).running() as world:
        await fail(world, "u1", "u2", "u3")
        assert (await world.create(quota_pod("other", gpus=1))).final
        assert (await world.create(quota_pod("more", gpus=1))).refusals


async def test_a_name_costs_as_much_as_its_largest_create() -> None:
    """Any of them can be the one that is stored."""
    async with World(quota(hard={"gpus": 3})).running() as world:
        await fail(world, "u1", gpus=1)
        await fail(world, "u2", gpus=3)
        await fail(world, "u3", gpus=2)
        assert (await world.create(quota_pod("other", gpus=1))).refusals
        refused = await world.create(quota_pod("u4", name="same", gpus=4), stored=False)
        assert refused.refusals[0].message == (
            "exceeded GPU quota: team-a, requested: gpus=4, used: gpus=0, reserved: gpus=3, "
            "limited: gpus=3"
        )


async def test_an_earlier_create_keeps_its_room_when_the_pod_of_its_name_goes() -> None:
    """It may still be stored, because the name is free."""
    async with World(quota(hard={"gpus": 2})).running() as world:
        await fail(world, "u1", gpus=2)
        await world.create(quota_pod("u2", name="same", gpus=2))
        await world.settle()
        assert (world.used("gpus"), world.reserved()) == ("2", ["u1"])
        world.server.delete_pod("u2")
        await world.settle()
        assert (world.used("gpus"), world.reserved()) == ("0", ["u1"])
        assert (await world.create(quota_pod("other", gpus=1))).refusals
        world.server.put_pod(quota_pod("u1", name="same", gpus=2))
        await world.settle()
        assert (world.used("gpus"), world.reserved()) == ("2", [])
        assert (await world.create(quota_pod("other", gpus=1))).refusals


async def test_pods_without_a_name_are_charged_each() -> None:
    """Nothing says that they are the same pod."""
    async with World(quota(hard={"gpus": 1})).running() as world:
        first, second = (
            msgspec.structs.replace(made, metadata=msgspec.structs.replace(made.metadata, name=""))
            for made in (quota_pod("u1", gpus=1), quota_pod("u2", gpus=1))
        )
        await world.create(first, stored=False)
        assert (await world.create(second)).refusals


async def test_a_create_of_another_name_keeps_room_no_longer_than_it_can_be_stored() -> None:
    """The API server's 34 s and etcd's 7 s, not more than a few seconds above."""
    assert 41 < RESERVATION_S <= 45
    async with World(quota(hard={"gpus": 1})).running() as world:
        await fail(world, "u1", name="pod-x7k2p")
        await world.settle()
        world.now_s += RESERVATION_S - 1
        await world.settle()
        assert (await world.create(quota_pod("u2", gpus=1))).refusals
        world.now_s += 2
        await world.settle()
        assert (await world.create(quota_pod("u2", gpus=1))).final
