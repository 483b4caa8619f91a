"""The cards of one node that serve a pod best.

The node daemon and the extender's bind call ``choose``. ``vectorised`` gives the same answers for
a whole cluster, which property tests prove.

Costs are whole numbers, lower is better. The same costs order the cards of a node and the nodes
of a cluster, so the node with the best score is the one with the best cards.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from math import comb
from typing import Final

from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.assignment import Assignment, CardShare
from gpu_fraction.domain.placement.cards import CardState, Share, share_of
from gpu_fraction.domain.placement.fit import NOTHING_BARRED, serving, unenforced
from gpu_fraction.domain.request import Placement
from gpu_fraction.domain.units import MILLI

# Each step outweighs every difference below it; none of them is an amount.
LEFTOVER_MAX: Final = 2 * MILLI
"""Most that can be left of a card: all of its compute and all of its memory."""
OPENED: Final = 2 * LEFTOVER_MAX
"""Breaking into an untouched card costs more than any leftover on a used one."""
IDLE_NODE: Final = LEFTOVER_MAX
"""Breaking into a node without GPU work costs more than into a busy one."""
SPREAD_WEIGHT: Final = 4
"""Under spread the card's own load counts this much against its node's average. Chosen: a
freer card on a busy node wins, unless the difference is small."""
CLOSENESS: Final = 1 << 20
"""One step of closeness outweighs every packing cost that a node's cards can add up to."""
UNENFORCED: Final = 1 << 44
"""A card without enforcement loses to all that enforce, where isolation is preferred."""
SCORE_MAX: Final = 10
"""Source: MaxExtenderPriority, k8s.io/kube-scheduler/extender/v1."""

EXACT_SETS: Final = 128
"""Up to so many sets of a node's cards are compared one by one; otherwise one set is built card
by card. Chosen: covers any set of 8 cards and pairs of 16, and takes microseconds."""

EXACT_CARDS: Final = 16
"""Most cards of a node whose sets are compared. Larger nodes hold MIG instances, which have no
links."""

SEARCH_STEPS: Final = 256
"""Sets of cards tried before several containers are taken not to fit together. Chosen: the
first try nearly always fits; the bound keeps a hopeless node under some milliseconds."""

Columns = tuple[int, ...]
"""Positions of cards in their node, ascending."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The cards of one node for all containers of a pod.

    Attributes:
        assignment: Container to its cards.
        cost: How good the choice is, lower is better.
    """

    assignment: Assignment
    cost: int


@dataclass(slots=True)
class Effort:
    """The work of several searches.

    Attributes:
        steps: Sets of cards tried.
    """

    steps: int = 0


def order(asks: Sequence[Ask]) -> list[Ask]:
    """The asks, hardest to place first: more cards, then more memory, then as given."""
    return sorted(
        asks, key=lambda ask: (-ask.cards, -(ask.memory_milli or 0), -(ask.memory_mib or 0))
    )


def choose(
    cards: Sequence[CardState],
    asks: Sequence[Ask],
    barred: Mapping[str, str] = NOTHING_BARRED,
    effort: Effort | None = None,
) -> Placed | None:
    """The best cards of one node for all asks together; None where they do not fit.

    The same cards and asks give the same answer, whatever happened before.

    Args:
        cards: The node's cards, in index order.
        asks: One per container, at least one.
        barred: Product name to the reason why the pod may not use it now.
        effort: Grows by the work of this call.
    """
    search = _Search(list(cards), order(asks), barred)
    found = search.place(0)
    if effort is not None:
        effort.steps += SEARCH_STEPS - search.steps
    if found is None:
        return None
    cost, taken = found
    assignment = {
        ask.container: tuple(
            CardShare(cards[at].uuid, share.core_milli, share.memory_mib)
            for at in columns
            for share in (share_of(ask, cards[at].kind),)
        )
        for ask, columns in zip(search.asks, taken, strict=True)
    }
    return Placed(
        assignment={ask.container: assignment[ask.container] for ask in asks},
        cost=cost + _node_cost(asks[0].placement, cards),
    )


@dataclass(slots=True)
class _Search:
    """Depth first over the asks, best set of cards first."""

    cards: list[CardState]
    asks: list[Ask]
    barred: Mapping[str, str]
    steps: int = SEARCH_STEPS

    def place(self, depth: int) -> tuple[int, list[Columns]] | None:
        if depth == len(self.asks):
            return 0, []
        ask = self.asks[depth]
        fitting = serving(ask, self.cards, self.barred)
        for cost, columns in _options(ask, self.cards, fitting):
            self.steps -= 1
            before = [self.cards[at] for at in columns]
            for at, card in zip(columns, before, strict=True):
                self.cards[at] = card.less(share_of(ask, card.kind))
            rest = self.place(depth + 1)
            for at, card in zip(columns, before, strict=True):
                self.cards[at] = card
            if rest is not None:
                return cost + rest[0], [columns, *rest[1]]
            if self.steps <= 0:
                return None
        return None


def by_topology(ask: Ask) -> bool:
    """True where closeness matters, which takes more than one card."""
    return ask.placement == "topology" and ask.cards > 1


def exact(cards: int, wanted: int) -> bool:
    """True where every set of ``wanted`` out of ``cards`` is compared."""
    return cards <= EXACT_CARDS and comb(cards, wanted) <= EXACT_SETS


def _options(
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
    costs = {at: _card_cost(ask, cards[at]) for at in fitting}
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
    grown = _grow(ask.cards, cards, fitting, costs)
    yield cost(grown), grown
    # A later container may need other cards than the best; the bound keeps the search finite.
    others = islice(combinations(fitting, ask.cards), EXACT_SETS)
    yield from sorted((cost(columns), columns) for columns in others if columns != grown)


def _grow(
    wanted: int, cards: Sequence[CardState], fitting: Sequence[int], costs: dict[int, int]
) -> Columns:
    """The best of the sets that start at each fitting card and always add the closest card."""
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


def _left(card: CardState, share: Share) -> int:
    """Compute plus memory that stay free on the card, 0 to ``LEFTOVER_MAX``."""
    core = (card.free_core_milli - share.core_milli) * MILLI // max(card.kind.core_milli, 1)
    memory = (card.free_memory_mib - share.memory_mib) * MILLI // max(card.kind.memory_mib, 1)
    return core + memory


def _card_cost(ask: Ask, card: CardState) -> int:
    share = share_of(ask, card.kind)
    cost = UNENFORCED if unenforced(ask, card.kind, share) else 0
    if ask.placement == "spread":
        return cost + SPREAD_WEIGHT * (LEFTOVER_MAX - _left(card, share))
    return cost + _left(card, share) + (OPENED if card.untouched else 0)


def _node_cost(policy: Placement, cards: Sequence[CardState]) -> int:
    """The cost of the node, whichever of its cards are taken."""
    if policy != "spread":
        return IDLE_NODE if all(card.untouched for card in cards) else 0
    nothing = Share(0, 0)
    return LEFTOVER_MAX - sum(_left(card, nothing) for card in cards) // max(len(cards), 1)
