"""What can be said of the health of cards, and by whom: NVML, the polls, an administrator."""

from dataclasses import dataclass
from typing import Final

from gpu_fraction.domain import keys
from gpu_fraction.domain.inventory import Inventory
from node_daemon.cards.inventory_reader import InstanceReading, NodeReading

CLEAR_ANNOTATION: Final = keys.PREFIX + "clear-health"
"""On the Node, written by administrators; removed by the daemon once it has been obeyed."""

# Source: nvmlDeviceGpuRecoveryAction_t, NVML R615.
RECOVERY_ACTIONS: Final = {
    1: "GPU reset",
    2: "node reboot",
    3: "drain peer-to-peer traffic",
    4: "drain and reset",
    5: "recover the IMEX domain",
    6: "bus reset",
    7: "system reboot",
}

__all__ = [
    "CLEAR_ANNOTATION",
    "RECOVERY_ACTIONS",
    "Clear",
    "Event",
    "Fault",
    "Poll",
    "Target",
    "Xid",
    "parse_clear",
    "targets",
]


@dataclass(frozen=True, slots=True)
class Target:
    """A card that can be sick: a physical one, or a MIG instance with its parent and ids."""

    uuid: str
    parent: str = ""
    gpu_instance: int | None = None
    compute_instance: int | None = None

    @property
    def physical(self) -> str:
        """The physical card."""
        return self.parent or self.uuid


@dataclass(frozen=True, slots=True)
class Xid:
    """An XID of a physical card; instance ids are None where it concerns all of it."""

    uuid: str
    xid: int
    gpu_instance: int | None = None
    compute_instance: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Another fault that NVML reported of a physical card."""

    uuid: str
    text: str


@dataclass(frozen=True, slots=True)
class Poll:
    """What a physical card said when it was asked.

    Attributes:
        uuid: The card.
        lost: Why it cannot be used at all, empty where it can.
        error: Why it could not be asked, empty where it could.
        recovery_action: NVML's number, None where the driver does not know it.
        repair_pending: Row remaps wait for a reset.
        repair_failed: A row remap failed: the card must be replaced.
        uncorrected_ecc: Errors since the driver was loaded, None where unknown.
        regular: One of the series. Polls between them can make a card sick, but neither count
            towards recovery, which would otherwise come as fast as events do, nor as failed.
    """

    uuid: str
    lost: str = ""
    error: str = ""
    recovery_action: int | None = None
    repair_pending: bool = False
    repair_failed: bool = False
    uncorrected_ecc: int | None = None
    regular: bool = True


@dataclass(frozen=True, slots=True)
class Clear:
    """Somebody says that these cards are fine; None is all of them."""

    uuids: frozenset[str] | None


Event = Xid | Fault | Poll | Clear


def targets(inventory: Inventory, reading: NodeReading) -> tuple[Target, ...]:
    """The cards of the inventory, with the ids of instances as far as they could be read."""
    instances = {i.uuid: i for card in reading.cards for i in card.instances}
    return tuple(
        Target(card.uuid, card.parent, *_place(instances.get(card.uuid)))
        for card in inventory.cards
    )


def _place(instance: InstanceReading | None) -> tuple[int | None, int | None]:
    if instance is None or instance.gpu_instance < 0:
        return None, None
    return instance.gpu_instance, instance.compute_instance


def parse_clear(value: str) -> Clear:
    """The Node annotation by which an administrator declares cards fine.

    Args:
        value: ``all``, or card UUIDs with commas between.
    """
    names = frozenset(name for part in value.split(",") if (name := part.strip()))
    return Clear(None if "all" in names else names)
