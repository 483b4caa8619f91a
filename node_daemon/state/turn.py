"""The turn of one daemon of a node to work, which is the lock of the state directory."""

import asyncio
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import structlog

from gpu_fraction.node_daemon.state import durable
from gpu_fraction.node_daemon.state.durable import run_to_end
from gpu_fraction.node_daemon.state.errors import LockedError

LOCK: Final = "node-daemon.lock"
"""File of the state directory that the one daemon that works holds locked; it says where that
daemon serves the kubelet."""

POLL_S: Final = 0.02
"""Pause between two looks at the lock of another daemon. Chosen: a wait in the kernel cannot be
cancelled, and the look is one system call."""

_log = structlog.get_logger()


class Turn:
    """Held from ``wait`` on to the end of the block, or of the process.

    Args:
        state: The state directory.
        socket: Where this daemon serves the kubelet, for those who wait meanwhile; empty where
            they could not use it.
        waits: Whether this daemon may wait for another one's end.
    """

    def __init__(self, state: Path, socket: str, *, waits: bool) -> None:
        self._path = state / LOCK
        self._socket = socket
        self._waits = waits
        self._file: IO[bytes] | None = None
        self.begun = asyncio.Event()
        """Set by its daemon once it can work."""

    async def take(self) -> None:
        """Take the turn now, where nobody has it.

        Raises:
            LockedError: another daemon has it, and this one may not wait, or has the same socket.
            StoreError: the lock cannot be used.
        """
        try:
            await run_to_end(asyncio.to_thread(self._take))
        except LockedError as e:
            if not self._waits or await self._told() == self._socket:
                raise
            _log.info("waits_for_its_turn", why=str(e))

    def _take(self) -> None:
        self._file = durable.lock(self._path, self._socket.encode())

    async def wait(self) -> None:
        """Have the turn, once no other daemon has it.

        Raises:
            StoreError: the lock cannot be used.
        """
        while self._file is None:
            try:
                await run_to_end(asyncio.to_thread(self._take))
            except LockedError:
                await asyncio.sleep(POLL_S)

    async def predecessor(self) -> str:
        """The socket of another daemon that has the turn; empty where none is known."""
        told = "" if self._file is not None else await self._told()
        return "" if told == self._socket else told

    async def _told(self) -> str:
        try:
            return await asyncio.to_thread(partial(self._path.read_text, errors="replace"))
        except OSError:
            return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
