"""Whether the node's container runtime reads CDI files, as far as its version tells."""

import re
from typing import Final

_VERSION: Final = re.compile(r"(containerd|cri-o)://v?(\d+)\.", re.ASCII)

__all__ = ["cdi_doubt"]


def cdi_doubt(reported: str) -> str:
    """Why containers may start without their cards; empty where nothing speaks for it.

    Args:
        reported: ``status.nodeInfo.containerRuntimeVersion`` of the Node.

    Source: containerd, docs/cri/config.md (``enable_cdi``: true from 2.0, false in 1.7, which
    kubelets up to 1.37 support). CRI-O's versions are Kubernetes' own, and all that are
    supported read CDI files.
    """
    match = _VERSION.match(reported)
    if match is None:
        return f"container runtime {reported!r} is not known to read CDI files"
    if match[1] == "containerd" and int(match[2]) < 2:
        return "containerd before 2.0 reads CDI files only where it is told enable_cdi = true"
    return ""
