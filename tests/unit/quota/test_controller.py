"""The controller: its counts over the life of pods and quotas, and with several writers."""

import asyncio

import msgspec
import pytest

from gpu_fraction.domain.backends import BackendConfig
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.quota.charge import charge
from gpu_fraction.quota.cluster_cards import ClusterCards
from gpu_fraction.quota.ledger import Ledger, Reservation
from gpu_fraction.quota.pods import facts_of
from gpu_fraction.quota.state import amounts_wire, read, reservation_wire
from gpu_fraction.quota.wire import AmountsWire, SpecWire, StatusWire
from tests.builders.pods import quota_container, quota_pod
from tests.support.quota_world import World, quota


def edit(world: World, name: str = "team-a", **spec: object) -> None:
    """What ``kubectl edit`` does to a specification."""
    stored = world.server.quotas["team-a", name]
    wanted = msgspec.convert(spec, SpecWire)
    world.server.put_quota(msgspec.structs.replace(stored, spec=wanted))


async def test_status_hard_follows_spec_hard() -> None:
    """And pods are judged by the new limits only once they were counted for them."""
    async with World(quota(hard={"cores": "1"})).running() as world:
        edit(world, hard={"cores": "2", "models": {"A100": {"gpus": 1}}})
        await world.settle()
        hard = world.status().hard
        assert hard is not None
        assert (hard.cores, msgspec.to_builtins(hard.models)) == ("2", {"A100": {"gpus": "1"}})


async def test_an_unchanged_count_is_not_written() -> None:
    """Neither by a resync nor by a controller that has just started."""
    async with World(quota(hard={"cores": "1"})).running() as world:
        await world.create(quota_pod(cores=100))
        await world.settle()
        writes = world.server.writes
        world.server.put_pod(quota_pod("other", namespace="team-a"))
        await world.settle()
        world.counter = world.new_counter()
        await world.settle()
        assert world.server.writes == writes


async def test_status_names_what_cannot_be_counted_and_keeps_the_rest() -> None:
    """The condition Ready names the key; the known amounts are published."""
    world = World(
        quota(hard={"memory": "80Gi", "gpus": 4}), cluster=ClusterCards(BackendConfig(CardSizes()))
    )
    world.server.put_pod(quota_pod("u1", gpus=2))
    world.server.put_pod(quota_pod("u2", memory=1024))
    async with world.running():
        await world.settle()
        assert world.condition("Ready")[:2] == ("False", "AmountUnknown")
        assert "memory" in world.condition("Ready")[2]
        assert (world.used("gpus"), world.used("memory")) == ("3", "1Gi")
        assert world.status().hard == AmountsWire(memory="80Gi", gpus="4")


@pytest.mark.parametrize(
    ("operator", "values", "matching"),
    [
        ("In", ["a"], {"a"}),
        ("NotIn", ["a"], {"b", None}),
        ("Exists", None, {"a", "b"}),
        ("DoesNotExist", None, {None}),
    ],
)
async def test_priority_class_scopes_select_the_pods(
    operator: str, values: list[str] | None, matching: set[str | None]
) -> None:
    """In, NotIn, Exists, DoesNotExist."""
    expression = {"scopeName": "PriorityClass", "operator": operator}
    scope = {"matchExpressions": [expression | ({"values": values} if values else {})]}
    async with World(quota(hard={"gpus": 0}, scopeSelector=scope)).running() as world:
        refused = {
            name
            for name in ("a", "b", None)
            if (await world.create(quota_pod(f"u-{name}", gpus=1, priority_class=name))).refusals
        }
        assert refused == matching


async def test_a_quota_that_was_never_counted_comes_first() -> None:
    """It is counted at once, not at the next resync."""
    async with World().running() as world:
        world.server.put_pod(quota_pod(gpus=1))
        world.server.put_quota(quota(hard={"gpus": 2}))
        await world.settle()
        assert world.used("gpus") == "1"


