"""What a pod costs a quota, and when it counts."""

import json

import pytest

from gpu_fraction.domain.amounts import KEYS
from gpu_fraction.domain.pod import Container
from gpu_fraction.quota.charge import charge
from gpu_fraction.quota.pods import facts_of
from tests.builders.pods import quota_container, quota_pod
from tests.support.quota_world import World, quota
from tests.support.recording_quota import ask, review


def cost(*containers: Container, init: tuple[Container, ...] = ()) -> dict[str, int]:
    """What a pod of these containers is charged."""
    return dict(charge(facts_of(quota_pod(containers=containers, init=init))).amounts)


def gpus(*containers: Container, init: tuple[Container, ...] = ()) -> int:
    """How many GPUs that is."""
    return cost(*containers, init=init).get("gpus", 0)


def test_the_message_names_the_containers_sorted() -> None:
    """Init containers too."""
    facts = facts_of(
        quota_pod(
            containers=[quota_container("z", gpus=1), quota_container("b")],
            init=[quota_container("a", gpus=1)],
        )
    )
    assert sorted(facts.containers) == ["a", "z"]


def test_a_gpu_of_an_init_container_alone_counts() -> None:
    """The pod holds it while it starts."""
    assert gpus(quota_container(), init=(quota_container("init", gpus=2),)) == 2


def test_a_gpu_of_a_container_counts_once() -> None:
    """Requests and limits are one amount."""
    both = Container(
        name="main",
        resources=quota_container(gpus=2).resources.__class__(
            limits={"nvidia.com/gpu": "2"}, requests={"nvidia.com/gpu": "2"}
        ),
    )
    assert gpus(both) == 2


def test_a_gpu_from_a_device_class_counts_like_any() -> None:
    """DRA's implicit extended resources are asked for by the same resource names."""
    assert cost(quota_container(nvidia__com="0", gpus=1)) == cost(quota_container(gpus=1))


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_finished_pod_uses_no_gpus(phase: str) -> None:
    """It is there, but its GPUs are free, and so is its place."""
    async with World(quota(hard={"gpus": 1})).running() as world:
        await world.create(quota_pod(gpus=1))
        await world.settle()
        world.change("u1", phase=phase)
        await world.settle()
        assert world.used("gpus") == "0"
        assert (await world.create(quota_pod("u2", gpus=1))).final


def test_cost_is_the_largest_init_container_or_all_containers() -> None:
    """Init containers of 4 and 2 beside containers of 1 and 2 come to 4."""
    init = quota_container("i1", gpus=4), quota_container("i2", gpus=2)
    assert gpus(quota_container("a", gpus=1), quota_container("b", gpus=2), init=init) == 4
    assert gpus(quota_container("a", gpus=4), quota_container("b", gpus=2), init=init) == 6


async def deleting(grace_s: int, later_s: float) -> str:
    """What is used some time after a pod began to be deleted."""
    async with World(quota(hard={"gpus": 1})).running() as world:
        await world.create(quota_pod(gpus=1))
        await world.settle()
        world.change(
            "u1",
            deletion_timestamp="2001-01-01T00:00:00Z",
            deletion_grace_period_seconds=grace_s,
        )
        await world.settle()
        world.now_s += later_s
        await world.settle()
        return world.used("gpus")


async def test_a_pod_past_its_deletion_deadline_does_not_count() -> None:
    """Its node is gone and will never confirm the deletion."""
    assert await deleting(30, 61) == "0"


async def test_a_pod_that_is_being_deleted_counts_until_then() -> None:
    """It still holds its GPU, whatever the clock on the wall says."""
    assert await deleting(30, 59) == "1"


def test_overhead_adds_no_gpus() -> None:
    """A runtime class's overhead is cpu and memory of the node, never of a GPU."""
    assert KEYS == ("cores", "memory", "gpus", "pods")
    assert cost(quota_container(cores=100, memory=1024))["memory"] == 1024


def test_pod_level_resources_leave_gpus_to_the_containers() -> None:
    """KEP-2837 knows cpu, memory and hugepages at pod level; GPUs stay with containers."""
    assert gpus(quota_container("a", gpus=1), quota_container("b", gpus=1)) == 2


async def test_use_is_the_sum_over_pods() -> None:
    """Two running pods are two, a finished one is none, classes are told apart."""
    research = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}
    quotas = quota("all", hard={"gpus": 9}), quota("some", hard={}, scopeSelector=research)
    async with World(*quotas).running() as world:
        world.server.put_pod(quota_pod("u1", gpus=1, phase="Running"))
        world.server.put_pod(quota_pod("u2", gpus=1, phase="Running", priority_class="x"))
        await world.settle()
        assert (world.used("gpus", "all"), world.used("gpus", "some")) == ("2", "1")
        world.change("u1", phase="Succeeded")
        await world.settle()
        assert (world.used("gpus", "all"), world.used("pods", "all")) == ("1", "1")


@pytest.mark.parametrize(
    ("operators", "name", "counted"),
    [
        ((("In", ["a", "b"]), ("NotIn", ["b"])), "a", True),
        ((("In", ["a", "b"]), ("NotIn", ["b"])), "b", False),
        ((("Exists", None), ("DoesNotExist", None)), "a", False),
        ((), None, True),
    ],
)
async def test_all_requirements_of_a_scope_must_hold(
    operators: tuple[tuple[str, list[str] | None], ...], name: str | None, *, counted: bool
) -> None:
    """They are ANDed."""
    expressions = [
        {"scopeName": "PriorityClass", "operator": o, **({"values": v} if v else {})}
        for o, v in operators
    ]
    selector = {"matchExpressions": expressions}
    async with World(quota(hard={"gpus": 9}, scopeSelector=selector)).running() as world:
        world.server.put_pod(quota_pod(gpus=1, priority_class=name))
        await world.settle()
        assert world.used("gpus") == ("1" if counted else "0")


async def test_a_resize_changes_no_gpus() -> None:
    """What a pod costs is worked out from its specification alone; a state changes nothing."""
    async with World(quota(hard={"gpus": 9})).running() as world:
        await world.create(quota_pod(gpus=2))
        await world.settle()
        world.change("u1", phase="Running")
        await world.settle()
        assert world.used("gpus") == "2"


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("notebook-create-validating", True),
        ("gen-create-validating", True),
        ("notebook-update-validating", False),
        ("notebook-update-resize-validating", False),
        ("notebook-delete-validating", False),
        ("x-connect-exec-validating", False),
        ("notebook-create-binding-validating", False),
    ],
)
async def test_only_new_pods_are_charged(name: str, *, asked: bool) -> None:
    """New pods only: no update, deletion, connection or other subresource."""
    request = review(name)
    if request.resource.resource not in {"pods", "bindings"}:
        pytest.skip("recorded for another resource")
    assert bool(await ask(request)) == asked
    assert json.dumps(name)
