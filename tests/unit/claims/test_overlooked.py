"""Pods that wait for claims although a card has room."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.claims.metrics import OverlookedMetrics
from gpu_fraction.claims.overlooked import LOOK_AGAIN, Overlooked
from gpu_fraction.domain import dra
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.resources import DEVICE_CLASSES, PODS, RESOURCE_SLICES, Resource
from gpu_fraction.quota.pods import PodRecord
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault
from gpu_fraction.sandbox.apiserver.kinds import BUILT_IN
from tests.builders.pods import Raw
from tests.support.access import fixed

LACKS = "0/1 nodes are available: 1 cannot allocate all claims."
QUARTER = {dra.CORES: "250", dra.MEMORY_PPM: "250k"}
CLASS: Raw = {
    "apiVersion": "resource.k8s.io/v1",
    "kind": "DeviceClass",
    "metadata": {"name": dra.FRACTION_CLASS},
    "spec": {},
}


def capacity(whole: str, default: str | None = None) -> Raw:
    """A capacity that a claim without amounts takes whole."""
    return {"value": whole, "requestPolicy": {"default": default or whole}}


def cards(*names: str, **fields: Any) -> Raw:
    """A slice of shared cards."""
    offered = {
        dra.CORES: capacity("1k"),
        dra.MEMORY_PPM: capacity("1M"),
        dra.SLOTS: capacity("32", "1"),
    }
    device = {"allowMultipleAllocations": True, "capacity": offered} | fields
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": "node-slice"},
        "spec": {
            "driver": dra.DRIVER,
            "nodeName": "node",
            "pool": {"name": "node", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": name, **device} for name in names],
        },
    }


def claim(name: str, *given: str, count: int = 1, amounts: dict[str, str] | None = None) -> Raw:
    """The claim of the pod of the same name, with the cards that it was given."""
    asked = QUARTER if amounts is None else amounts
    exactly = {"deviceClassName": dra.FRACTION_CLASS, "count": count} | (
        {"capacity": {"requests": asked}} if asked else {}
    )
    taken = {dra.SLOTS: "1", dra.CORES: "1k", dra.MEMORY_PPM: "1M"} | asked
    results = [
        {"driver": dra.DRIVER, "pool": "node", "device": card, "consumedCapacity": taken}
        for card in given
    ]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
        "status": {"allocation": {"devices": {"results": results}}} if given else {},
    }


def waiting(name: str, message: str = LACKS, node: str | None = None) -> Raw:
    """A pod of which the scheduler said something."""
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": {
            **({"nodeName": node} if node else {}),
            "resourceClaims": [{"name": "gpu-fraction-0", "resourceClaimTemplateName": "t"}],
            "containers": [
                {
                    "name": "c",
                    "image": "i",
                    "resources": {
                        "claims": [{"name": "gpu-fraction-0"}],
                        "limits": {
                            f"deviceclass.resource.kubernetes.io/{dra.FRACTION_CLASS}": "1"
                        },
                    },
                }
            ],
        },
        "status": {"phase": "Pending", "conditions": [condition]},
    }


@asynccontextmanager
async def world(*objects: Raw) -> AsyncIterator[tuple[ApiServer, CollectorRegistry]]:
    """A server, and what looks after its waiting pods."""
    server = ApiServer()
    server.add_namespace("team-a")
    server.add(CLASS)
    add(server, *objects)
    registry = CollectorRegistry()
    async with server.serve():
        source = fixed(Access(server.url))
        async with connect(source, component="test") as client:
            overlooked = Overlooked(client, OverlookedMetrics(registry), first_look_s=0.05)
            pods = Reflector(client, PODS.at(), PodRecord)
            pods.subscribe(overlooked.pod)
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(one.run()) for one in (pods, overlooked)]
                yield server, registry
                for task in running:
                    task.cancel()


def stored(server: ApiServer, resource: Resource) -> list[Raw]:
    """The objects of a kind."""
    kind = next(kind for kind in BUILT_IN if kind.resource == resource)
    return [one.copy() for one in server.storage.snapshot(kind).values()]


def add(server: ApiServer, *objects: Raw) -> None:
    """Add objects; a claim belongs to the pod of its name, whose uid the server chose."""
    server.add(*(one for one in objects if one["kind"] != "ResourceClaim"))
    uids = {one["metadata"]["name"]: one["metadata"]["uid"] for one in stored(server, PODS)}
    for one in objects:
        if one["kind"] == "ResourceClaim":
            name = one["metadata"]["name"]
            owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uids.get(name, name)}
            server.add(one | {"metadata": one["metadata"] | {"ownerReferences": [owner]}})


def looked(server: ApiServer) -> str | None:
    """When the scheduler was made to look again."""
    (found,) = stored(server, DEVICE_CLASSES)
    text: str | None = (found["metadata"].get("annotations") or {}).get(LOOK_AGAIN)
    return text


async def made_to_look(server: ApiServer, registry: CollectorRegistry) -> None:
    """Wait until the scheduler was made to look, once."""
    async with asyncio.timeout(10):
        while looked(server) is None:
            await asyncio.sleep(0.01)
    assert registry.get_sample_value("gpu_fraction_claims_looks_again_total") == 1


FULL = [claim(f"{card}-{i}", card) for i in range(4) for card in ("gpu-0", "gpu-1")]


@pytest.mark.parametrize(
    ("asking", "held"),
    [
        (claim("late"), FULL[1:]),
        (claim("late", amounts={}), [c for c in FULL if "gpu-0" not in str(c)]),
        (claim("late", count=2), FULL[2:]),
    ],
)
async def test_the_scheduler_looks_again_where_there_is_room(asking: Raw, held: list[Raw]) -> None:
    """A quarter, a whole card, and a quarter on each of two cards."""
    async with world(cards("gpu-0", "gpu-1"), *held, asking, waiting("late")) as (server, counted):
        await made_to_look(server, counted)


@pytest.mark.parametrize(
    ("objects", "why"),
    [
        ([cards("gpu-0", "gpu-1"), *FULL, claim("late"), waiting("late")], "no room"),
        ([cards("gpu-0"), claim("late", count=2), waiting("late")], "one card of two"),
        ([cards("gpu-0"), claim("late"), waiting("late", "0/1: 1 Insufficient cpu.")], "no cpu"),
        ([cards("gpu-0"), claim("late"), waiting("late", node="node")], "bound"),
        ([cards("gpu-0"), claim("late", "gpu-0"), waiting("late")], "allocated"),
        (
            [cards("gpu-0", taints=[{"key": "sick", "effect": "NoSchedule"}]), claim("late")]
            + [waiting("late")],
            "a sick card",
        ),
        (
            [cards("gpu-0", allowMultipleAllocations=False), claim("late"), waiting("late")],
            "a card that is not shared",
        ),
    ],
)
async def test_the_scheduler_is_left_alone(objects: list[Raw], why: str) -> None:
    """Where it is right, its queue is not tried again."""
    async with world(*objects) as (server, _):
        await asyncio.sleep(0.3)
        assert looked(server) is None, why


async def test_a_look_that_fails_is_repeated() -> None:
    """A server that refuses once is asked again when the pod has waited as long again."""
    objects = cards("gpu-0"), claim("late"), waiting("late")
    async with world() as (server, counted):
        server.faults.add(
            Fault(Answer(403, "no right"), verb="list", resource=RESOURCE_SLICES.qualified)
        )
        add(server, *objects)
        await made_to_look(server, counted)
