"""The cards of a node: the ``gpu-fraction.dev/inventory`` annotation on Nodes.

The node daemon writes it; the scheduler extender and the quota read it.
"""

from typing import Final, Literal

import msgspec

from gpu_fraction.domain import formats

VERSION: Final = 1

Isolation = Literal["cgroup", "mps", "hami-core", "mig", "none"]


class InventoryError(ValueError):
    """The annotation's value is not an inventory; the message names the place."""


class Card(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=False,
    rename="camel",
    omit_defaults=True,
    kw_only=True,
):
    """One card (or one MIG instance, which is scheduled as a card of its own).

    Attributes:
        uuid: NVML's name of the card, ``GPU-…`` or ``MIG-…``.
        index: Position on the node, as nvidia-smi counts.
        model: NVML's product name, for example ``NVIDIA H100 80GB HBM3``.
        memory_mib: Memory that containers may be given, MiB.
        core_milli: Compute that containers may be given, thousandths; 1000 a whole card.
        slots: Containers that may share the card.
        numa: NUMA node, -1 where unknown.
        healthy: False takes the card out of placement; running slices stay.
        health_reason: Why it is not healthy, one line.
        isolation: The strongest engine that the card and its configuration allow.
        enforces_memory: Whether that engine enforces the memory share.
        enforces_compute: Whether that engine enforces the compute share.
        compute_capability: ``major.minor``.
        parent: For a MIG instance, the UUID of its physical card.
        parent_memory_mib: Memory of that card, MiB; 0 where unknown.
        links: UUID of another card of this node to the closeness of the two, higher is
            closer: NVLink lanes count 100 each, else PCIe (5 same board, 4 one switch,
            3 several switches, 2 host bridge, 1 same NUMA node, 0 across sockets).
    """

    uuid: str
    index: int
    model: str
    memory_mib: int
    core_milli: int = 1000
    slots: int = 32
    numa: int = -1
    healthy: bool = True
    health_reason: str = ""
    isolation: Isolation = "none"
    enforces_memory: bool = False
    enforces_compute: bool = False
    compute_capability: str = ""
    parent: str = ""
    parent_memory_mib: int = 0
    links: dict[str, int] = {}


class Inventory(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """All cards of one node, in index order; ``simulated`` ones do not exist."""

    v: int = msgspec.field(default=0)
    driver_version: str = ""
    simulated: bool = False
    cards: tuple[Card, ...] = ()


_DECODER: Final = msgspec.json.Decoder(Inventory)
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


def parse(text: str) -> Inventory:
    """Read the annotation; unknown fields are ignored, so that older readers still work.

    Raises:
        InventoryError: not JSON, another version, a card twice, or an amount below its range.
    """
    try:
        inventory = _DECODER.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
        told = formats.other_version(text, VERSION) or f"not an inventory: {e}"
        raise InventoryError(told) from e
    if inventory.v != VERSION:
        told = formats.other_version(text, VERSION) or "not an inventory: it has no version"
        raise InventoryError(told)
    uuids = [card.uuid for card in inventory.cards]
    if len(set(uuids)) != len(uuids):
        raise InventoryError("a card is listed twice")
    for card in inventory.cards:
        if min(card.memory_mib, card.parent_memory_mib, card.core_milli, card.slots) < 0:
            raise InventoryError(f"card {card.uuid!r} has a negative amount")
    return inventory


def render(inventory: Inventory) -> str:
    """Canonical JSON; equal inventories have equal bytes."""
    return _ENCODER.encode(
        msgspec.structs.replace(inventory, v=VERSION, cards=tuple(inventory.cards))
    ).decode()
