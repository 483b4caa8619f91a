"""The order in which admission reads, waits and writes."""

import random
from typing import Any

from gpu_fraction.quota.admission import LONGEST_LINGER_S, Admission
from tests.builders.pods import quota_pod
from tests.support.quota_world import NOW, World, quota


class Record(random.Random):
    """What a replica does, in order: its calls to the API server, and its random pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []
        self.longest_s: list[float] = []

    async def call(self, name: str) -> None:
        """A call begins."""
        self.steps.append(name)

    def uniform(self, _least: float, most: float) -> float:
        """The shortest pause."""
        self.steps.append("pause")
        self.longest_s.append(most)
        return 0.0


def recorded(world: World, replica: int = 0) -> Record:
    """Record what one replica does; the others are as they were."""
    record = Record()
    found = world.replicas[replica]

    class Calls:
        """The server, with its calls written down."""

        def __getattr__(self, name: str) -> Any:
            async def call(*args: Any) -> Any:
                await record.call(name)
                return await getattr(world.server, name)(*args)

            return call

    found.admission = Admission(Calls(), found.cache, rng=record, now=lambda: NOW)
    return record


async def count(world: World) -> None:
    """Count the pods; no replica hears of it."""
    world.counter.watch.deliver(world.counter.take)
    await world.counter.controller.reconcile("team-a")


async def test_a_fresh_read_comes_before_a_refusal() -> None:
    """A watch may be late, so nobody is refused on what it shows."""
    world = World(quota(hard={"gpus": 1}))
    record = recorded(world)
    async with world.running():
        await world.create(quota_pod("u1", gpus=1))
        await world.settle()
        record.steps.clear()
        assert (await world.create(quota_pod("u2", gpus=1))).refusals
        assert record.steps == ["list_quotas"]


async def test_a_pod_that_fits_by_now_is_admitted_before_the_watch_shows_it() -> None:
    """The replica still sees a full budget; the fresh read shows the room."""
    world = World(quota(hard={"gpus": 1}))
    record = recorded(world)
    async with world.running():
        await world.create(quota_pod("u1", gpus=1))
        await world.settle()
        world.server.delete_pod("u1")
        await count(world)
        record.steps.clear()
        assert (await world.create(quota_pod("u2", gpus=1))).final
        assert record.steps == ["list_quotas", "write_reserved"]


async def test_a_pod_that_fits_is_admitted_without_a_read() -> None:
    """The write itself fails where the watch was late."""
    world = World(quota(hard={"gpus": 1}))
    record = recorded(world)
    async with world.running():
        await world.create(quota_pod("u1", gpus=1))
        assert record.steps == ["write_reserved"]


async def test_a_replica_that_met_another_writer_lets_it_write_first() -> None:
    """After a conflict it reads and repeats; before its next write it leaves the other a turn."""
    world = World(quota(hard={"gpus": 9}), replicas=2)
    record = recorded(world)
    async with world.running():
        await world.create(quota_pod("u1", gpus=1), replica=1)
        await world.create(quota_pod("u2", gpus=1))
        assert record.steps == ["write_reserved", "pause", "list_quotas", "write_reserved"]
        record.steps.clear()
        await world.create(quota_pod("u3", gpus=1))
        assert record.steps == ["pause", "write_reserved"]
        assert 0 < record.longest_s[-1] <= LONGEST_LINGER_S


async def test_a_replica_that_writes_alone_does_not_wait() -> None:
    """Nobody else needs a turn."""
    world = World(quota(hard={"gpus": 9}), replicas=2)
    record = recorded(world)
    async with world.running():
        for number in range(3):
            await world.create(quota_pod(f"u{number}", gpus=1))
        assert record.steps == ["write_reserved"] * 3
