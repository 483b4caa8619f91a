"""What is known of the cards' health, kept over a restart of the daemon.

A card that fell off the bus must not become healthy because the daemon was updated. After a
reboot all is forgotten: every card was reset.
"""

import pathlib
from typing import Final

import msgspec

from node_daemon.health import Health

BOOT_ID: Final = pathlib.Path("/proc/sys/kernel/random/boot_id")
VERSION: Final = 1

__all__ = ["BOOT_ID", "dump", "load"]


class _Saved(msgspec.Struct, frozen=True):
    v: int
    boot: str
    health: Health


_DECODER: Final = msgspec.json.Decoder(_Saved)


def dump(state: Health, boot_id: str) -> bytes:
    """The state as a file's content.

    Args:
        state: To keep. Its times are monotonic, so they hold within one boot.
        boot_id: The kernel's boot id.
    """
    return msgspec.json.encode(_Saved(v=VERSION, boot=boot_id, health=state))


def load(content: bytes, boot_id: str) -> Health:
    """The state kept before; empty where there is none, of another boot, or it is unreadable."""
    try:
        saved = _DECODER.decode(content)
    except msgspec.MsgspecError:
        return Health()
    return saved.health if (saved.v, saved.boot) == (VERSION, boot_id) else Health()
