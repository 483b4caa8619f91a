"""The allocations on disk: one small file for each.

A file is replaced whole (temporary file, fsync, rename, fsync of the directory), so that a
crash leaves the old or the new one. What cannot be read back for certain is set aside, never
trusted and never fatal.
"""

import asyncio
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from gpu_fraction.domain import formats
from gpu_fraction.node_daemon.state.allocation import Allocation, ContainerKey, Nonce, Token
from gpu_fraction.node_daemon.state.durable import run_to_end, write_durably
from gpu_fraction.node_daemon.state.errors import Reason, Refusal, StoreError

VERSION: Final = 1
SUFFIX: Final = ".json"
ASIDE: Final = "set-aside"

WRITERS: Final = 4
"""Threads that write: chosen, so that the fsyncs of a burst wait beside each other. They are the
store's own: the kubelet admits no pod while it waits for an answer, and an answer waits for
nothing but the disk."""

_log = structlog.get_logger()


class _File(msgspec.Struct, frozen=True):
    v: Literal[1]
    crc32: int
    allocation: msgspec.Raw


_FILE: Final = msgspec.json.Decoder(_File)
_ALLOCATION: Final = msgspec.json.Decoder(Allocation)


class AllocationStore:
    """All allocations of this node, in memory as on disk.

    Threads touch the files alone. What is in memory changes on the event loop, so a reader there
    that does not wait sees one state.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._allocations: dict[Nonce, Allocation] = {}
        self._sequence = 0
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="allocations")

    def close(self, *, wait: bool = False) -> None:
        """End the threads once they have written what they were given; may wait for that."""
        self._writers.shutdown(wait=wait)

    def load(self) -> int:
        """Read the directory, which is made where absent; blocking.

        Returns:
            How many files were set aside.

        Raises:
            StoreError: the directory can be neither read nor made.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            names = sorted(self._directory.iterdir())
        except OSError as e:
            raise StoreError(f"state directory {self._directory}: {e.strerror}") from e
        aside = 0
        for path in names:
            if path.suffix != SUFFIX:
                if path.is_file():
                    path.unlink(missing_ok=True)
                continue
            try:
                allocation = _decode(path)
            except (ValueError, OSError) as e:
                aside += 1
                self._set_aside(path, str(e))
                continue
            self._allocations[allocation.nonce] = allocation
            self._sequence = max(self._sequence, allocation.sequence)
        return aside

    def __iter__(self) -> Iterator[Allocation]:
        return iter(tuple(self._allocations.values()))

    def __len__(self) -> int:
        return len(self._allocations)

    def get(self, nonce: Nonce) -> Allocation | None:
        """The allocation of that name."""
        return self._allocations.get(nonce)

    def of_token(self, token: Token) -> tuple[Allocation, ...]:
        """Every allocation that was answered for a token, the latest last."""
        found = (a for a in self._allocations.values() if a.token == token)
        return tuple(sorted(found, key=lambda a: a.sequence))

    def of_container(self, key: ContainerKey) -> tuple[Allocation, ...]:
        """Every allocation bound to a container."""
        return tuple(
            a for a in self._allocations.values() if a.binding is not None and a.binding.key == key
        )

    def next_sequence(self) -> int:
        """A number higher than any given before; never given twice, not even after a failure."""
        self._sequence += 1
        return self._sequence

    async def put(self, allocation: Allocation) -> None:
        """Write an allocation, durably, before it is visible here.

        Raises:
            StoreError: it could not be written; memory still shows what was there before.
        """
        await run_to_end(self._put(allocation))

    async def keep(self, allocation: Allocation) -> None:
        """``put``, for a call of the kubelet, which is told why it failed.

        Raises:
            Refusal: it could not be written.
        """
        try:
            await self.put(allocation)
        except StoreError as e:
            raise Refusal(Reason.STATE_UNWRITABLE, str(e)) from e

    async def _put(self, allocation: Allocation) -> None:
        raw = msgspec.json.encode(allocation)
        content = msgspec.json.encode(
            _File(v=VERSION, crc32=zlib.crc32(raw), allocation=msgspec.Raw(raw))
        )
        await self._in_thread(partial(write_durably, self._path(allocation.nonce), content))
        self._allocations[allocation.nonce] = allocation

    async def remove(self, nonce: Nonce) -> None:
        """Delete an allocation, if it exists.

        Raises:
            StoreError: the file could not be removed; it is still remembered.
        """
        await run_to_end(self._remove(nonce))

    async def _remove(self, nonce: Nonce) -> None:
        path = self._path(nonce)
        try:
            await self._in_thread(partial(path.unlink, missing_ok=True))
        except OSError as e:
            raise StoreError(f"{path.name} cannot be removed: {e.strerror}") from e
        self._allocations.pop(nonce, None)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writers, work)

    def _path(self, nonce: Nonce) -> Path:
        return self._directory / f"{nonce}{SUFFIX}"

    def _set_aside(self, path: Path, why: str) -> None:
        _log.error("allocation_set_aside", file=path.name, why=why)
        with suppress(OSError):
            aside = self._directory / ASIDE
            aside.mkdir(exist_ok=True)
            path.replace(aside / f"{path.name}.{path.stat().st_mtime_ns}")


def _decode(path: Path) -> Allocation:
    """Read one file.

    Raises:
        ValueError: not what this version writes under that name.
        OSError: unreadable.
    """
    content = path.read_bytes()
    try:
        file = _FILE.decode(content)
    except msgspec.MsgspecError as e:
        raise ValueError(formats.other_version(content, VERSION) or str(e)) from e
    if zlib.crc32(file.allocation) != file.crc32:
        raise ValueError("checksum differs")
    allocation = _ALLOCATION.decode(file.allocation)
    if allocation.nonce != path.name.removesuffix(SUFFIX):
        raise ValueError(f"holds allocation {allocation.nonce!r}")
    return allocation
