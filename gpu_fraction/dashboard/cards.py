"""Cards with what is given of them, and sums over cards."""

from collections.abc import Iterable
from dataclasses import dataclass

from gpu_fraction.dashboard.pods import Slice
from gpu_fraction.domain.inventory import Card
from gpu_fraction.domain.placement import CardState
from gpu_fraction.domain.units import MILLI


@dataclass(frozen=True, slots=True)
class CardView:
    """A card, or a MIG instance, with what is given of it.

    Attributes:
        node: The node's name.
        card: What the node says about it.
        state: Its kind and its free amounts, as ``domain.placement`` takes them; free amounts may
            be negative. Slices of pods that may not be read count as free.
        slices: The parts that containers and claims hold.
        closed: Why no pod is placed on it now: the card is sick, or its node is cordoned or not
            ready; empty where it takes pods.
    """

    node: str
    card: Card
    state: CardState
    slices: tuple[Slice, ...] = ()
    closed: str = ""

    @property
    def given_core_milli(self) -> int:
        """Thousandths of the compute that are given away."""
        return self.state.kind.core_milli - self.state.free_core_milli

    @property
    def given_memory_mib(self) -> int:
        """MiB that are given away."""
        return self.state.kind.memory_mib - self.state.free_memory_mib

    @property
    def free_milli(self) -> int:
        """The largest share that is free: the scarcer of compute and memory, 0 to 1000.

        0 on a closed card, and where no slot is left.
        """
        state = self.state
        if self.closed or state.free_slots < 1:
            return 0
        core = state.free_core_milli * MILLI // max(1, state.kind.core_milli)
        memory = state.free_memory_mib * MILLI // max(1, state.kind.memory_mib)
        return max(0, min(core, memory))

    @property
    def overdrawn(self) -> bool:
        """True where more is given than the card has, which only another writer can cause."""
        state = self.state
        return min(state.free_core_milli, state.free_memory_mib, state.free_slots) < 0

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that hold a part of it, sorted."""
        return tuple(sorted({one.namespace for one in self.slices}))


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over cards.

    Attributes:
        cards: All of them.
        open_cards: Those that take pods.
        core_milli: Thousandths of compute, of all cards.
        memory_mib: MiB of memory, of all cards.
        given_core_milli: Thousandths given away.
        given_memory_mib: MiB given away.
        slices: Parts that containers and claims hold.
        whole_free: Open cards without any share.
        free_milli: Thousandths that are free on open cards: of each, the scarcer of compute and
            memory.
        largest_milli: The largest share of one card that is free, thousandths.
        overdrawn: Cards of which more is given than they have.
    """

    cards: int = 0
    open_cards: int = 0
    core_milli: int = 0
    memory_mib: int = 0
    given_core_milli: int = 0
    given_memory_mib: int = 0
    slices: int = 0
    whole_free: int = 0
    free_milli: int = 0
    largest_milli: int = 0
    overdrawn: int = 0

    @property
    def given_milli(self) -> int:
        """Thousandths of all cards that are given: the larger of compute and memory."""
        core = self.given_core_milli * MILLI // max(1, self.core_milli)
        return max(core, self.given_memory_mib * MILLI // max(1, self.memory_mib))

    @property
    def fragmented_milli(self) -> int:
        """Thousandths of the free share that lie on broken cards, 0 to 1000; 0 for none free."""
        if not self.free_milli:
            return 0
        return (self.free_milli - self.whole_free * MILLI) * MILLI // self.free_milli


def total(cards: Iterable[CardView]) -> Total:
    """The sums over these cards."""
    found = tuple(cards)
    usable = [view for view in found if not view.closed]
    return Total(
        cards=len(found),
        open_cards=len(usable),
        core_milli=sum(view.state.kind.core_milli for view in found),
        memory_mib=sum(view.state.kind.memory_mib for view in found),
        given_core_milli=sum(view.given_core_milli for view in found),
        given_memory_mib=sum(view.given_memory_mib for view in found),
        slices=sum(len(view.slices) for view in found),
        whole_free=sum(view.state.untouched for view in usable),
        free_milli=sum(view.free_milli for view in usable),
        largest_milli=max((view.free_milli for view in usable), default=0),
        overdrawn=sum(view.overdrawn for view in found),
    )
