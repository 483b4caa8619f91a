"""What a process of the daemon finds of an earlier one: slices, and the cards it knew."""

import asyncio
from typing import Final

import structlog

from gpu_fraction.domain import inventory as inventory_format
from gpu_fraction.domain.inventory import Inventory, InventoryError
from gpu_fraction.node_daemon.slices.cdi import SliceFiles
from gpu_fraction.node_daemon.slices.paths import Paths
from gpu_fraction.node_daemon.slices.publisher import Publisher
from gpu_fraction.node_daemon.state.allocation import Binding
from gpu_fraction.node_daemon.state.durable import write_durably
from gpu_fraction.node_daemon.state.errors import StoreError
from gpu_fraction.node_daemon.state.node_state import NodeState

LAST_INVENTORY: Final = "inventory.json"

_log = structlog.get_logger()


class StoredSlices:
    """The slices on disk and their effects."""

    def __init__(
        self, paths: Paths, state: NodeState, files: SliceFiles, publisher: Publisher
    ) -> None:
        self._paths = paths
        self._state = state
        self._files = files
        self._publisher = publisher

    async def load(self) -> Inventory:
        """Read the state of an earlier process into the store and the ledger.

        Returns:
            The cards that it knew.

        Raises:
            StoreError: the state or CDI directory cannot be used at all.
        """
        last = await asyncio.to_thread(self._load)
        for binding in self._bindings():
            self._state.ledger.record(binding.key, binding.shares)
        return last

    async def restore(self) -> None:
        """Set isolation up again for all stored bindings, once, when the cards are known."""
        if not self._publisher.restored.is_set():
            await self._publisher.restore(self._bindings())

    async def remember(self, inventory: Inventory) -> None:
        """Keep the cards for the next process; a failure is logged."""
        content = inventory_format.render(inventory).encode()
        try:
            await asyncio.to_thread(write_durably, self._paths.state / LAST_INVENTORY, content)
        except StoreError as e:
            _log.warning("inventory_not_remembered", error=str(e))

    def _bindings(self) -> list[Binding]:
        return [a.binding for a in self._state.store if a.binding is not None]

    def _load(self) -> Inventory:
        aside = self._state.store.load()
        self._files.prepare()
        _log.info("state_loaded", allocations=len(self._state.store), set_aside=aside)
        try:
            return inventory_format.parse((self._paths.state / LAST_INVENTORY).read_text())
        except FileNotFoundError:
            return Inventory()
        except (OSError, UnicodeError, InventoryError) as e:
            _log.warning("inventory_not_read", why=str(e))
            return Inventory()
