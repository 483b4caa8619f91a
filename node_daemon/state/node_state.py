"""The daemon's state: allocations, usage of the cards, the pods and the cards of this node."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.node_daemon.state.concurrency import Observable
from gpu_fraction.node_daemon.state.ledger import Ledger
from gpu_fraction.node_daemon.state.pods import PodCache
from gpu_fraction.node_daemon.state.store import AllocationStore


@dataclass(frozen=True, slots=True)
class NodeState:
    """The state of one node.

    Attributes:
        store: Allocations, on disk as in memory.
        inventory: The cards of this node, absent until they were probed.
    """

    store: AllocationStore
    ledger: Ledger = field(default_factory=Ledger)
    pods: PodCache = field(default_factory=PodCache)
    inventory: Observable[Inventory] = field(default_factory=Observable)

    @classmethod
    def below(cls, directory: Path) -> Self:
        """A state whose allocations are kept below the daemon's state directory."""
        return cls(AllocationStore(directory / "allocations"))
