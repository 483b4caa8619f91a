"""All cards of a cluster as arrays with one column per node.

Cards are rows, because numpy reduces along the first axis many times faster than along a short
last one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from gpu_fraction.domain.placement.cards import CardState, Kind
from gpu_fraction.domain.placement.choice import CLOSENESS, EXACT_CARDS

Ints = npt.NDArray[np.int64]
Whys = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]

ABSENT: Final = 0
"""The kind of a column that the node has no card for."""
_ABSENT_KIND: Final = Kind("", 0, 0, 0, 0, False, False, "none", "absent")


@dataclass(slots=True)
class CardArrays:
    """Amounts of every card; the shape is (cards, nodes)."""

    core_milli: Ints
    memory_mib: Ints
    slots: Ints

    def copy(self) -> "CardArrays":
        """A copy that shares no array."""
        return CardArrays(self.core_milli.copy(), self.memory_mib.copy(), self.slots.copy())


class ClusterTable:
    """The cards of every node, kept up to date one node at a time.

    Attributes:
        version: Grows with every change; equal versions mean equal contents.
        columns: Node name to its column.
        cards: The cards of each column; empty for a column that no node holds.
        kinds: Every kind of card seen; the position is its number.
        kind: Number of each card's kind, ``ABSENT`` below the node's last card.
        count: Cards of each column.
        free: The free amounts.
        cap: The amounts of an untouched card; 1 where there is no card, as it is a divisor.
    """

    def __init__(self) -> None:
        self.version = 0
        self.columns: dict[str, int] = {}
        self.cards: list[tuple[CardState, ...]] = []
        self.kinds: list[Kind] = [_ABSENT_KIND]
        self.kind = np.zeros((0, 0), np.int64)
        self.count = np.zeros(0, np.int64)
        self.free = CardArrays(self.kind.copy(), self.kind.copy(), self.kind.copy())
        self.cap = self.free.copy()
        self._kind_ids: dict[Kind, int] = {_ABSENT_KIND: ABSENT}
        self._spare: list[int] = []
        self._at: dict[str, list[tuple[int, int]]] = {}
        self._links = np.zeros((0, 0, 0), np.int16)
        self._near: dict[tuple[int, int], Ints] = {}

    def set_node(self, name: str, cards: Sequence[CardState]) -> None:
        """Add the node, or replace its cards."""
        column = self.columns.get(name)
        if column is None:
            column = self.columns[name] = self._new_column()
        self._reserve(len(cards), len(self.cards))
        old, new = self.cards[column], tuple(cards)
        if not _same_hardware(old, new):
            self._set_hardware(column, new)
        self.cards[column] = new
        height = len(new)
        self.free.core_milli[:height, column] = [card.free_core_milli for card in new]
        self.free.memory_mib[:height, column] = [card.free_memory_mib for card in new]
        self.free.slots[:height, column] = [card.free_slots for card in new]
        self.version += 1

    def remove_node(self, name: str) -> None:
        """Forget the node; unknown names are ignored."""
        if name not in self.columns:
            return
        self.set_node(name, ())
        self._spare.append(self.columns.pop(name))

    def positions(self, uuids: Sequence[str]) -> list[tuple[int, int]]:
        """Row and column of each of these cards and of their MIG instances."""
        if not self._at:
            # Built on the first call: few pods name cards, and there are many names.
            for column, cards in enumerate(self.cards):
                for at, card in enumerate(cards):
                    for uuid in {card.uuid, card.parent} - {""}:
                        self._at.setdefault(uuid, []).append((at, column))
        return [at for uuid in uuids for at in self._at.get(uuid, ())]

    def near(self, height: int, wanted: int) -> Ints:
        """Closeness inside each set of ``wanted`` of the first ``height`` cards, as a cost.

        The shape is (sets, nodes), sets in lexicographic order; ``height`` is at most
        ``EXACT_CARDS``.
        """
        known = self._near.get((height, wanted))
        if known is None:
            links = self._links
            sums = [
                sum(links[a, b].astype(np.int64) for a, b in combinations(cards, 2))
                for cards in combinations(range(height), wanted)
            ]
            known = np.array(sums, np.int64) * CLOSENESS
            self._near[height, wanted] = known
        return known

    def links(self, columns: Ints) -> Ints:
        """Closeness of every two cards of these nodes; the shape is (nodes, cards, cards)."""
        height = len(self.kind)
        if height <= EXACT_CARDS:
            return self._links[:, :, columns].transpose(2, 0, 1).astype(np.int64)
        found = np.zeros((len(columns), height, height), np.int64)
        for row, column in enumerate(columns.tolist()):
            cards = self.cards[column]
            found[row, : len(cards), : len(cards)] = [card.near for card in cards]
        return found

    def _new_column(self) -> int:
        if self._spare:
            return self._spare.pop()
        self.cards.append(())
        return len(self.cards) - 1

    def _reserve(self, height: int, nodes: int) -> None:
        """Grow the arrays, by a quarter of the nodes at least: a start adds many nodes."""
        have_height, have_nodes = self.kind.shape
        if nodes <= have_nodes and height <= have_height:
            return
        more_nodes = max(nodes, have_nodes * 5 // 4) - have_nodes if nodes > have_nodes else 0
        more_height = max(0, height - have_height)
        pad = ((0, more_height), (0, more_nodes))
        self.kind = np.pad(self.kind, pad)
        for amounts, fill in ((self.free, 0), (self.cap, 1)):
            amounts.core_milli = np.pad(amounts.core_milli, pad, constant_values=fill)
            amounts.memory_mib = np.pad(amounts.memory_mib, pad, constant_values=fill)
            amounts.slots = np.pad(amounts.slots, pad)
        self.count = np.pad(self.count, pad[1])
        # A node with many MIG instances must not enlarge the links of all other nodes.
        more_links = (0, min(height, EXACT_CARDS) - len(self._links)) if more_height else (0, 0)
        self._links = np.pad(self._links, (more_links, more_links, pad[1]))
        self._near.clear()

    def _set_hardware(self, column: int, new: tuple[CardState, ...]) -> None:
        self._at.clear()
        self.count[column] = len(new)
        height = len(new)
        for array in (self.kind, self.free.core_milli, self.free.memory_mib, self.free.slots):
            array[height:, column] = 0
        self.kind[:height, column] = [self._kind_id(card.kind) for card in new]
        self.cap.core_milli[:, column] = self.cap.memory_mib[:, column] = 1
        self.cap.core_milli[:height, column] = [max(card.kind.core_milli, 1) for card in new]
        self.cap.memory_mib[:height, column] = [max(card.kind.memory_mib, 1) for card in new]
        self.cap.slots[height:, column] = 0
        self.cap.slots[:height, column] = [card.kind.slots for card in new]
        links = np.zeros(self._links.shape[:2], np.int16)
        for at, card in enumerate(new[:EXACT_CARDS]):
            near = card.near[:EXACT_CARDS]
            links[at, : len(near)] = near
        if not np.array_equal(links, self._links[:, :, column]):
            self._links[:, :, column] = links
            self._near.clear()

    def _kind_id(self, kind: Kind) -> int:
        known = self._kind_ids.get(kind)
        if known is None:
            known = self._kind_ids[kind] = len(self.kinds)
            self.kinds.append(kind)
        return known


def _same_hardware(old: tuple[CardState, ...], new: tuple[CardState, ...]) -> bool:
    return len(old) == len(new) and all(
        a.uuid == b.uuid and a.parent == b.parent and a.kind == b.kind and a.near == b.near
        for a, b in zip(old, new, strict=True)
    )
