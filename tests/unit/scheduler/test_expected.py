"""The next pod waits a moment for the bind of the last."""

import asyncio

from gpu_fraction.scheduler.expected import ExpectedBind


async def waits(expected: ExpectedBind, uid: str) -> bool:
    """Whether the pod is kept waiting."""
    task = asyncio.create_task(expected.settled(uid), name="waiter")
    for _ in range(3):
        await asyncio.sleep(0)
    done = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return not done


async def test_a_scored_pods_bind_is_waited_for() -> None:
    """Until it arrives; other pods' binds do not count."""
    expected = ExpectedBind(wait_s=60)
    assert not await waits(expected, "b")
    expected.expect("a")
    assert await waits(expected, "b")
    expected.arrived("z")
    assert await waits(expected, "b")
    expected.arrived("a")
    assert not await waits(expected, "b")


async def test_a_pod_does_not_wait_for_itself() -> None:
    """Judged again before its bind, it has failed in between."""
    expected = ExpectedBind(wait_s=60)
    expected.expect("a")
    assert not await waits(expected, "a")


async def test_a_bind_that_never_comes_costs_one_short_wait() -> None:
    """The pod after the next is not kept."""
    expected = ExpectedBind(wait_s=0.01)
    expected.expect("a")
    await expected.settled("b")
    assert not await waits(expected, "c")


async def test_who_waits_goes_on_when_the_bind_arrives() -> None:
    """Not before, and without the rest of the wait."""
    expected = ExpectedBind(wait_s=60)
    expected.expect("a")
    task = asyncio.create_task(expected.settled("b"), name="waiter")
    await asyncio.sleep(0)
    assert not task.done()
    expected.arrived("a")
    async with asyncio.timeout(5):
        await task
