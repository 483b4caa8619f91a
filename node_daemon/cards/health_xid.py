"""Which XID errors say something about a card, and which only about the program that met them."""

import enum
from typing import Final

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
a reset or a reboot for these; other errors heal when the card says that nothing is pending.
"""

RECOVERY_ACTION_CHANGED: Final = 154
"""Announces a new recovery action, also the end of one: a reason to ask the card, no fault."""

__all__ = ["IGNORED", "RECOVERY_ACTION_CHANGED", "UNTIL_RESET", "XidClass", "classify"]


class XidClass(enum.Enum):
    """What an XID does to the card's health."""

    IGNORED = "ignored"
    ASK = "ask"
    TRANSIENT = "transient"
    UNTIL_RESET = "until reset"


def classify(xid: int) -> XidClass:
    """What this XID means for a card."""
    if xid == RECOVERY_ACTION_CHANGED:
        return XidClass.ASK
    if xid in IGNORED:
        return XidClass.IGNORED
    return XidClass.UNTIL_RESET if xid in UNTIL_RESET else XidClass.TRANSIENT
