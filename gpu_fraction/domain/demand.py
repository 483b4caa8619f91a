"""What a pod costs. Every part that counts GPUs counts them here, and only here.

Peers with one computation in the webhook, another in the controller and a third in the
daemon disagreed with themselves (KAI-Scheduler#1369, #1668; LLMKube#1324).
"""

from typing import Final

from gpu_fraction.domain.backends.hami import SHARE_RESOURCES, Hami
from gpu_fraction.domain.backends.native import Native
from gpu_fraction.domain.backends.nvidia import Nvidia, other_cards
from gpu_fraction.domain.pod import Pod, containers
from gpu_fraction.domain.tally import ZERO, Demand, aggregate

__all__ = ["ZERO", "Demand", "demand"]

_NATIVE: Final = Native()
_HAMI: Final = Hami()
_NVIDIA: Final = Nvidia()


def demand(pod: Pod) -> Demand:
    """The pod's milli-cores, MiB and cards, whichever stack it asks and however it asks.

    Containers, sidecars and init containers count as Kubernetes counts them. What the
    resources leave open until a card is chosen is in the ``open_`` amounts.
    """
    if _by_hami(pod):
        return _NATIVE.demand(pod) + _HAMI.demand(pod) + aggregate(pod, other_cards)
    return _NATIVE.demand(pod) + _NVIDIA.demand(pod)


def _by_hami(pod: Pod) -> bool:
    """HAMi and NVIDIA's plugin share ``nvidia.com/gpu``; HAMi's other names tell them apart.

    Zero of those names fits any node, so they must hide nothing that is asked beside them.
    """
    return any(
        at.container.resources is not None
        and any(at.container.resources.of(name) is not None for name in SHARE_RESOURCES)
        for at in containers(pod)
    )
