"""Nodes, of which only the cards are kept.

The inventory is read as the node is decoded and its text let go: over 5,000 nodes the links
between cards alone would be tens of MiB.
"""

import msgspec
import structlog

from gpu_fraction.domain import inventory, keys
from gpu_fraction.domain.placement import CardState, empty
from gpu_fraction.kube.objects import Meta

_log = structlog.get_logger(__name__)


class NodeMeta(Meta, frozen=True, kw_only=True, rename="camel"):
    """A node's names and annotations."""

    annotations: dict[str, str] | None = None


class Node(msgspec.Struct, frozen=True):
    """A node.

    Attributes:
        cards: Its cards, empty ones; none where the inventory is missing or unreadable.
        problem: Why there are none; empty where there are some.
    """

    metadata: NodeMeta = NodeMeta()
    cards: tuple[CardState, ...] = ()
    problem: str = ""

    def __post_init__(self) -> None:
        text = (self.metadata.annotations or {}).get(keys.INVENTORY)
        cards, problem = read_cards(text)
        if problem and text is not None:
            _log.warning("scheduler.inventory_unusable", node=self.metadata.name, problem=problem)
        bare = msgspec.structs.replace(self.metadata, annotations=None)
        msgspec.structs.force_setattr(self, "metadata", bare)
        msgspec.structs.force_setattr(self, "cards", cards)
        msgspec.structs.force_setattr(self, "problem", problem)


def read_cards(annotation: str | None) -> tuple[tuple[CardState, ...], str]:
    """The cards of an inventory annotation, or why there are none.

    A node with an unreadable inventory has no cards: guessing could give one away twice.
    """
    if annotation is None:
        return (), "no GPU inventory (is the node daemon running?)"
    try:
        cards = empty(inventory.parse(annotation).cards)
    except inventory.InventoryError as e:
        return (), f"{keys.INVENTORY} is unreadable: {e}"
    return cards, "" if cards else "no GPU in the node's inventory"
