"""What one container of a pod asks of the cards of one node."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from gpu_fraction.domain.request import Request

Policy = Literal["binpack", "spread", "topology"]
Isolation = Literal["required", "preferred", "none"]

MILLI: Final = 1000
"""Thousandths in one whole."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One container's cards, each with the same share, all on one node.

    Attributes:
        container: The container's name.
        cards: Distinct cards, 1 or more.
        core_milli: Thousandths of each card's compute, 0 to 1000; 0 limits nothing. None
            follows the memory in proportion to the card that is chosen.
        memory_mib: MiB of each card, 1 or more; None leaves it to ``memory_milli``.
        memory_milli: Thousandths of the chosen card's memory, 1 to 1000, where
            ``memory_mib`` is None.
        models_in: Only cards of these models; empty takes any.
        models_out: No card of these models.
        uuids: Only these cards, or MIG instances of these cards; empty takes any.
        placement: How cards are chosen among those that fit.
        isolation: ``required`` refuses a card that does not enforce the share,
            ``preferred`` takes one that does where it can, ``none`` does not care.
    """

    container: str
    cards: int = 1
    core_milli: int | None = None
    memory_mib: int | None = None
    memory_milli: int | None = None
    models_in: tuple[str, ...] = ()
    models_out: tuple[str, ...] = ()
    uuids: tuple[str, ...] = ()
    placement: Policy = "binpack"
    isolation: Isolation = "none"

    def __post_init__(self) -> None:
        if self.cards < 1:
            raise ValueError(f"cards is {self.cards}, allowed: 1 or more")
        if (self.memory_mib is None) == (self.memory_milli is None):
            raise ValueError("memory is an amount or a share, one of the two")
        if self.memory_mib is not None and self.memory_mib < 1:
            raise ValueError(f"memory_mib is {self.memory_mib}, allowed: 1 or more")
        if self.memory_milli is not None and not 1 <= self.memory_milli <= MILLI:
            raise ValueError(f"memory_milli is {self.memory_milli}, allowed: 1 to 1000")
        if self.core_milli is not None and not 0 <= self.core_milli <= MILLI:
            raise ValueError(f"core_milli is {self.core_milli}, allowed: 0 to 1000")

    def settled(self, core_milli: int | None, memory_mib: int | None) -> "Ask":
        """The ask with the amounts that the container's resources name.

        A share that became MiB at admission stays those MiB, also on a card of another size:
        they are what the scheduler and the kubelet have counted.

        Args:
            core_milli: Over all cards; None or 0 where the resources name none.
            memory_mib: Over all cards; None or 0 likewise.
        """
        changed = self
        if core_milli:
            changed = replace(changed, core_milli=core_milli // self.cards)
        if memory_mib:
            changed = replace(changed, memory_mib=memory_mib // self.cards, memory_milli=None)
        return changed

    def describe(self) -> str:
        """The share of each card in words, for messages."""
        if self.memory_mib is not None:
            memory = f"{self.memory_mib} MiB"
        else:
            memory = f"{self.memory_milli}/1000 of its memory"
        cores = "" if self.core_milli is None else f" and {self.core_milli} milli-cores"
        return memory + cores


def asks_of_request(request: Request) -> tuple[Ask, ...]:
    """One ask for each container of a request, in its order."""
    return tuple(
        Ask(
            container=part.container,
            cards=part.cards,
            core_milli=part.core_milli,
            memory_mib=part.memory_mib,
            memory_milli=part.memory_milli,
            models_in=request.models,
            models_out=request.not_models,
            uuids=request.uuids,
            placement=request.placement,
            isolation=request.isolation,
        )
        for part in request.slices
    )
