"""Work that follows the objects of the API server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final, NoReturn

import structlog

from gpu_fraction.kube.resources import Resource
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.sandbox.apiserver.storage import Object, Storage

PAUSE_S: Final = 0.03
"""Between two rounds: chosen, several changes share one."""

AGAIN_S: Final = 0.5
"""Longest time between two rounds: chosen, for what waits for a time and not for a change."""

_log = structlog.get_logger()


def objects(storage: Storage, resource: Resource) -> list[Object]:
    """All objects of a resource, by namespace and name; not to be changed."""
    found = storage.snapshot(Kind(resource))
    return [found[key].body for key in sorted(found)]


async def each(found: Iterable[Object], work: Callable[[Object], Awaitable[None]]) -> None:
    """Do work for each object; one that fails keeps no other from its turn."""
    for one in found:
        try:
            await work(one)
        except Exception as e:  # noqa: BLE001 - nothing validates objects here: they may be anything
            _log.warning("object_failed", work=work.__qualname__, error=repr(e))


async def follow(storage: Storage, work: Callable[[], Awaitable[None]]) -> NoReturn:
    """Do work now and after each change, until cancelled; what fails is tried again."""
    seen = -1
    while True:
        if storage.revision == seen:
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    await storage.wait()
        seen = storage.revision
        try:
            await work()
        except Exception as e:  # noqa: BLE001 - see each
            _log.warning("round_failed", work=work.__qualname__, error=repr(e))
        await asyncio.sleep(PAUSE_S)
