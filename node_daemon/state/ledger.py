"""The usage of each card. The sum of reserved shares never exceeds the card."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.inventory import Card
from gpu_fraction.node_daemon.state.allocation import ContainerKey
from gpu_fraction.node_daemon.state.errors import Reason, Refusal


@dataclass(frozen=True, slots=True)
class Usage:
    """The shares in use of one card: thousandths, MiB, containers."""

    core_milli: int = 0
    memory_mib: int = 0
    slots: int = 0

    def plus(self, share: CardShare) -> "Usage":
        """The usage with one more container's share."""
        return Usage(
            self.core_milli + share.core_milli,
            self.memory_mib + share.memory_mib,
            self.slots + 1,
        )


class Ledger:
    """Shares by container. Pure: it neither waits nor writes."""

    def __init__(self) -> None:
        self._shares: dict[ContainerKey, tuple[CardShare, ...]] = {}

    def __contains__(self, key: ContainerKey) -> bool:
        return key in self._shares

    def holders(self) -> tuple[ContainerKey, ...]:
        """Every container that holds a share."""
        return tuple(self._shares)

    def shares(self, key: ContainerKey) -> tuple[CardShare, ...]:
        """The shares of a container; empty where it has none."""
        return self._shares.get(key, ())

    def usage(self) -> dict[str, Usage]:
        """The usage by card UUID."""
        used: dict[str, Usage] = {}
        # Metrics are read on another thread, and a copy is one step of the interpreter.
        for shares in self._shares.copy().values():
            for share in shares:
                used[share.uuid] = used.get(share.uuid, Usage()).plus(share)
        return used

    def reserve(
        self, key: ContainerKey, shares: Sequence[CardShare], cards: Mapping[str, Card]
    ) -> None:
        """Take ``shares`` for a container; taking the same again changes nothing.

        Raises:
            Refusal: the container holds other shares, or they do not fit. Nothing is taken.
        """
        held = self._shares.get(key)
        if held and held != tuple(shares):
            raise Refusal(
                Reason.ASSIGNMENT_DIFFERS,
                f"container {key.name!r} already holds {_text(held)}, "
                f"but its assignment is now {_text(shares)}; a slice cannot change in place",
            )
        if not held:
            self._check(shares, cards)
            self._shares[key] = tuple(shares)

    def record(self, key: ContainerKey, shares: Iterable[CardShare]) -> None:
        """Record what a container already has, even where it does not fit."""
        self._shares[key] = tuple(shares)

    def record_unknown(self, key: ContainerKey) -> None:
        """Record a container that runs on cards which nobody can name.

        Any of the node's cards may be its, so nothing more is given until it is released.
        """
        self._shares[key] = ()

    def release(self, key: ContainerKey) -> None:
        """Release a container's shares, if it holds any."""
        self._shares.pop(key, None)

    def _check(self, shares: Sequence[CardShare], cards: Mapping[str, Card]) -> None:
        if unknown := next((key for key, held in self._shares.items() if not held), None):
            raise Refusal(
                Reason.CARD_FULL,
                f"container {unknown.name!r} of pod {unknown.uid} runs on cards that cannot be "
                "read from its state or its pod; delete that pod, then this one starts",
            )
        used = self.usage()
        for share in shares:
            card = cards.get(share.uuid)
            if card is None:
                raise Refusal(Reason.CARD_UNKNOWN, f"this node has no card {share.uuid!r}")
            was = used.get(share.uuid, Usage())
            over = [
                f"{name} {taken} + {asked} of {limit}"
                for name, taken, asked, limit in (
                    ("memory", was.memory_mib, share.memory_mib, card.memory_mib),
                    ("core-milli", was.core_milli, share.core_milli, card.core_milli),
                    ("slots", was.slots, 1, card.slots),
                )
                if taken + asked > limit
            ]
            if over:
                raise Refusal(
                    Reason.CARD_FULL, f"card {share.uuid} has no room: {', '.join(over)}"
                )


def _text(shares: Iterable[CardShare]) -> str:
    return ", ".join(f"{s.uuid} {s.core_milli} milli {s.memory_mib} MiB" for s in shares)