async def test_a_new_quota_gets_its_status_at_once() -> None:
    """A running controller counts a new quota without being asked twice."""
    async with World().running() as world:
        task = asyncio.create_task(world.counter.controller.run())
        world.server.put_quota(quota(hard={"gpus": 2}))
        world.counter.watch.deliver(world.counter.take)
        world.counter.controller.enqueue("team-a")
        async with asyncio.timeout(5):
            while world.status().used is None:
                await asyncio.sleep(0)
        task.cancel()


async def test_use_follows_a_pod_from_creation_to_deletion() -> None:
    """Two GPUs are counted, others refused per key, and all come back in the end."""
    async with World(quota(hard={"gpus": 3, "memory": "100Gi", "pods": 2})).running() as world:
        small = ClusterCards(BackendConfig(CardSizes(16384)))
        assert small.cards_for(quota_pod(gpus=1), facts_of(quota_pod(gpus=1)))
        await world.create(quota_pod("u1", containers=[quota_container(gpus=0, memory=20480)]))
        await world.create(quota_pod("u2", memory=40960))
        await world.settle()
        assert (world.used("gpus"), world.used("memory")) == ("2", "60Gi")
        refused = await world.create(quota_pod("u3", memory=51200))
        assert "memory=50Gi" in refused.refusals[0].message
        assert "pods=1" in refused.refusals[0].message
        world.server.delete_pod("u1")
        world.server.delete_pod("u2")
        await world.settle()
        assert world.status().used == AmountsWire(cores="0", memory="0", gpus="0", pods="0")


async def test_quotas_with_opposite_scopes_divide_the_pods() -> None:
    """With and without a priority class: each pod is counted by exactly one."""
    exists, absent = (
        {"matchExpressions": [{"scopeName": "PriorityClass", "operator": o}]}
        for o in ("Exists", "DoesNotExist")
    )
    pair = (
        quota("with", hard={"gpus": 1}, scopeSelector=exists),
        quota("without", hard={"gpus": 1}, scopeSelector=absent),
    )
    async with World(*pair).running() as world:
        assert (await world.create(quota_pod("u1", gpus=1, priority_class="x"))).final
        assert (await world.create(quota_pod("u2", gpus=1))).final
        await world.settle()
        assert (world.used("gpus", "with"), world.used("gpus", "without")) == ("1", "1")


async def test_a_changed_or_deleted_quota_is_followed() -> None:
    """A larger budget admits at once, a deleted one stops counting and frees."""
    async with World(quota(hard={"gpus": 0})).running() as world:
        assert (await world.create(quota_pod(gpus=1))).refusals
        edit(world, hard={"gpus": 1})
        await world.settle()
        assert (await world.create(quota_pod(gpus=1))).final
        await world.settle()
        world.server.delete_quota("team-a")
        await world.settle()
        assert world.counter.rooms[-1] == "team-a/team-a"
        assert (await world.create(quota_pod("u2", gpus=9))).reservations == {}


async def test_a_status_that_others_wrote_is_reset() -> None:
    """The next count puts it right."""
    async with World(quota(hard={"gpus": 4})).running() as world:
        await world.create(quota_pod(gpus=1))
        await world.settle()
        stored = world.server.quotas["team-a", "team-a"]
        for wrong in (
            StatusWire(used=AmountsWire(gpus="77", cores="x"), observed_generation=1),
            StatusWire(used=AmountsWire(gpus="-1"), observed_generation=1),
            StatusWire(),
        ):
            world.server.put_quota(msgspec.structs.replace(stored, status=wrong))
            await world.settle()
            assert world.used("gpus") == "1"


async def test_a_second_pod_of_one_class_does_not_fit() -> None:
    """Another class is not charged to it."""
    scope = {
        "matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["p1", "p2"]}
        ]
    }
    async with World(quota(hard={"pods": 1}, scopeSelector=scope)).running() as world:
        assert (await world.create(quota_pod("u1", gpus=1, priority_class="p1"))).final
        assert (await world.create(quota_pod("u2", gpus=1, priority_class="p2"))).refusals
        assert (await world.create(quota_pod("u3", gpus=1, priority_class="p3"))).final


