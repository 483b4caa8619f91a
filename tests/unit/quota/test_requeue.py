"""Who is woken when there is room, and that nobody is forgotten."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from gpu_fraction.domain import keys
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.resources import JOBS
from gpu_fraction.kube.retry import RetryPolicy
from gpu_fraction.kube.timestamps import time as api_time
from gpu_fraction.quota.requeue import MAX_OWNERS, Requeue
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault
from gpu_fraction.sandbox.apiserver.kinds import BUILT_IN
from tests.support.access import fixed

HASTY = RetryPolicy(Backoff(initial_s=0.01, cap_s=0.02))
JOB = {"apiVersion": "batch/v1", "kind": "Job", "spec": {}}
JOB_KIND = next(kind for kind in BUILT_IN if kind.resource is JOBS)


class Annotated(Meta, frozen=True, kw_only=True):
    """Identity and annotations."""

    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a Job."""

    metadata: Annotated


@asynccontextmanager
async def waking(server: ApiServer) -> AsyncIterator[tuple[Requeue, Client]]:
    """Somebody who wakes, in quick succession."""
    source = fixed(Access(server=server.url))
    async with connect(source, component="test", timeout_s=0.3, retry=HASTY) as client:
        requeue = Requeue(client, calm_s=0.01)
        task = asyncio.create_task(requeue.run())
        try:
            yield requeue, client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def block(server: ApiServer, *names: str) -> None:
    """Jobs whose pods were refused, the first named the longest ago."""
    for at, name in enumerate(names):
        meta = {"name": name, "namespace": "team", "uid": f"uid-{name}"}
        server.storage.put(JOB_KIND, ("team", name), JOB | {"metadata": meta})
        about = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": meta["uid"]}
        moment = datetime.now(UTC) - timedelta(seconds=len(names) - at)
        server.add(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{name}.1", "namespace": "team"},
                "involvedObject": about,
                "reason": "FailedCreate",
                "message": "exceeded GPU quota: q, ...",
                "lastTimestamp": api_time(moment),
            }
        )


async def woken(client: Client, *names: str) -> None:
    """Wait until all of them were woken."""
    async with asyncio.timeout(20):
        while True:
            found = (await client.list(JOBS.at(namespace="team"), Named)).items
            marked = {j.metadata.name for j in found if keys.QUOTA_FREED in j.metadata.annotations}
            if marked >= set(names):
                return
            await asyncio.sleep(0.02)


async def test_everybody_who_is_blocked_has_a_turn(server: ApiServer) -> None:
    """More than one round takes follow in the next, without another room."""
    names = [f"job-{at}" for at in range(2 * MAX_OWNERS + 1)]
    block(server, *names)
    async with waking(server) as (requeue, client):
        requeue.enqueue("team")
        await woken(client, *names)
        assert server.calls.count(("patch", "jobs.batch")) == len(names)


async def test_an_api_server_that_is_away_delays_the_waking_only(server: ApiServer) -> None:
    """The namespace stays on the list."""
    block(server, "a", "b", "c")
    server.faults.add(Fault(Answer(503), verb="list", resource="events", times=None))
    async with waking(server) as (requeue, client):
        requeue.enqueue("team")
        await asyncio.sleep(0.5)  # longer than a call takes to give up
        server.faults.clear()
        await woken(client, "a", "b", "c")


@pytest.mark.parametrize("code", [400, 403, 404, 409, 422, 500])
async def test_one_owner_that_cannot_be_woken_is_in_nobodys_way(
    server: ApiServer, code: int
) -> None:
    """Those behind it are woken, and it is not tried for ever."""
    block(server, "a", "b", "c")
    fault = Fault(Answer(code), verb="patch", resource="jobs.batch", name="a", times=None)
    server.faults.add(fault)
    async with waking(server) as (requeue, client):
        requeue.enqueue("team")
        await woken(client, "b", "c")
        await asyncio.sleep(0.1)
    assert server.calls.count(("patch", "jobs.batch")) == 3


async def test_an_owner_that_stays_away_is_in_nobodys_way(server: ApiServer) -> None:
    """What may be the whole server's trouble ends a round, and the next begins behind it."""
    block(server, "a", "b", "c")
    server.faults.add(
        Fault(Answer(503), verb="patch", resource="jobs.batch", name="a", times=None)
    )
    async with waking(server) as (requeue, client):
        requeue.enqueue("team")
        await woken(client, "b", "c")
        server.faults.clear()
        await woken(client, "a")
