"""Wait for the bind of the pod before, so that each pod sees the cards of the last.

kube-scheduler starts on the next pod while it binds the one before in the background. Judged
without that bind, the next pod would open a card that the last one opened as well, or end in
a conflict and a second of back-off. The bind is a moment away, so it is waited for.
"""

import asyncio
from contextlib import suppress
from typing import Final

WAIT_S: Final = 0.02
"""Chosen: the bind follows within some milliseconds; a pod that fails between score and bind
costs the next one this much, once."""


class ExpectedBind:
    """The pod that was scored last, if it is not bound yet."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        """Expect nothing.

        Args:
            wait_s: Longest wait.
        """
        self._wait_s = wait_s
        self._uid = ""
        self._arrived = asyncio.Event()
        self._arrived.set()

    def expect(self, uid: str) -> None:
        """The pod has its answer; its bind comes next."""
        self._uid = uid
        self._arrived = asyncio.Event()

    def arrived(self, uid: str) -> None:
        """The pod's bind is here and claims its cards before anybody who waits goes on."""
        if uid == self._uid:
            self._arrived.set()

    async def settled(self, uid: str) -> None:
        """Wait for the expected bind, unless it is this pod's own.

        Args:
            uid: The pod to be judged; seen again before its bind, it failed in between.
        """
        if uid == self._uid or self._arrived.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                await self._arrived.wait()
        self._arrived.set()
