"""Waiting for whichever of several things happens first."""

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["first"]


async def first(**waits: Coroutine[Any, Any, object]) -> str:
    """The name of the wait that returned first; the others are cancelled before it returns.

    A wait that raises, raises here.
    """
    tasks = {asyncio.create_task(wait, name=name): name for name, wait in waits.items()}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
    return min(tasks[task] for task in done)
