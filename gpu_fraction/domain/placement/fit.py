"""Whether cards can serve an ask, and the reasons where they cannot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from gpu_fraction.domain import models
from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.placement.cards import CardState, Kind, Share, share_of

NOTHING_BARRED: Final[Mapping[str, str]] = {}


class Why(IntEnum):
    """Why a card cannot serve an ask, in order: the farthest from fitting first."""

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
    """The reason why one card cannot serve one ask.

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
        return Refusal(Why.SIZE, "is part of a GPU of unknown memory, a share of it is needed")
    if share.memory_mib > kind.memory_mib:
        return Refusal(Why.SIZE, f"has {kind.memory_mib} MiB, {share.memory_mib} needed")
    if share.core_milli > kind.core_milli:
        return Refusal(Why.SIZE, f"has {kind.core_milli} milli-cores, {share.core_milli} needed")
    return None if kind.slots else Refusal(Why.SIZE, "has no slots")


def unenforced(ask: Ask, kind: Kind, share: Share) -> str:
    """The parts of the share that the card does not enforce; empty where it enforces all.

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
        # The cards of a node are mostly of one kind, so its share is computed once.
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
    """The refusal of a share that is not free now."""
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


def explain(
    cards: Sequence[CardState],
    asks: Sequence[Ask],
    barred: Mapping[str, str] = NOTHING_BARRED,
) -> str:
    """One line of per-card reasons for a node on which ``choose`` found no place.

    Example: ``card 0: 2048 MiB free, 4096 needed; cards 1-3: all 32 slots taken``.
    """
    if not cards:
        return "no GPU in the node's inventory"
    for ask in asks:
        refusals = [refusal(ask, card, barred) for card in cards]
        fitting = refusals.count(None)
        if fitting >= ask.cards:
            continue
        prefix = f"container {ask.container}: " if len(asks) > 1 else ""
        count = f"{fitting} of {ask.cards} cards found" if ask.cards > 1 else ""
        lines = [
            (card.index, found.text) for card, found in zip(cards, refusals, strict=True) if found
        ]
        return prefix + "; ".join(part for part in (count, _grouped(lines)) if part)
    names = ", ".join(ask.container for ask in asks)
    return f"no place was found for the shares of containers {names} together, though each fits"


def _grouped(lines: Sequence[tuple[int, str]]) -> str:
    by_text: dict[str, list[int]] = {}
    for index, text in lines:
        by_text.setdefault(text, []).append(index)
    return "; ".join(f"{_cards(indexes)}: {text}" for text, indexes in by_text.items())


def _cards(indexes: Sequence[int]) -> str:
    if len(indexes) == 1:
        return f"card {indexes[0]}"
    if len(indexes) > 2 and list(indexes) == list(range(indexes[0], indexes[-1] + 1)):
        return f"cards {indexes[0]}-{indexes[-1]}"
    return "cards " + ", ".join(str(index) for index in indexes)


def summary(ask: Ask, why: Why | None, barred: Mapping[str, str]) -> str:
    """A reason that many nodes share, so that the scheduler's event counts them together.

    Args:
        ask: The first ask of the pod for which the node has too few cards.
        why: The reason of the card that came nearest; None where the node only has too few cards.
        barred: Product name to the reason why the pod may not use it now.
    """
    text = {
        None: "too few GPUs",
        Why.UNHEALTHY: "all GPUs are unhealthy",
        Why.UUID: "no GPU is one of the UUIDs asked for",
        Why.MODEL: "no GPU is of a model asked for",
        Why.QUOTA: next(iter(barred.values()), "the GPU's model is beyond the quota"),
        Why.ISOLATION: "no GPU enforces the share",
        Why.SIZE: f"no GPU is as large as {ask.describe()}",
        Why.SLOTS: "no GPU has a free slot",
        Why.CORES: f"no GPU has {ask.describe()} free",
        Why.MEMORY: f"no GPU has {ask.describe()} free",
    }[why]
    return text if ask.cards == 1 else f"{text}, {ask.cards} needed in one node"
