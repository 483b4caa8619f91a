"""Filter waits a moment for the bind of the pod that was scored last."""

import asyncio

from gpu_fraction.scheduler.endpoints import PendingBind


async def waits(pending: PendingBind, uid: str) -> bool:
    """True if filter waits before it judges the pod."""
    task = asyncio.create_task(pending.wait(uid), name="waiter")
    for _ in range(3):
        await asyncio.sleep(0)
    done = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return not done


async def test_a_scored_pods_bind_is_waited_for() -> None:
    """Until it arrives; other pods' binds do not count."""
    pending = PendingBind(wait_s=60)
    assert not await waits(pending, "b")
    pending.expect("a")
    assert await waits(pending, "b")
    pending.arrived("z")
    assert await waits(pending, "b")
    pending.arrived("a")
    assert not await waits(pending, "b")


async def test_a_pod_does_not_wait_for_itself() -> None:
    """A pod that is judged again before its bind has failed in between."""
    pending = PendingBind(wait_s=60)
    pending.expect("a")
    assert not await waits(pending, "a")


async def test_a_bind_that_never_comes_costs_one_short_wait() -> None:
    """The pod after the next does not wait."""
    pending = PendingBind(wait_s=0.01)
    pending.expect("a")
    await pending.wait("b")
    assert not await waits(pending, "c")


async def test_a_waiting_call_continues_when_the_bind_arrives() -> None:
    """Not before, and without the rest of the wait."""
    pending = PendingBind(wait_s=60)
    pending.expect("a")
    task = asyncio.create_task(pending.wait("b"), name="waiter")
    await asyncio.sleep(0)
    assert not task.done()
    pending.arrived("a")
    async with asyncio.timeout(5):
        await task
