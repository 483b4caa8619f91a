"""Composes and writes the CDI file of a slice: cards, environment and isolation."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

import structlog

from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.node_daemon.isolation.engine import ContainerEdits
from gpu_fraction.node_daemon.isolation.node import NodeIsolation
from gpu_fraction.node_daemon.slices import host_spec
from gpu_fraction.node_daemon.slices.cdi import SliceFiles, compose
from gpu_fraction.node_daemon.slices.host_spec import HostSpec, HostSpecReader
from gpu_fraction.node_daemon.state.allocation import Binding, Nonce, PodUid
from gpu_fraction.node_daemon.state.durable import run_to_end
from gpu_fraction.node_daemon.state.errors import (
    EngineFailedError,
    HostSpecError,
    IsolationError,
    NotEnforceableError,
    Reason,
    Refusal,
    StoreError,
)

ISOLATION_TIMEOUT_S: Final = 10.0
"""A start is refused after this time. Chosen: half of the time that a start may take."""

_log = structlog.get_logger()
_T = TypeVar("_T")


class Publisher:
    """Prepares isolation and writes the files that the container runtime reads."""

    def __init__(
        self,
        files: SliceFiles,
        host: HostSpecReader,
        isolation: NodeIsolation,
        *,
        frameworks: bool,
    ) -> None:
        """Write through ``files``; with ``frameworks``, tell these their part where known."""
        self.files = files
        self._host = host
        self._isolation = isolation
        self._frameworks = frameworks
        # A thread of its own: engines work one call at a time, and one that hangs may keep starts
        # waiting, but none of the threads that everything else needs.
        self._engines = ThreadPoolExecutor(1, thread_name_prefix="isolation")
        self.restored = asyncio.Event()
        """Set once isolation is restored for the containers of an earlier process."""

    def close(self, *, wait: bool = False) -> None:
        """End the thread of the engines after its present call; may wait for that."""
        self._engines.shutdown(wait=wait, cancel_futures=True)

    async def restore(self, bindings: Iterable[Binding]) -> None:
        """Restore isolation for all stored bindings, once the cards are known."""
        try:
            await run_to_end(self._isolating(partial(self._isolation.restore, list(bindings))))
        except IsolationError as e:
            # Each start prepares its own slice again, and is refused where that fails.
            _log.error("isolation_not_restored", error=str(e))
        self.restored.set()

    async def publish(self, nonce: Nonce, binding: Binding, inventory: Inventory) -> bool:
        """Put the slice's file there; True where it was absent or different.

        Raises:
            Refusal: a card has vanished, the host or the isolation cannot serve the slice, or
                the file cannot be written.
        """
        content = await self._content(nonce, binding, inventory)
        try:
            return await self.files.write(nonce, binding.uid, content)
        except StoreError as e:
            raise Refusal(Reason.STATE_UNWRITABLE, str(e)) from e

    async def withdraw(self, nonce: Nonce, binding: Binding, *, last: bool) -> None:
        """Remove the isolation and the file of a container that is gone.

        Args:
            nonce: The name.
            binding: The container.
            last: True where it has no other name, so that its isolation goes too.

        Raises:
            IsolationError: not all of it yet; to be tried again.
            StoreError: the file could not be removed.
        """
        if last:
            work = partial(self._isolation.release, binding)
            await run_to_end(self._isolating(work))
        await self.files.remove(nonce, binding.uid)

    async def remove_orphan(self, nonce: Nonce, uid: PodUid) -> None:
        """Remove a file that belongs to no allocation; one that stays is tried again later."""
        try:
            await self.files.remove(nonce, uid)
            _log.warning("orphan_slice_file_removed", nonce=nonce, uid=uid)
        except StoreError as e:
            _log.error("orphan_slice_file_kept", nonce=nonce, error=str(e))

    async def _content(self, nonce: Nonce, binding: Binding, inventory: Inventory) -> bytes:
        cards = {card.uuid: card for card in inventory.cards}
        missing = [share.uuid for share in binding.shares if share.uuid not in cards]
        if missing:
            raise Refusal(Reason.CARD_UNKNOWN, f"this node has no card {', '.join(missing)}")
        edits = await self._prepare(binding)
        try:
            if inventory.simulated:
                host: HostSpec | None = host_spec.of_simulated(cards)
            else:
                host = await asyncio.to_thread(self._host.read)
            return compose(nonce, binding, cards, host, edits, frameworks=self._frameworks)
        except HostSpecError as e:
            raise Refusal(Reason.HOST_SPEC, str(e)) from e

    async def _prepare(self, binding: Binding) -> ContainerEdits:
        try:
            async with asyncio.timeout(ISOLATION_TIMEOUT_S):
                return await self._isolating(partial(self._isolation.prepare, binding))
        except TimeoutError as e:
            raise Refusal(
                Reason.ISOLATION_FAILED,
                f"isolation was not ready within {ISOLATION_TIMEOUT_S:g} s",
            ) from e
        except NotEnforceableError as e:
            raise Refusal(Reason.ISOLATION_MISSING, str(e)) from e
        except EngineFailedError as e:
            raise Refusal(Reason.ISOLATION_FAILED, str(e)) from e

    def _isolating(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Work on the engines' thread; where it is cancelled before its turn, it is not done."""
        return asyncio.get_running_loop().run_in_executor(self._engines, work)
