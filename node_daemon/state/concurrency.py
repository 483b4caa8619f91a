"""Waiting between tasks of one event loop."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)


async def first_completed(**waits: Coroutine[Any, Any, object]) -> str:
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


class Observable(Generic[_T]):
    """The latest value of something, absent at first."""

    def __init__(self, value: _T | None = None) -> None:
        self.value = value
        self._changed = asyncio.Event()

    def set(self, value: _T) -> None:
        """Replace the value; waiters of a change wake where it differs."""
        if value != self.value:
            self.value = value
            self._changed.set()
            self._changed = asyncio.Event()

    async def wait(self) -> _T:
        """The value, once there is one."""
        while self.value is None:
            await self._changed.wait()
        return self.value

    async def changed_from(self, value: _T) -> _T:
        """The value, once it differs from ``value``."""
        while self.value is None or self.value == value:
            await self._changed.wait()
        return self.value


class KeyedLocks(Generic[_K]):
    """Locks that are made when first wanted and dropped with their last holder."""

    def __init__(self) -> None:
        self._locks: dict[_K, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, key: _K) -> AsyncIterator[None]:
        """Hold the lock of ``key``."""
        lock, wanted = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, wanted + 1)
        try:
            async with lock:
                yield
        finally:
            lock, wanted = self._locks[key]
            if wanted == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, wanted - 1)
