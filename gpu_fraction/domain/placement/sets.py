"""Sets of cards for one ask, best first: the part of a choice that policies differ in."""

from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from math import comb
from typing import Final

from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.placement.cards import CardState, share_of
from gpu_fraction.domain.placement.policies import CLOSENESS, card_cost

EXACT_SETS: Final = 128
"""Up to so many sets of a node's cards are compared one by one; beyond, a set is grown card
by card. Chosen: covers any set of 8 cards and pairs of 16, and costs microseconds."""

EXACT_CARDS: Final = 16
"""Larger nodes (of MIG instances, which have no links) are not worth comparing sets."""

Columns = tuple[int, ...]


def by_topology(ask: Ask) -> bool:
    """True where closeness matters: a single card is close to itself."""
    return ask.placement == "topology" and ask.cards > 1


def exact(cards: int, wanted: int) -> bool:
    """True where every set of ``wanted`` out of ``cards`` is compared."""
    return cards <= EXACT_CARDS and comb(cards, wanted) <= EXACT_SETS


def options(
    ask: Ask, cards: Sequence[CardState], fitting: Sequence[int]
) -> Iterator[tuple[int, Columns]]:
    """Sets of ``ask.cards`` fitting cards with their cost, the best one first.

    Args:
        ask: The ask.
        cards: All cards of the node.
        fitting: Columns of the cards that can serve the ask, ascending.
    """
    if len(fitting) < ask.cards:
        return
    costs = {at: card_cost(ask, cards[at], share_of(ask, cards[at].kind)) for at in fitting}
    if not by_topology(ask):
        ordered = sorted(fitting, key=lambda at: (costs[at], at))
        for columns in combinations(ordered, ask.cards):
            yield sum(costs[at] for at in columns), tuple(sorted(columns))
        return

    def cost(columns: Columns) -> int:
        near = sum(cards[a].near[b] for a, b in combinations(columns, 2))
        return sum(costs[at] for at in columns) - CLOSENESS * near

    if exact(len(cards), ask.cards):
        yield from sorted((cost(columns), columns) for columns in combinations(fitting, ask.cards))
        return
    grown = grow(ask.cards, cards, fitting, costs)
    yield cost(grown), grown
    # A later container may need this one to give way; the bound keeps that search finite.
    others = islice(combinations(fitting, ask.cards), EXACT_SETS)
    yield from sorted((cost(columns), columns) for columns in others if columns != grown)


def grow(
    wanted: int, cards: Sequence[CardState], fitting: Sequence[int], costs: dict[int, int]
) -> Columns:
    """The best of the sets grown from each fitting card by always adding the closest card."""
    grown: list[tuple[int, int, Columns]] = []
    for seed in fitting:
        chosen, total = [seed], costs[seed]
        while len(chosen) < wanted:
            value, at = min(
                (costs[at] - CLOSENESS * sum(cards[at].near[c] for c in chosen), at)
                for at in fitting
                if at not in chosen
            )
            chosen.append(at)
            total += value
        grown.append((total, seed, tuple(sorted(chosen))))
    return min(grown)[2]
