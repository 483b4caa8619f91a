"""Builds the published inventory from a reading of NVML: a pure function.

A card that stops answering stays listed, unhealthy, with what was known of it: a card that
vanished from the inventory would look to the scheduler as if it had never existed, and its
running slices like a mistake.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from gpu_fraction.domain.inventory import Card, Inventory, Isolation
from gpu_fraction.domain.units import MILLI
from gpu_fraction.node_daemon.cards.inventory_reader import (
    CardReading,
    InstanceReading,
    NodeReading,
)

SLOTS_PER_CARD: Final = 32
MIG_SLOTS: Final = 1
"""One container an instance: MIG separates instances, not containers that share one."""


@dataclass(frozen=True, slots=True)
class CardIsolation:
    """The isolation that the configuration and the card can enforce.

    Attributes:
        name: The strongest engine in use on the card.
        max_containers: The most containers the engine serves on one card, None for any number.
    """

    name: Isolation = "none"
    enforces_memory: bool = False
    enforces_compute: bool = False
    max_containers: int | None = None


NO_ISOLATION: Final = CardIsolation()


def build(
    reading: NodeReading,
    *,
    previous: Inventory | None = None,
    isolation: Mapping[str, CardIsolation] | None = None,
    sick: Mapping[str, str] | None = None,
    slots_per_card: int = SLOTS_PER_CARD,
) -> Inventory:
    """The inventory to publish.

    Cards that do not answer now are taken from ``previous``. ``isolation`` and ``sick`` are by
    UUID: what can be enforced on a card, and why it is unhealthy.
    """
    known = {card.uuid: card for card in previous.cards} if previous else {}
    divided = {card.parent for card in known.values() if card.parent}
    listed = [
        card
        for one in reading.cards
        for card in _cards(one, slots_per_card, was_divided=one.uuid in divided)
    ]
    listed = [_remembered(card, known.get(card.uuid)) for card in listed]
    listed += _silent(reading, known, {card.uuid for card in listed})
    cards = [
        _with_health(_with_isolation(card, isolation or {}), (sick or {}).get(card.uuid, ""))
        for card in listed
    ]
    cards.sort(key=lambda card: card.index)  # stable: instances keep NVML's order
    return Inventory(
        driver_version=reading.driver_version, cards=tuple(cards), simulated=reading.simulated
    )


def _cards(one: CardReading, slots: int, *, was_divided: bool) -> Iterator[Card]:
    """The schedulable cards of one physical card: itself, or its MIG instances."""
    if one.mig or (one.mig is None and was_divided):
        yield from _instances(one)
    elif one.mig is None and not one.lost:
        # A card in MIG mode takes no work of its own: until this is known it gets none.
        card = _physical(one, slots)
        yield msgspec.structs.replace(card, healthy=False, health_reason="MIG mode is unknown")
    else:
        yield _physical(one, slots)


def _physical(one: CardReading, slots: int) -> Card:
    return Card(
        uuid=one.uuid,
        index=one.index,
        model=one.model,
        memory_mib=one.memory_mib,
        slots=slots,
        numa=one.numa,
        compute_capability=one.compute_capability,
        links=dict(one.links),
        healthy=not one.lost,
        health_reason=one.problems[-1] if one.lost and one.problems else "",
    )


def _instances(one: CardReading) -> Iterator[Card]:
    for instance in one.instances:
        yield Card(
            uuid=instance.uuid,
            index=one.index,
            model=instance.model or one.model,
            memory_mib=instance.memory_mib,
            core_milli=_core_milli(instance, one.mig_slices),
            slots=MIG_SLOTS,
            numa=one.numa,
            compute_capability=one.compute_capability,
            parent=one.uuid,
            parent_memory_mib=one.memory_mib,
            isolation="mig",
            enforces_memory=True,
            enforces_compute=True,
            healthy=not one.lost,
            health_reason=one.problems[-1] if one.lost and one.problems else "",
        )


def _core_milli(instance: InstanceReading, slices: int) -> int:
    if not slices or not instance.slices:
        return 0
    return MILLI * instance.slices // slices


def _remembered(card: Card, before: Card | None) -> Card:
    """Fill unreadable values with those of the last reading; unusable without a memory size."""
    if before is not None:
        card = msgspec.structs.replace(
            card,
            model=card.model or before.model,
            memory_mib=card.memory_mib or before.memory_mib,
            parent_memory_mib=card.parent_memory_mib or before.parent_memory_mib,
            core_milli=card.core_milli or before.core_milli,
            compute_capability=card.compute_capability or before.compute_capability,
            numa=card.numa if card.numa >= 0 else before.numa,
            links=card.links or before.links,
        )
    if card.memory_mib and card.core_milli:
        return card
    return msgspec.structs.replace(card, healthy=False, health_reason="NVML reports no size")


def _silent(reading: NodeReading, known: Mapping[str, Card], listed: set[str]) -> Iterator[Card]:
    """Cards published before that no longer answer."""
    answering = {one.uuid: one for one in reading.cards}
    for card in known.values():
        if card.uuid in listed:
            continue
        owner = answering.get(card.parent or card.uuid)
        complete = owner is not None and owner.instances_complete and owner.mig is not None
        if owner is not None and complete and not owner.lost:
            continue  # MIG was reconfigured: the card or instance is gone on purpose
        reason = reading.unreadable.get(card.index) or "NVML no longer reports it"
        yield msgspec.structs.replace(card, healthy=False, health_reason=reason)


def _with_isolation(card: Card, isolation: Mapping[str, CardIsolation]) -> Card:
    if card.isolation == "mig":
        return card
    engine = isolation.get(card.uuid, NO_ISOLATION)
    most = engine.max_containers
    return msgspec.structs.replace(
        card,
        isolation=engine.name,
        enforces_memory=engine.enforces_memory,
        enforces_compute=engine.enforces_compute,
        slots=card.slots if most is None else min(card.slots, most),
    )


def _with_health(card: Card, sick: str) -> Card:
    if not sick:
        return card
    return msgspec.structs.replace(card, healthy=False, health_reason=sick)