async def test_gpus_of_one_model_are_counted_separately() -> None:
    """The custom count here is that of a GPU model."""
    cluster = ClusterCards(BackendConfig(CardSizes(None, {"A100-80GB": 81920, "T4": 15360})))
    hard = {"gpus": 9, "models": {"A100": {"gpus": 1, "memory": "80Gi"}}}
    async with World(quota(hard=hard), cluster=cluster).running() as world:
        anywhere = quota_pod("u1", gpus=1)
        assert (await world.create(anywhere)).final
        await world.settle()
        models = world.status().used
        assert models is not None
        assert msgspec.to_builtins(models.models)["A100"]["gpus"] == "1"
        refused = await world.create(quota_pod("u2", gpus=1))
        assert "A100.gpus=1" in refused.refusals[0].message
        elsewhere = {"gpu-fraction": "1", "gpu-fraction.dev/gpu-model": "!A100"}
        assert (await world.create(quota_pod("u3", gpus=1, annotations=elsewhere))).final


async def test_two_replicas_admit_ten_of_a_hundred_creates_for_ten_gpus() -> None:
    """Exactly ten pods, and every other one is told why."""
    async with World(quota(hard={"gpus": 10}), replicas=2).running() as world:
        outcomes = await asyncio.gather(
            *(world.create(quota_pod(f"u{i}", gpus=1), replica=i % 2) for i in range(100))
        )
        refused = [o for o in outcomes if o.refusals]
        assert len(refused) == 90
        assert len(world.server.pods) == 10
        (message,) = {o.refusals[0].message for o in refused}
        assert message == (
            "exceeded GPU quota: team-a, requested: gpus=1, used: gpus=0, reserved: gpus=10, "
            "limited: gpus=10"
        )
        await world.settle()
        assert (world.used("gpus"), world.reserved()) == ("10", [])


async def test_the_same_review_twice_is_charged_once() -> None:
    """Whether it comes again at once, elsewhere, or at the same time."""
    async with World(quota(hard={"gpus": 1}), replicas=2).running() as world:
        same = [world.create(quota_pod(gpus=1), replica=i % 2, stored=False) for i in range(6)]
        assert all(o.final for o in await asyncio.gather(*same))
        assert (await world.create(quota_pod(gpus=1))).final
        await world.settle()
        assert world.used("gpus") == "1"
        assert world.reserved() == []


async def test_a_create_that_fails_later_leaves_no_phantom() -> None:
    """AlreadyExists, another webhook, ResourceQuota: the reservation goes when it expires."""
    async with World(quota(hard={"gpus": 1})).running() as world:
        await world.create(quota_pod(gpus=1), stored=False)
        await world.settle()
        assert world.reserved() == ["u1"]
        assert (await world.create(quota_pod("u2", gpus=1))).refusals
        world.now_s += 61
        await world.settle()
        assert world.reserved() == []
        assert world.counter.rooms
        assert (await world.create(quota_pod("u2", gpus=1))).final


async def test_a_controller_with_a_late_cache_keeps_live_reservations() -> None:
    """Restarted before the pod appears in its watch, even long after, it keeps the reservation."""
    async with World(quota(hard={"gpus": 1})).running() as world:
        late = world.new_counter()
        await world.create(quota_pod(gpus=1))
        for quota_only in (True, False):
            for _, old, new in world.server.changes:
                if quota_only and hasattr(new, "spec") and hasattr(new.spec, "hard"):
                    late.take(old, new)
            await late.controller.reconcile("team-a")
            assert world.reserved() == ["u1"]
            world.now_s += 30
        world.now_s += 60
        await late.controller.reconcile("team-a")  # expired: a list shows that the pod lives
        assert (world.used("gpus"), world.reserved()) == ("1", [])
        lagging = world.new_counter()
        lagging.view.change(world.server.pods["u1"], None)
        lagging.watch.version = "1"
        await lagging.controller.reconcile("team-a")
        assert world.used("gpus") == "1"


