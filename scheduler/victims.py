"""The pods to evict from one card so that it can serve a share.

The best set has the fewest pods, and among as few the lowest priorities. Finding it is a knapsack
problem, so a bounded number of sets is compared; beyond that the answer is good but may not be
the best.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, islice
from typing import Final

from gpu_fraction.domain.placement import Taken

TRIES: Final = 500
"""Sets of pods compared for one card, of all sizes together. Chosen: every pair out of 32
pods, and a few milliseconds; the scheduler asks about a hundred nodes and more in one call."""

Rank = tuple[int, list[int], int, list[str]]


@dataclass(frozen=True, slots=True, order=True)
class Holder:
    """A pod that may be evicted; the least important one is the smallest.

    Attributes:
        priority: Its priority.
        added: False where the scheduler proposed to evict it.
        uid: The pod.
        taken: Its part of the card.
    """

    priority: int
    added: bool
    uid: str
    taken: Taken


def rank(holders: Sequence[Holder]) -> Rank:
    """Fewer first, then lower priorities, then the scheduler's own victims, then names."""
    return (
        len(holders),
        sorted((holder.priority for holder in holders), reverse=True),
        sum(holder.added for holder in holders),
        sorted(holder.uid for holder in holders),
    )


def fewest(short: Taken, holders: Sequence[Holder]) -> Sequence[Holder] | None:
    """The pods to evict; None where all of them are not enough.

    Args:
        short: The missing part of the card; 0 and less where enough is free.
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


def _lacking(short: Taken, holders: Sequence[Holder]) -> list[int]:
    """The part that is still missing once these pods have ended."""
    return [part - sum(holder.taken[at] for holder in holders) for at, part in enumerate(short)]


def _frees(short: Taken, holders: Sequence[Holder]) -> bool:
    return max(_lacking(short, holders)) <= 0


def _at_least(short: Taken, holders: Sequence[Holder]) -> int:
    """A number of pods below which even the largest do not free enough."""
    sizes = []
    for at, part in enumerate(short):
        sums = accumulate(sorted(-holder.taken[at] for holder in holders), initial=part)
        sizes.append(next(size for size, lacking in enumerate(sums) if lacking <= 0))
    return max(sizes)


def _largest_first(short: Taken, order: Sequence[Holder]) -> list[Holder]:
    """Few pods: first those that free the most, then replaced by less important ones.

    Args:
        short: The missing part of the card.
        order: Pods that are enough together, the least important first.
    """
    chosen: list[Holder] = []
    while not _frees(short, chosen):
        lacking = _lacking(short, chosen)

        def freed(holder: Holder, lacking: Sequence[int] = lacking) -> float:
            parts = zip(holder.taken, lacking, strict=True)
            return sum(min(part / rest, 1) for part, rest in parts if rest > 0)

        chosen.append(max((holder for holder in order if holder not in chosen), key=freed))
    for holder in sorted(chosen, reverse=True):
        kept = [other for other in chosen if other is not holder]
        lesser = [[other] for other in order if other < holder and other not in chosen]
        instead = (kept + one for one in ([], *lesser))
        chosen = next((some for some in instead if _frees(short, some)), chosen)
    return chosen
