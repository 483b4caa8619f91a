"""Events of card health: from NVML, from polls, from an administrator."""

import enum
from dataclasses import dataclass
from typing import Final

from gpu_fraction.domain import keys
from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.node_daemon.cards.inventory_reader import InstanceReading, NodeReading

CLEAR_ANNOTATION: Final = keys.PREFIX + "clear-health"
"""On the Node, written by administrators; the daemon removes it once it has acted on it."""

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

IGNORED: Final = frozenset({13, 31, 43, 45, 68, 109})
"""Errors of applications; the card is fine.

Source: NVIDIA/k8s-device-plugin, internal/rm/health.go, the list of ignored XIDs: graphics engine
exception, memory page fault, stopped processing, preemptive cleanup, video processor
exception, context switch timeout.
"""

UNTIL_RESET: Final = frozenset({48, 64, 74, 79, 95, 119, 120})
"""Errors after which a card is not used again before a reset was seen.

Double bit ECC, failed row remap, NVLink, off the bus, uncontained ECC, GSP timeouts. Chosen: the
XID catalogue (https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html) asks for
a reset or a reboot for these; other errors heal when the card reports that nothing is pending.
"""

RECOVERY_ACTION_CHANGED: Final = 154
"""Announces a new recovery action, also the end of one: a reason to ask the card, no fault."""


class XidClass(enum.Enum):
    """The effect of an XID on a card's health."""

    IGNORED = "ignored"
    ASK = "ask"
    TRANSIENT = "transient"
    UNTIL_RESET = "until reset"


def classify(xid: int) -> XidClass:
    """The class of an XID."""
    if xid == RECOVERY_ACTION_CHANGED:
        return XidClass.ASK
    if xid in IGNORED:
        return XidClass.IGNORED
    return XidClass.UNTIL_RESET if xid in UNTIL_RESET else XidClass.TRANSIENT


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
    """The answer of a physical card to a poll.

    Attributes:
        lost: The reason why it cannot be used at all, empty where it can.
        error: The reason why it could not be polled, empty where it could.
        recovery_action: NVML's number, None where the driver does not report it.
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
    """An administrator declares these cards healthy; None means all of them."""

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
    """The value of the Node annotation that declares cards healthy.

    Args:
        value: ``all``, or card UUIDs with commas between.
    """
    names = frozenset(name for part in value.split(",") if (name := part.strip()))
    return Clear(None if "all" in names else names)
