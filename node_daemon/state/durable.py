"""Files that are written whole or not at all, and the lock that keeps one writer a node."""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from gpu_fraction.node_daemon.state.errors import LockedError, StoreError

_T = TypeVar("_T")


def lock(path: Path, content: bytes) -> IO[bytes]:
    """Take a file's lock, which is held until the file returned is closed; blocking.

    Args:
        path: The file; its directory is made where absent.
        content: What the file says from now on.

    Raises:
        LockedError: another process holds it.
        StoreError: the file cannot be used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as e:
        raise StoreError(f"{path} cannot be opened: {e.strerror}") from e
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(content)
        file.flush()
    except BlockingIOError as e:
        file.close()
        raise LockedError(
            f"another node daemon runs on this node and holds {path}: stop it first"
        ) from e
    except OSError as e:
        file.close()
        raise StoreError(f"{path} cannot be locked: {e.strerror}") from e
    return file


def write_durably(path: Path, content: bytes, *, fsync: Callable[[int], None] = os.fsync) -> None:
    """Replace a file whole; blocking.

    The temporary file lies in the same directory under a name that starts with a dot: a
    rename within one directory is atomic, and it is the only kind of move that the CDI
    library of container runtimes notices.

    Raises:
        StoreError: it could not be written; an earlier file of that name is unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            fsync(file.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fsync(directory)
        finally:
            os.close(directory)
    except OSError as e:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {e.strerror or e}") from e


async def run_to_end(work: Awaitable[_T]) -> _T:
    """Await work that must not be left half known.

    A write in a thread goes on when its waiter is cancelled. Here the waiter learns of the
    cancellation only once the write has ended, so that memory and disk agree.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise
