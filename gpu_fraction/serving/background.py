"""Work that goes on for as long as a daemon serves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

Work = Callable[[], Coroutine[Any, Any, None]]
"""Runs until cancelled."""


@asynccontextmanager
async def background(*work: Work) -> AsyncIterator[None]:
    """Run work while the block runs; a failure of either ends both.

    Raises:
        ExceptionGroup: with what failed.
    """
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(run(), name=run.__qualname__) for run in work]
        yield
        for task in started:
            task.cancel()
