"""A value that changes, and tasks that wait for it."""

import asyncio
from typing import Generic, TypeVar

__all__ = ["Latest"]

_T = TypeVar("_T")


class Latest(Generic[_T]):
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
