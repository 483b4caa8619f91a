"""Cards and their free amounts."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Final

from gpu_fraction.domain import inventory, units
from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.assignment import Assignment
from gpu_fraction.domain.units import MILLI

CLOSENESS_MAX: Final = 4000
"""Highest closeness of two cards. Chosen: above 18 NVLink lanes (1800), the most of any card
announced, and small enough for sums over a node to stay far inside 64 bits."""

AMOUNT_MAX: Final = 1 << 31
"""Larger amounts in an inventory are reduced to this: chosen, 2 PiB, so that products of two
amounts stay inside 64 bits."""

Taken = tuple[int, int, int]
"""Milli-cores, MiB and slots of one card."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The properties of a card that decide whether it serves an ask while it is empty.

    Cards of a kind differ in their UUID only, so a cluster has few kinds.

    Attributes:
        model: NVML's product name.
        memory_mib: The card's memory, MiB.
        whole_mib: The memory that a share is a part of, MiB: for a MIG instance that of its
            physical card, 0 where that is unknown; for any other card its own.
        core_milli: The card's compute, thousandths.
        slots: Containers that may share the card.
        enforces_memory: Whether a memory share is enforced on it.
        enforces_compute: Whether a compute share is enforced on it.
        isolation: The isolation engine, for messages.
        health: Empty, or why the card may not be used.
    """

    model: str
    memory_mib: int
    whole_mib: int
    core_milli: int
    slots: int
    enforces_memory: bool
    enforces_compute: bool
    isolation: str
    health: str


@dataclass(frozen=True, slots=True)
class Share:
    """An amount of one card."""

    core_milli: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class CardState:
    """One card of a node and what is free on it; free amounts may be negative.

    Attributes:
        uuid: The card.
        parent: For a MIG instance, its physical card.
        index: Its number on the node, for messages.
        kind: Its kind.
        near: Closeness to each card of the node, in index order, 0 to ``CLOSENESS_MAX``;
            0 to itself.
        free_core_milli: Thousandths of its compute not given away.
        free_memory_mib: MiB not given away.
        free_slots: Containers that it may still take.
    """

    uuid: str
    parent: str
    index: int
    kind: Kind
    near: tuple[int, ...]
    free_core_milli: int
    free_memory_mib: int
    free_slots: int

    @property
    def untouched(self) -> bool:
        """True while no container holds a part of the card."""
        return self.free_slots >= self.kind.slots

    def less(self, share: Share) -> "CardState":
        """The card after one more container took a share of it."""
        return self.drawn(share.core_milli, share.memory_mib, 1)

    def drawn(self, core_milli: int, memory_mib: int, slots: int) -> "CardState":
        """The card with that much less free."""
        return CardState(
            self.uuid,
            self.parent,
            self.index,
            self.kind,
            self.near,
            self.free_core_milli - core_milli,
            self.free_memory_mib - memory_mib,
            self.free_slots - slots,
        )


def empty(cards: Iterable[inventory.Card]) -> tuple[CardState, ...]:
    """The cards of an inventory with nothing taken."""
    node = tuple(cards)
    kinds: dict[Kind, Kind] = {}  # equal kinds become one object, which is quick to compare
    found = []
    for card in node:
        kind = _kind(card)
        kind = kinds.setdefault(kind, kind)
        near = tuple(0 if other is card else _closeness(card, other) for other in node)
        free = kind.core_milli, kind.memory_mib, kind.slots
        found.append(CardState(card.uuid, card.parent, card.index, kind, near, *free))
    return tuple(found)


def _closeness(a: inventory.Card, b: inventory.Card) -> int:
    """The closeness of two cards of a node; higher is closer.

    Without a link in either card's inventory, a common NUMA node counts 1, as in the inventory.
    """
    known = [
        card.links[other.uuid] for card, other in ((a, b), (b, a)) if other.uuid in card.links
    ]
    if known:
        return min(max(0, *known), CLOSENESS_MAX)
    return int(a.numa == b.numa and a.numa >= 0)


def _kind(card: inventory.Card) -> Kind:
    return Kind(
        model=card.model,
        memory_mib=min(card.memory_mib, AMOUNT_MAX),
        whole_mib=min(card.parent_memory_mib if card.parent else card.memory_mib, AMOUNT_MAX),
        core_milli=min(card.core_milli, AMOUNT_MAX),
        slots=min(card.slots, AMOUNT_MAX),
        enforces_memory=card.enforces_memory,
        enforces_compute=card.enforces_compute,
        isolation=card.isolation,
        health="" if card.healthy else card.health_reason or "no reason given",
    )


def held(assignments: Iterable[Assignment]) -> dict[str, Taken]:
    """The part of each card that these assignments take."""
    sums: dict[str, Taken] = {}
    for assignment in assignments:
        for share in chain.from_iterable(assignment.values()):
            core_milli, memory_mib, slots = sums.get(share.uuid, (0, 0, 0))
            core_milli, memory_mib = core_milli + share.core_milli, memory_mib + share.memory_mib
            sums[share.uuid] = core_milli, memory_mib, slots + 1
    return sums


def less(cards: Iterable[CardState], given: Iterable[Assignment]) -> tuple[CardState, ...]:
    """The cards after all of these assignments; shares of other cards are ignored."""
    sums = held(given)
    return tuple(card.drawn(*sums[card.uuid]) if card.uuid in sums else card for card in cards)


def share_of(ask: Ask, kind: Kind) -> Share:
    """The amounts of the ask on a card of that kind, rounded down, at least 1 each.

    A share is a share of the physical card, on a MIG instance too, so it is the same amount
    on every instance. If the ask names memory only, compute is the same share as the memory, at
    most the card's compute and the 1000 thousandths that one container can have.
    """
    memory_mib = ask.memory_mib
    if memory_mib is None:
        memory_mib = units.share_of(kind.whole_mib, ask.memory_milli or 0)
        memory_mib = min(memory_mib, ask.most_mib or memory_mib)
    core_milli = ask.core_milli
    if core_milli is None:
        core_milli = memory_mib * MILLI // max(kind.whole_mib or kind.memory_mib, 1)
        core_milli = max(1, min(core_milli, kind.core_milli, MILLI))
    return Share(core_milli, memory_mib)
