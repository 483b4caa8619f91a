"""Whether one card can serve one ask, and why not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from gpu_fraction.domain import models
from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.placement.cards import CardState, Kind, Share, share_of

NOTHING_BARRED: Final[Mapping[str, str]] = {}


class Why(IntEnum):
    """Why a card cannot serve an ask, from farthest from fitting to nearest."""

    UNHEALTHY = 1
    UUID = 2
    MODEL = 3
    QUOTA = 4
    ISOLATION = 5
    SIZE = 6
    SLOTS = 7
    CORES = 8
    MEMORY = 9

    @property
    def passes(self) -> bool:
        """True where the end of other pods would make the card fit."""
        return self >= Why.SLOTS


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one card cannot serve one ask.

    Attributes:
        why: The first rule that failed.
        text: The rule with its numbers, without the card's name.
    """

    why: Why
    text: str


def static_refusal(ask: Ask, kind: Kind, barred: Mapping[str, str]) -> Refusal | None:
    """Why a card of that kind could not serve the ask even if it were empty.

    Args:
        ask: The ask.
        kind: The card's kind.
        barred: Product name to the reason why the pod may not use it now.
    """
    if kind.health:
        return Refusal(Why.UNHEALTHY, f"unhealthy: {kind.health}")
    if not models.allowed(kind.model, ask.models_in, ask.models_out):
        wanted = "not " + ", ".join(ask.models_out) if ask.models_out else ", ".join(ask.models_in)
        return Refusal(Why.MODEL, f"is {kind.model}, asked for {wanted}")
    if kind.model in barred:
        return Refusal(Why.QUOTA, barred[kind.model])
    return _capacity_refusal(ask, kind)


def _capacity_refusal(ask: Ask, kind: Kind) -> Refusal | None:
    share = share_of(ask, kind)
    loose = unenforced(ask, kind, share)
    if loose and ask.isolation == "required":
        return Refusal(Why.ISOLATION, f"does not enforce {loose} (isolation: {kind.isolation})")
    if ask.memory_milli is not None and not kind.whole_mib:
        return Refusal(Why.SIZE, "is part of a GPU of unknown memory, of which a share is asked")
    if share.memory_mib > kind.memory_mib:
        return Refusal(Why.SIZE, f"has {kind.memory_mib} MiB, {share.memory_mib} needed")
    if share.core_milli > kind.core_milli:
        return Refusal(Why.SIZE, f"has {kind.core_milli} milli-cores, {share.core_milli} needed")
    return None if kind.slots else Refusal(Why.SIZE, "has no slots")


def unenforced(ask: Ask, kind: Kind, share: Share) -> str:
    """What of the share the card would not enforce; empty where all of it is.

    A share that is the whole card, and compute that is not limited, need no enforcement.
    """
    if ask.isolation == "none":
        return ""
    memory = not kind.enforces_memory and share.memory_mib < kind.memory_mib
    compute = not kind.enforces_compute and 0 < share.core_milli < kind.core_milli
    return " and ".join(w for w, loose in (("memory", memory), ("compute", compute)) if loose)


def named(ask: Ask, card: CardState) -> bool:
    """True where the ask names no cards, this one, or the physical card it is a part of."""
    return not ask.uuids or card.uuid in ask.uuids or card.parent in ask.uuids


def serving(
    ask: Ask, cards: Sequence[CardState], barred: Mapping[str, str] = NOTHING_BARRED
) -> list[int]:
    """Positions of the cards that can serve the ask now: those without a ``refusal``."""
    found: list[int] = []
    judged: tuple[Kind, bool, Share] | None = None
    for at, card in enumerate(cards):
        kind = card.kind
        # The cards of a node are mostly of one kind; what depends on it alone is worked out once.
        if judged is None or judged[0] is not kind:
            judged = kind, static_refusal(ask, kind, barred) is None, share_of(ask, kind)
        _, able, share = judged
        if (
            able
            and card.free_slots >= 1
            and card.free_memory_mib >= share.memory_mib
            and card.free_core_milli >= share.core_milli
            and named(ask, card)
        ):
            found.append(at)
    return found


def refusal(
    ask: Ask, card: CardState, barred: Mapping[str, str] = NOTHING_BARRED
) -> Refusal | None:
    """Why the card cannot serve the ask now; None where it can."""
    if not card.kind.health and not named(ask, card):
        return Refusal(Why.UUID, "is not one of the UUIDs asked for")
    return static_refusal(ask, card.kind, barred) or _shortage(card, share_of(ask, card.kind))


def _shortage(card: CardState, share: Share) -> Refusal | None:
    """What of the share is not free now."""
    if card.free_slots < 1:
        return Refusal(Why.SLOTS, f"all {card.kind.slots} slots taken")
    short = (
        ("MiB", card.free_memory_mib, share.memory_mib, Why.MEMORY),
        ("milli-cores", card.free_core_milli, share.core_milli, Why.CORES),
    )
    missing = [part for part in short if part[1] < part[2]]
    if not missing:
        return None
    free = " and ".join(f"{max(0, free)} {unit}" for unit, free, _, _ in missing)
    needed = " and ".join(str(need) for _, _, need, _ in missing)
    return Refusal(missing[0][3], f"{free} free, {needed} needed")
