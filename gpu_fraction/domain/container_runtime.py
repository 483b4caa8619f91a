"""What a node's container runtime does with CDI files."""

import re
from typing import Final

_RUNTIME: Final = re.compile(r"(containerd|cri-o)://v?(\d+)\.", re.ASCII)


def cdi_warning(reported: str) -> str:
    """The reason why containers may start without their cards; empty where there is none.

    Args:
        reported: ``status.nodeInfo.containerRuntimeVersion`` of the Node.

    Source: containerd, docs/cri/config.md (``enable_cdi``: true from 2.0, false in 1.7, which
    kubelets up to 1.37 support). CRI-O's versions are Kubernetes' own, and all that are
    supported read CDI files.
    """
    match = _RUNTIME.match(reported)
    if match is None:
        return f"container runtime {reported!r} is not known to read CDI files"
    if match[1] == "containerd" and int(match[2]) < 2:
        return "containerd before 2.0 reads CDI files only if enable_cdi = true is set"
    return ""
