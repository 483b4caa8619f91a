"""A memory budget holds where the controller does not know the size of GPUs."""

import msgspec

from gpu_fraction.domain.backends import BackendConfig
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.quota.cluster_cards import ClusterCards
from tests.builders.pods import quota_pod
from tests.support.quota_world import World, quota

UNSIZED = ClusterCards(BackendConfig(CardSizes()))


def world(**hard: object) -> World:
    """A webhook that is told the size of GPUs, and a controller that is not."""
    made = World(quota(hard=hard))
    made.counter.cluster = UNSIZED
    made.cluster = UNSIZED
    made.counter = made.new_counter()
    return made


async def test_pods_are_refused_where_the_used_memory_is_unknown() -> None:
    """The controller cannot count the first pod, so nobody knows what is left."""
    async with world(memory="80Gi").running() as made:
        assert (await made.create(quota_pod("w0", gpus=1))).final
        await made.settle()
        refused = await made.create(quota_pod("w1", gpus=1))
        assert refused.refusals[0].message == (
            "failed GPU quota: team-a: the used memory is unknown, because the memory size of "
            "GPUs in use is unknown to the controller; set --gpu-memory-mib or "
            "--gpu-memory-by-model of gpu-fraction controller as for the webhook"
        )
        state, reason, message = made.condition("Ready")
        assert (state, reason) == ("False", "AmountUnknown")
        assert "--gpu-memory-mib" in message


async def test_a_controller_that_learns_the_size_lets_pods_in_and_wakes_their_owners() -> None:
    """It is started anew with the setting."""
    async with world(memory="160Gi").running() as made:
        await made.create(quota_pod("w0", gpus=1))
        await made.settle()
        assert (await made.create(quota_pod("w1", gpus=1))).refusals
        made.cluster = None
        made.counter = made.new_counter()
        await made.settle()
        assert made.counter.rooms == ["team-a/team-a"]
        assert (await made.create(quota_pod("w1", gpus=1))).final


async def test_budgets_that_do_not_limit_memory_are_not_concerned() -> None:
    """Every amount that they limit is known."""
    async with world(gpus=2).running() as made:
        await made.create(quota_pod("w0", gpus=1))
        await made.settle()
        assert (await made.create(quota_pod("w1", gpus=1))).final


async def test_the_memory_of_one_model_fails_closed_too() -> None:
    """A pod that may land on the model is refused, one that may not is admitted."""
    async with world(models={"A100": {"memory": "999Gi"}}).running() as made:
        await made.create(quota_pod("w0", gpus=1))
        await made.settle()
        assert "used memory is unknown" in str(
            (await made.create(quota_pod("w1", gpus=1))).refusals
        )
        elsewhere = {"gpu-fraction": "1", "gpu-fraction.dev/gpu-model": "!A100"}
        assert (await made.create(quota_pod("w2", gpus=1, annotations=elsewhere))).final


async def test_a_budget_that_only_warns_warns() -> None:
    """As about any other pod that does not fit."""
    made = world(memory="80Gi")
    wire = made.server.quotas["team-a", "team-a"]
    spec = msgspec.structs.replace(wire.spec, enforcement="Warn")
    made.server.put_quota(msgspec.structs.replace(wire, spec=spec))
    async with made.running():
        await made.create(quota_pod("w0", gpus=1))
        await made.settle()
        outcome = await made.create(quota_pod("w1", gpus=1))
        assert not outcome.refusals
        assert outcome.warnings
