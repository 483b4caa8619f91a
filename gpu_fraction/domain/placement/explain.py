"""Why a node's cards do not serve a pod, in one line that names each card."""

from collections.abc import Mapping, Sequence

from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.placement.cards import CardState
from gpu_fraction.domain.placement.fit import NOTHING_BARRED, Why, refusal


def explain(
    cards: Sequence[CardState],
    asks: Sequence[Ask],
    barred: Mapping[str, str] = NOTHING_BARRED,
) -> str:
    """One line of per-card reasons for a node on which ``reference.choose`` found no place.

    Example: ``card 0: 2048 MiB free, 4096 needed; cards 1-3: all 32 slots taken``.
    """
    if not cards:
        return "no GPU in the node's inventory"
    for ask in asks:
        refusals = [refusal(ask, card, barred) for card in cards]
        fitting = refusals.count(None)
        if fitting >= ask.cards:
            continue
        who = f"container {ask.container}: " if len(asks) > 1 else ""
        count = f"{fitting} of {ask.cards} cards found" if ask.cards > 1 else ""
        lines = [
            (card.index, found.text) for card, found in zip(cards, refusals, strict=True) if found
        ]
        return who + "; ".join(part for part in (count, _grouped(lines)) if part)
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
    """A reason that many nodes can share, so that the scheduler's event counts them together.

    Args:
        ask: The first ask of the pod for which the node has too few cards.
        why: How near the nearest refused card came; None where no card was refused, the
            node simply has too few.
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
