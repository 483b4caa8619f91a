"""Quotas at admission: the cases of Kubernetes' own tests of ResourceQuota, with GPUs."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from gpu_fraction.domain.backends import BackendConfig
from gpu_fraction.domain.demand import ZERO
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.quota.admission import Settings
from gpu_fraction.quota.cluster_cards import ClusterCards
from gpu_fraction.quota.decision import ANY, NotReadyError, Required
from gpu_fraction.quota.pods import facts_of
from gpu_fraction.quota.wire import AmountsWire, SpecWire
from tests.builders.pods import quota_container, quota_pod
from tests.support.quota_world import World, quota
from tests.support.recording_quota import ask, review

ROOT = Path(__file__).parents[3]
CRD = ROOT / "deploy" / "crd" / "gpuquotas.yaml"


async def test_delete_is_admitted_without_a_write() -> None:
    """No budget is asked about a deletion."""
    assert await ask(review("notebook-delete-validating")) == []


@pytest.mark.parametrize(
    "name",
    [
        "notebook-create-binding-validating",
        "notebook-update-ephemeralcontainers-validating",
        "notebook-update-resize-validating",
        "notebook-update-status-validating",
    ],
)
async def test_subresources_are_ignored(name: str) -> None:
    """Neither bindings nor ephemeral containers, resizes or states of pods are charged."""
    assert await ask(review(name)) == []


async def test_a_pod_below_the_limit_is_admitted_and_counted_exactly() -> None:
    """The reservation, and after it the use, are exactly the pod's demand."""
    async with World(quota(hard={"cores": "2", "memory": "80Gi"})).running() as world:
        assert (await world.create(quota_pod(cores=250, memory=8192))).final
        (reservation,) = world.status().reserved or ()
        assert (reservation.cores, reservation.memory, reservation.gpus) == ("250m", "8Gi", "1")
        await world.settle()
        assert world.status().reserved is None
        assert world.status().used == AmountsWire(cores="250m", memory="8Gi", gpus="1", pods="1")


async def test_a_dry_run_is_judged_and_writes_nothing() -> None:
    """Below the limit it is admitted, above it refused; the quota is not written."""
    async with World(quota(hard={"cores": "1"})).running() as world:
        writes = world.server.writes
        assert (await world.create(quota_pod(cores=1000), dry_run=True)).final
        refused = await world.create(quota_pod("u2", cores=2000), dry_run=True)
        assert refused.refusals[0].message.startswith("exceeded GPU quota: team-a")
        assert world.server.writes == writes
        assert world.reserved() == []


async def test_an_update_is_not_charged() -> None:
    """GPU amounts cannot change on a living pod, so no update concerns a budget."""
    assert await ask(review("notebook-update-validating")) == []


async def test_an_update_that_lowers_use_lowers_nothing() -> None:
    """What is used is lowered by the count alone, never by a call to the webhook."""
    async with World(quota(hard={"cores": "1"})).running() as world:
        await world.create(quota_pod(cores=500))
        await world.settle()
        assert await ask(review("train-update-validating", operation="UPDATE")) == []
        assert world.used("cores") == "500m"


async def test_server_side_apply_of_a_new_pod_is_charged_in_full() -> None:
    """It arrives as a creation and is asked about like one."""
    request = review("ssa-create-validating")
    assert request.operation == "CREATE"
    assert await ask(request) == [(request.namespace, False)]


async def test_a_pod_above_the_limit_is_refused_with_the_exact_sentence() -> None:
    """Only the keys that do not fit, sorted, with what is asked, taken and allowed."""
    hard = {"cores": "4", "memory": "160Gi", "gpus": 8}
    async with World(quota(hard=hard)).running() as world:
        await world.create(quota_pod("u0", cores=2000, memory=156 * 1024))
        refused = await world.create(quota_pod("u1", cores=100, memory=8192))
        (only,) = refused.refusals
        assert only.message == (
            "exceeded GPU quota: team-a, requested: memory=8Gi, used: memory=0, "
            "reserved: memory=156Gi, limited: memory=160Gi"
        )
        await world.settle()
        refused = await world.create(quota_pod("u2", cores=2001, memory=8192))
        assert refused.refusals[0].message == (
            "exceeded GPU quota: team-a, requested: cores=2001m,memory=8Gi, "
            "used: cores=2,memory=156Gi, limited: cores=4,memory=160Gi"
        )
        assert len(refused.refusals[0].message) < 200