@pytest.mark.parametrize("how", ["evicted", "node lost"])
async def test_evicted_and_lost_pods_are_released(how: str) -> None:
    """An evicted pod has failed; one on a lost node is past its deletion deadline."""
    async with World(quota(hard={"gpus": 1})).running() as world:
        await world.create(quota_pod(gpus=1))
        await world.settle()
        if how == "evicted":
            world.change("u1", phase="Failed")
        else:
            world.change("u1", deletion_timestamp="x", deletion_grace_period_seconds=30)
            await world.settle()
            world.now_s += 61
        await world.settle()
        assert world.used("gpus") == "0"


def test_sidecars_count_with_the_init_containers_after_them() -> None:
    """A sidecar of 1 declared before an init container of 2 makes 3; declared after it, 2."""
    sidecar = quota_container("side", gpus=1, restart_policy="Always")
    init = quota_container("init", gpus=2)
    for order, expected in (((sidecar, init), 3), ((init, sidecar), 2)):
        facts = facts_of(quota_pod(containers=[quota_container("main")], init=order))
        assert charge(facts).amounts["gpus"] == expected


async def test_a_limit_below_its_use_evicts_no_pod() -> None:
    """Pods stay, new ones are refused, the condition Exceeded says so."""
    async with World(quota(hard={"gpus": 2})).running() as world:
        await world.create(quota_pod("u1", gpus=2))
        await world.settle()
        edit(world, hard={"gpus": 1})
        await world.settle()
        assert list(world.server.pods) == ["u1"]
        state, reason, message = world.condition("Exceeded")
        assert (state, reason) == ("True", "AboveHard")
        assert message.startswith("used: gpus=2, limited: gpus=1; running pods continue")
        assert (await world.create(quota_pod("u2", gpus=1))).refusals


async def test_warn_and_audit_admit_and_still_count() -> None:
    """The pod is admitted above the budget; a warning, or only a note, is all."""
    for enforcement in ("Warn", "Audit"):
        async with World(quota(hard={"gpus": 0}, enforcement=enforcement)).running() as world:
            outcome = await world.create(quota_pod(gpus=1))
            assert not outcome.refusals
            assert bool(outcome.warnings) == (enforcement == "Warn")
            assert bool(outcome.notes) == (enforcement == "Audit")
            await world.settle()
            assert world.used("gpus") == "1"
            assert world.condition("Exceeded")[0] == "True"


async def test_bounds_of_single_pods() -> None:
    """Larger and smaller pods are refused with the bound."""
    bounds = {"max": {"cores": "1"}, "min": {"memory": "1Gi"}}
    async with World(quota(hard={}, perPod=bounds)).running() as world:
        assert (await world.create(quota_pod("u1", cores=1000, memory=1024))).final
        large = await world.create(quota_pod("u2", cores=2000, memory=1024))
        assert large.refusals[0].message == (
            "outside GPU quota: team-a, requested: cores=2, maximum per pod: cores=1"
        )
        small = await world.create(quota_pod("u3", cores=500, memory=512))
        assert "minimum per pod: memory=1Gi" in small.refusals[0].message


def test_a_reservation_older_than_a_model_limit_is_charged_to_the_model() -> None:
    """Nobody knows which model the pod will get, so it may be that one."""
    wire = quota(hard={"models": {"A100": {"gpus": 2}}})
    reserved = reservation_wire("u1", Reservation({"gpus": 2, "cores": 2000}, ""))
    status = StatusWire(
        used=amounts_wire({"gpus": 0, "A100.gpus": 0}),
        reserved=[reserved],
        observed_generation=1,
    )
    found = read(msgspec.structs.replace(wire, status=status)).ledger
    assert isinstance(found, Ledger)
    assert found.taken["A100.gpus"] == 2
