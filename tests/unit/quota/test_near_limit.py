"""The condition NearLimit."""

import pytest

from tests.builders.pods import quota_pod
from tests.support.quota_world import World, quota


@pytest.mark.parametrize(("gpus", "near"), [(89, False), (90, True), (100, True)])
@pytest.mark.parametrize("stored", [True, False])
async def test_near_limit_begins_at_90_percent(*, gpus: int, near: bool, stored: bool) -> None:
    """Of what is used and reserved; the message names the limit."""
    async with World(quota(hard={"gpus": 100, "pods": 50})).running() as world:
        await world.create(quota_pod(gpus=gpus), stored=stored)
        world.server.put_pod(quota_pod("other"))
        await world.settle()
        assert world.condition("NearLimit") == (
            ("True", "AlmostFull", "90% or more is taken of: gpus")
            if near
            else ("False", "RoomLeft", "less than 90% is taken of every limit")
        )


async def test_a_limit_of_zero_is_never_near() -> None:
    """It is no budget, it keeps a kind of GPU out."""
    async with World(quota(hard={"gpus": 0})).running() as world:
        assert world.condition("NearLimit")[0] == "False"