async def test_a_refusal_for_unknown_memory_names_the_containers() -> None:
    """A share of memory is no MiB where no GPU's size is known."""
    world = World(quota(hard={"memory": "10Gi"}), cluster=ClusterCards(BackendConfig(CardSizes())))
    async with world.running():
        both = [quota_container("a", gpus=1), quota_container("b", gpus=1)]
        refused = await world.create(quota_pod(containers=both))
        assert refused.refusals[0].message.startswith(
            "failed GPU quota: team-a: must specify memory for: a,b"
        )


async def test_a_quota_of_another_namespace_has_no_effect() -> None:
    """A full budget next door stops nobody here."""
    other = quota(namespace="team-b", hard={"cores": "0"})
    async with World(quota(hard={"cores": "1"}), other).running() as world:
        assert (await world.create(quota_pod(cores=1000))).final
        assert (await world.create(quota_pod("u2", cores=1, namespace="team-b"))).refusals


def scoped(operator: str, *values: str) -> dict[str, Any]:
    """A scope selector on priority classes."""
    expression: dict[str, Any] = {"scopeName": "PriorityClass", "operator": operator}
    if values:
        expression["values"] = list(values)
    return {"matchExpressions": [expression]}


async def test_of_two_scoped_quotas_only_the_matching_one_is_charged() -> None:
    """A research pod costs research only."""
    research = quota("research", hard={"cores": "1"}, scopeSelector=scoped("In", "research"))
    others = quota("others", hard={"cores": "1"}, scopeSelector=scoped("NotIn", "research"))
    async with World(research, others).running() as world:
        outcome = await world.create(quota_pod(cores=500, priority_class="research"))
        assert list(outcome.reservations) == ["research"]
        await world.settle()
        assert world.used("cores", "research") == "500m"
        assert world.used("cores", "others") == "0"


def test_no_update_can_move_a_pod_into_another_scope() -> None:
    """The one scope is the priority class, which the API server never lets change."""
    definition = YAML(typ="safe").load(CRD)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    selector = schema["properties"]["spec"]["properties"]["scopeSelector"]["properties"]
    requirement = selector["matchExpressions"]["items"]
    assert requirement["properties"]["scopeName"]["enum"] == ["PriorityClass"]
    assert "scopeName" in requirement["required"]


async def test_a_scoped_quota_ignores_pods_outside_its_scope() -> None:
    """Nothing is reserved and nothing refused."""
    only = quota(hard={"cores": "0"}, scopeSelector=scoped("Exists"))
    async with World(only).running() as world:
        outcome = await world.create(quota_pod(cores=500))
        assert outcome.final
        assert outcome.reservations == {}


async def test_a_pod_without_a_namespace_takes_the_namespace_of_the_request() -> None:
    """The object may leave its namespace out."""
    request = review("notebook-create-validating")
    body = json.loads(bytes(request.object))
    del body["metadata"]["namespace"]
    changed = review("notebook-create-validating", object=body)
    assert await ask(changed) == [(request.namespace, False)]


def test_negative_amounts_cost_nothing_and_give_nothing_back() -> None:
    """The API server refuses them; here they are no demand, never a negative one."""
    facts = facts_of(quota_pod(containers=[quota_container(nvidia__com="x", gpus=-3)]))
    assert facts.demand == ZERO


async def test_an_overdrawn_limit_blocks_no_pod_that_does_not_use_it() -> None:
    """Cores are overdrawn, and a pod that asks only for memory passes."""
    async with World(quota(hard={"cores": "1", "memory": "80Gi"})).running() as world:
        await world.create(quota_pod(cores=1000, memory=1024))
        await world.settle()
        world.server.put_quota(
            msgspec.structs.replace(
                world.server.quotas["team-a", "team-a"],
                spec=SpecWire(hard=AmountsWire(cores="500m", memory="80Gi")),
            )
        )
        await world.settle()
        assert world.condition("Exceeded")[0] == "True"
        only_memory = quota_container(gpu_fraction__dev__="", memory=1024)
        asked = await world.create(quota_pod("u2", containers=[only_memory]))
        assert asked.final
        assert (await world.create(quota_pod("u3", cores=1, memory=1))).refusals


