"""Makes the name of a slice mean its cards, its environment and its isolation."""

import asyncio
from collections.abc import Mapping
from typing import Final

from gpu_fraction.domain.inventory import Inventory, Isolation
from node_daemon.allocation import Binding, Nonce, PodUid
from node_daemon.cdi import SliceFiles, compose
from node_daemon.edits import Edits, IsolationEngine
from node_daemon.errors import HostSpecError, Reason, Refusal, StoreError
from node_daemon.host_spec import HostSpecReader

ENGINE_TIMEOUT_S: Final = 10.0
"""An engine that takes longer is refused: chosen, half of what a container start may take."""

__all__ = ["Publisher"]


class Publisher:
    """Composes the files of slices and puts them where the container runtime reads."""

    def __init__(
        self,
        files: SliceFiles,
        host: HostSpecReader,
        engines: Mapping[Isolation, IsolationEngine],
    ) -> None:
        """Use ``engines`` by the name that a card's inventory entry gives."""
        self._files = files
        self._host = host
        self._engines = engines

    async def published(self, nonce: Nonce, uid: PodUid) -> bool:
        """True where the slice has its file."""
        return await self._files.exists(nonce, uid)

    async def present(self) -> dict[Nonce, PodUid]:
        """Every slice that has a file, with the pod it was written for."""
        return await self._files.present()

    async def publish(self, nonce: Nonce, binding: Binding, inventory: Inventory) -> bool:
        """Put the slice's file there; True where it was absent or different.

        Raises:
            Refusal: a card has vanished, the host or an engine cannot serve the slice, or the
                file cannot be written.
        """
        content = await self._content(nonce, binding, inventory)
        try:
            return await self._files.write(nonce, binding.uid, content)
        except StoreError as e:
            raise Refusal(Reason.STATE_UNWRITABLE, str(e)) from e

    async def withdraw(self, nonce: Nonce, binding: Binding) -> None:
        """Take everything back that a container which is gone could use.

        Raises:
            Refusal: an engine could not.
            StoreError: the file could not be removed.
        """
        async with asyncio.timeout(ENGINE_TIMEOUT_S):
            for engine in self._engines.values():
                await engine.release(binding)
        await self._files.remove(nonce, binding.uid)

    async def remove(self, nonce: Nonce, uid: PodUid) -> None:
        """Remove a file that belongs to no slice.

        Raises:
            StoreError: it could not be removed.
        """
        await self._files.remove(nonce, uid)

    async def _content(self, nonce: Nonce, binding: Binding, inventory: Inventory) -> bytes:
        cards = {card.uuid: card for card in inventory.cards}
        missing = [share.uuid for share in binding.shares if share.uuid not in cards]
        if missing:
            raise Refusal(Reason.CARD_UNKNOWN, f"this node has no card {', '.join(missing)}")
        edits = await self._isolation(binding, {cards[s.uuid].isolation for s in binding.shares})
        try:
            host = await asyncio.to_thread(self._host.read)
            return compose(nonce, binding, cards, host, edits)
        except HostSpecError as e:
            raise Refusal(Reason.HOST_SPEC, str(e)) from e

    async def _isolation(self, binding: Binding, names: set[Isolation]) -> list[Edits]:
        try:
            async with asyncio.timeout(ENGINE_TIMEOUT_S):
                return [
                    await self._engines[name].edits(binding)
                    for name in sorted(names)
                    if name in self._engines
                ]
        except TimeoutError as e:
            raise Refusal(
                Reason.ISOLATION_FAILED,
                f"isolation {', '.join(sorted(names))} not set up within {ENGINE_TIMEOUT_S:g} s",
            ) from e
