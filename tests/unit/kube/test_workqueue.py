"""Every key that is added is looked at afterwards, by one worker at a time."""

import asyncio
import random
from itertools import pairwise

import pytest

from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.errors import LeaseLostError, UnavailableError
from gpu_fraction.kube.workqueue import WorkQueue

QUICK = Backoff(initial_s=0.01, cap_s=0.04, jitter=0.0)


class Observer:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.ends: list[bool] = []

    def started(self, waited_s: float) -> None:
        """Remember how long a key waited."""
        self.waits.append(waited_s)

    def finished(self, duration_s: float, *, failed: bool) -> None:
        """Remember how a key fared."""
        assert duration_s >= 0
        self.ends.append(failed)


async def test_a_key_waits_only_once() -> None:
    """Many changes of one object are one look."""
    queue: WorkQueue[str] = WorkQueue()
    for key in "aabacb":
        queue.add(key)
    assert len(queue) == 3
    assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]


async def test_a_change_during_the_work_leads_to_another_look() -> None:
    """It is not lost, and not begun before the first is done."""
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"


async def test_of_several_times_the_earliest_counts() -> None:
    """A later time does not put a key off, an earlier one brings it forward."""
    queue: WorkQueue[str] = WorkQueue()
    loop = asyncio.get_running_loop()
    began = loop.time()
    queue.add_after("a", 5.0)
    queue.add_after("a", 0.02)
    queue.add_after("a", 9.0)
    queue.add_after("b", 0.0)
    assert await queue.get() == "b"
    assert await queue.get() == "a"
    assert 0.02 <= loop.time() - began < 4.0
    queue.done("a")
    queue.add_after("a", 60.0)
    queue.add("a")
    assert await queue.get() == "a"


async def test_failures_come_back_after_growing_waits() -> None:
    """10, 20, 40 ms; success forgets them."""
    observer = Observer()
    queue: WorkQueue[str] = WorkQueue(retry=QUICK, observer=observer)
    loop = asyncio.get_running_loop()
    times: list[float] = []
    done = asyncio.Event()

    async def reconcile(_: str) -> None:
        times.append(loop.time())
        if len(times) < 4:
            raise UnavailableError("not yet")
        done.set()

    queue.add("a")
    run = asyncio.create_task(queue.run(reconcile))
    async with asyncio.timeout(5):
        await done.wait()
    await asyncio.sleep(0.01)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    gaps = [later - earlier for earlier, later in pairwise(times)]
    slack = 0.001  # the event loop may be early by the resolution of its clock
    assert all(gap + slack >= wait for gap, wait in zip(gaps, (0.01, 0.02, 0.04), strict=True))
    assert observer.ends == [True, True, True, False]


@pytest.mark.parametrize("error", [KeyError("bug"), TimeoutError(), UnavailableError("x")])
async def test_one_key_that_fails_does_not_stop_the_others(error: Exception) -> None:
    """Whatever is wrong with one object, the rest is looked after."""
    queue: WorkQueue[str] = WorkQueue(retry=Backoff(initial_s=60.0))
    seen: list[str] = []
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        seen.append(key)
        if key == "bad":
            raise error
        done.set()

    queue.add("bad")
    queue.add("good")
    run = asyncio.create_task(queue.run(reconcile))
    async with asyncio.timeout(5):
        await done.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert seen == ["bad", "good"]


async def test_a_look_that_hangs_has_a_deadline() -> None:
    """The worker is free again for the next key."""
    queue: WorkQueue[str] = WorkQueue(retry=Backoff(initial_s=60.0))
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        if key == "hangs":
            await asyncio.sleep(3600)
        done.set()

    queue.add("hangs")
    queue.add("next")
    run = asyncio.create_task(queue.run(reconcile, timeout_s=0.05))
    async with asyncio.timeout(5):
        await done.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_a_lost_lease_ends_the_work() -> None:
    """It concerns no single key, so it is not tried again here."""
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")

    async def reconcile(_: str) -> None:
        raise LeaseLostError("x")

    with pytest.raises(ExceptionGroup) as caught:
        await queue.run(reconcile, workers=3)
    assert caught.group_contains(LeaseLostError)


async def test_no_change_is_missed_and_no_key_has_two_workers() -> None:
    """A random storm of adds, failures and slow work: every add is followed by a start."""
    rng = random.Random(3)
    queue: WorkQueue[int] = WorkQueue(retry=QUICK)
    clock = 0
    added: dict[int, int] = {}
    started: dict[int, int] = {}
    working: set[int] = set()

    async def reconcile(key: int) -> None:
        nonlocal clock
        assert key not in working
        working.add(key)
        clock += 1
        started[key] = clock
        await asyncio.sleep(rng.random() * 0.003)
        working.discard(key)
        if rng.random() < 0.3:
            raise UnavailableError("now and then")

    run = asyncio.create_task(queue.run(reconcile, workers=4))
    for _ in range(300):
        key = rng.randrange(6)
        clock += 1
        added[key] = clock
        queue.add(key)
        if rng.random() < 0.5:
            await asyncio.sleep(rng.random() * 0.002)
    async with asyncio.timeout(5):
        while any(started.get(key, 0) < at for key, at in added.items()):
            await asyncio.sleep(0.01)
    assert not run.done()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