def limited(*resources: str, classes: tuple[str, ...] = ()) -> Settings:
    """Settings that require quotas."""
    return Settings(required=Required(frozenset(resources), frozenset(classes)))


async def test_a_limited_resource_without_a_quota_is_refused() -> None:
    """Nobody uses memory where no quota allows it."""
    async with World(settings=limited("memory")).running() as world:
        refused = await world.create(quota_pod(cores=100, memory=1024))
        assert [r.message for r in refused.refusals] == [
            "insufficient GPU quota to consume: memory"
        ]


async def test_a_pod_that_does_not_use_the_limited_resource_is_admitted() -> None:
    """Only what is used must be covered, and pods without GPUs are nobody's business."""
    async with World(settings=limited("cores")).running() as world:
        assert (await world.create(quota_pod(memory=1024))).final
    async with World(settings=limited(ANY)).running() as world:
        assert (await world.create(quota_pod())).final
        assert (await world.create(quota_pod(cores=1))).refusals


async def test_a_covering_quota_admits_and_is_charged() -> None:
    """The quota names the resource."""
    world = World(quota(hard={"memory": "8Gi"}), settings=limited("memory"))
    async with world.running():
        outcome = await world.create(quota_pod(memory=1024))
        assert list(outcome.reservations) == ["team-a"]


async def test_one_of_several_quotas_covers() -> None:
    """It need not be all of them."""
    quotas = quota("a", hard={"cores": "4"}), quota("b", hard={"memory": "8Gi"})
    async with World(*quotas, settings=limited("memory")).running() as world:
        assert (await world.create(quota_pod(memory=1024))).final


async def test_a_quota_that_does_not_name_the_resource_does_not_cover() -> None:
    """There is a quota, but not for memory."""
    world = World(quota(hard={"cores": "4"}), settings=limited("memory"))
    async with world.running():
        assert (await world.create(quota_pod(memory=1024))).refusals


@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize("name", ["urgent", "batch", None])
@pytest.mark.parametrize("hard", ["1", "0"])
async def test_limited_priority_classes_need_a_quota(
    *, selected: bool, name: str | None, hard: str
) -> None:
    """A class that is limited needs a quota that selects it; others are unaffected."""
    found = [quota(hard={"cores": hard}, scopeSelector=scoped("In", "urgent"))] if selected else []
    async with World(*found, settings=limited(classes=("urgent",))).running() as world:
        outcome = await world.create(quota_pod(cores=500, priority_class=name))
        if name != "urgent":
            assert outcome.final
        elif not selected:
            assert outcome.refusals[0].message == (
                "insufficient GPU quota to match these scopes: [{PriorityClass In [urgent]}]"
            )
        else:
            assert bool(outcome.refusals) == (hard == "0")


async def test_a_pod_without_gpus_needs_no_quota() -> None:
    """A pod without GPUs passes where quotas are required."""
    async with World(settings=limited(ANY, "cores")).running() as world:
        assert (await world.create(quota_pod())).final


async def test_an_increase_needs_a_quota() -> None:
    """The first pod with GPUs in a namespace without a quota is refused."""
    async with World(settings=limited(ANY)).running() as world:
        refused = await world.create(quota_pod(gpus=1))
        assert refused.refusals[0].message.startswith("insufficient GPU quota")


async def test_a_decrease_needs_none() -> None:
    """Pods leave while the budget is overdrawn, and what they used comes back."""
    async with World(quota(hard={"cores": "1"})).running() as world:
        await world.create(quota_pod(cores=1000))
        await world.settle()
        world.server.delete_pod("u1")
        await world.settle()
        assert world.used("cores") == "0"
        assert world.counter.rooms


async def test_a_quota_that_was_never_counted_answers_later() -> None:
    """Not a refusal and no guess: the API server asks again."""
    world = World(quota(hard={"cores": "1"}))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(world.replicas[0].admission.run())
        await asyncio.sleep(0)
        with pytest.raises(NotReadyError, match="status unknown for GPU quota: team-a"):
            await world.create(quota_pod(cores=1))
        task.cancel()
