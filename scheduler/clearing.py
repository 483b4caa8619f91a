"""Which pods must go so that one card can serve a share.

The fewest, and among as few those of the lowest priority. That is a knapsack: as many sets as
time allows are compared, and where these are not all, a good one has to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, islice
from typing import Final

TRIES: Final = 500
"""Sets of pods compared for one card, of all sizes together. Chosen: every pair out of 32
pods, and a few milliseconds; the scheduler asks about a hundred nodes and more in one call."""

Amounts = tuple[int, int, int]
"""Milli-cores, MiB and slots of one card."""

Rank = tuple[int, list[int], int, list[str]]


@dataclass(frozen=True, slots=True, order=True)
class Holder:
    """A pod that may be evicted; the least important one is the smallest.

    Attributes:
        priority: Its priority.
        added: False where the scheduler proposed to evict it.
        uid: The pod.
        amounts: What it holds of the card.
    """

    priority: int
    added: bool
    uid: str
    amounts: Amounts


def rank(holders: Sequence[Holder]) -> Rank:
    """Fewer first, then lower priorities, then the scheduler's own victims, then names."""
    return (
        len(holders),
        sorted((holder.priority for holder in holders), reverse=True),
        sum(holder.added for holder in holders),
        sorted(holder.uid for holder in holders),
    )


def cleared(short: Amounts, holders: Sequence[Holder]) -> Sequence[Holder] | None:
    """The holders that must go; None where all of them are not enough.

    Args:
        short: What the card lacks; enough is free of what is not above 0.
        holders: The pods that may be evicted from the card.
    """
    order = sorted(holders)
    if not _frees(short, order):
        return None
    left = TRIES
    for size in range(_at_least(short, order), len(order)):
        # No set of this size ranks before the least important pods.
        if _frees(short, order[:size]):
            return order[:size]
        sets = [*islice(combinations(order, size), left)]
        found: list[Sequence[Holder]] = [chosen for chosen in sets if _frees(short, chosen)]
        left -= len(sets)
        if not left:
            found.append(_largest_first(short, order))
        if found:
            return min(found, key=rank)
    return order


def _frees(short: Amounts, holders: Sequence[Holder]) -> bool:
    return all(
        lacking <= 0 or sum(holder.amounts[at] for holder in holders) >= lacking
        for at, lacking in enumerate(short)
    )


def _at_least(short: Amounts, holders: Sequence[Holder]) -> int:
    """How many of the largest holdings it takes; fewer pods cannot free as much."""
    takes = []
    for at, lacking in enumerate(short):
        largest = sorted((holder.amounts[at] for holder in holders), reverse=True)
        sums = accumulate(largest, initial=0)
        takes.append(next(size for size, freed in enumerate(sums) if freed >= lacking))
    return max(takes)


def _largest_first(short: Amounts, order: Sequence[Holder]) -> list[Holder]:
    """Few pods: each the one that frees most of the rest, then less important ones instead.

    Args:
        short: What the card lacks.
        order: Pods that free it all together, the least important first.
    """
    taken: list[Holder] = []
    while not _frees(short, taken):
        rest = [
            lacking - sum(holder.amounts[at] for holder in taken)
            for at, lacking in enumerate(short)
        ]
        taken.append(
            max(
                (holder for holder in order if holder not in taken),
                key=lambda holder: sum(
                    min(amount / lacking, 1)
                    for amount, lacking in zip(holder.amounts, rest, strict=True)
                    if lacking > 0
                ),
            )
        )
    for holder in sorted(taken, reverse=True):
        kept = [other for other in taken if other is not holder]
        lesser = [[other] for other in order if other < holder and other not in taken]
        instead = (kept + one for one in ([], *lesser))
        taken = next((chosen for chosen in instead if _frees(short, chosen)), taken)
    return taken
