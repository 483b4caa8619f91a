"""GPU amounts of containers, and their sum for a pod."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

from gpu_fraction.domain.pod import Container, Pod, containers, is_sidecar
from gpu_fraction.domain.request import Slice


@dataclass(frozen=True, slots=True)
class Demand:
    """GPU amounts of one pod, integers.

    Attributes:
        cards: GPUs in use, counted once per container.
        core_milli: Thousandths of a GPU's compute, over all cards.
        memory_mib: MiB, over all cards.
        open_memory_milli: Thousandths of a card's memory, over all cards; their MiB are unknown
            until a card is chosen.
        open_core_mib: MiB whose compute share is unknown until a card is chosen, over all
            cards; they are in ``memory_mib`` already.
        open_cards: Cards that ``open_core_mib`` is spread over.
        open_least_mib: The least of it on one card, where each card gives 1 thousandth or more;
            0 where none has to.
    """

    cards: int = 0
    core_milli: int = 0
    memory_mib: int = 0
    open_memory_milli: int = 0
    open_core_mib: int = 0
    open_cards: int = 0
    open_least_mib: int = 0

    def __add__(self, other: "Demand") -> "Demand":
        return self._with(other, lambda a, b: a + b)

    def maximum(self, other: "Demand") -> "Demand":
        """The larger of the two in each dimension, as Kubernetes takes init containers."""
        return self._with(other, max)

    def _with(self, other: "Demand", combine: Callable[[int, int], int]) -> "Demand":
        return Demand(
            combine(self.cards, other.cards),
            combine(self.core_milli, other.core_milli),
            combine(self.memory_mib, other.memory_mib),
            combine(self.open_memory_milli, other.open_memory_milli),
            combine(self.open_core_mib, other.open_core_mib),
            combine(self.open_cards, other.open_cards),
            min(filter(None, (self.open_least_mib, other.open_least_mib)), default=0),
        )

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) for f in fields(self))

    @property
    def exact(self) -> bool:
        """True where no amount depends on the card that will be chosen."""
        return not (self.open_memory_milli or self.open_core_mib)

    def charged(self, smallest_mib: int, largest_mib: int) -> "Demand":
        """The largest amounts that this can become on cards between two sizes.

        A share of memory costs most on the largest card; every stack rounds it down on each
        card. Compute that follows memory costs most on the smallest. No card of the native
        stack gives less than 1 MiB and 1 thousandth.

        Args:
            smallest_mib: MiB of the smallest eligible card, 1 or more.
            largest_mib: MiB of the largest eligible card, at least ``smallest_mib``; 0 where
                no size is known, which leaves open memory out.
        """
        # On cards below 1000 MiB, a thousandth is raised to 1 MiB.
        share_mib = max(largest_mib, 1000) if largest_mib else 0
        return Demand(
            cards=self.cards,
            core_milli=self.core_milli + self._following_milli(max(1, smallest_mib), largest_mib),
            memory_mib=self.memory_mib + self.open_memory_milli * share_mib // 1000,
        )

    def _following_milli(self, smallest_mib: int, largest_mib: int) -> int:
        follows = -(-1000 * self.open_core_mib // smallest_mib)
        if 0 < 1000 * self.open_least_mib < largest_mib:
            # A request below 1 thousandth is raised to it. This can happen on all cards but
            # one, which then has nearly all of the memory.
            follows += max(0, self.open_cards - 1)
        return min(1000 * self.open_cards, follows)


ZERO: Final = Demand()


def demand_of(part: Slice | None) -> Demand:
    """The amounts of one container's request."""
    if part is None:
        return ZERO
    memory_mib = (part.memory_mib or 0) * part.cards
    follows = part.core_milli is None
    return Demand(
        cards=part.cards,
        core_milli=(part.core_milli or 0) * part.cards,
        memory_mib=memory_mib,
        open_memory_milli=(part.memory_milli or 0) * part.cards,
        open_core_mib=memory_mib if follows else 0,
        open_cards=part.cards if follows else 0,
    )


def aggregate(pod: Pod, of: Callable[[Container], Demand]) -> Demand:
    """A pod's demand from its containers', counted as Kubernetes counts resources.

    The larger of: all containers and sidecars together; and each init container together
    with the sidecars declared before it. Ephemeral containers cost nothing.

    Source: k8s.io/component-helpers/resource ``PodRequests``; KEP-753.
    """
    running = sidecars = highest = ZERO
    for at in containers(pod):
        if not (cost := of(at.container)):
            continue
        if at.kind == "containers":
            running += cost
        elif is_sidecar(at):
            sidecars += cost
            highest = highest.maximum(sidecars)
        elif at.kind == "initContainers":
            highest = highest.maximum(sidecars + cost)
    return (running + sidecars).maximum(highest)
