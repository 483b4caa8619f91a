"""Whether the node's container runtime reads CDI files, as far as its version tells."""

import re
from typing import Final

_VERSION: Final = re.compile(r"(containerd|cri-o)://v?(\d+)\.(\d+)", re.ASCII)

__all__ = ["cdi_doubt"]


def cdi_doubt(reported: str) -> str:
    """Why containers may start without their cards; empty where nothing speaks for it.

    Args:
        reported: ``status.nodeInfo.containerRuntimeVersion`` of the Node.

    Source: containerd, docs/cri/config.md (``enable_cdi``: false in 1.7, true from 2.0, absent
    before); CRI-O release notes, 1.23.
    """
    match = _VERSION.match(reported)
    if match is None:
        return f"container runtime {reported!r} is not known to read CDI files"
    name, version = match[1], (int(match[2]), int(match[3]))
    if name == "cri-o":
        return "" if version >= (1, 23) else "CRI-O reads CDI files from 1.23 on"
    if version >= (2, 0):
        return ""
    if version >= (1, 7):
        return "containerd 1.7 reads CDI files only where its configuration has enable_cdi = true"
    return "containerd reads CDI files from 1.7 on"
