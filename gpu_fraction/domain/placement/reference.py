"""The choice of cards on one node, written plainly.

The node daemon and the extender's bind use it as it is; the vectorised evaluation of a whole
cluster is held to it by property tests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.assignment import Assignment, CardShare
from gpu_fraction.domain.placement.cards import CardState, share_of
from gpu_fraction.domain.placement.fit import NOTHING_BARRED, serving
from gpu_fraction.domain.placement.policies import node_cost
from gpu_fraction.domain.placement.sets import options

SEARCH_STEPS: Final = 256
"""Sets of cards tried before several containers are taken not to fit together. Chosen: the
first try nearly always fits; the bound keeps a hopeless node under some milliseconds."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a pod's containers go on one node.

    Attributes:
        assignment: Container to its cards.
        cost: How good the choice is, lower is better; see ``policies``.
    """

    assignment: Assignment
    cost: int


@dataclass(slots=True)
class Effort:
    """What searches took.

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
        effort: Grows by what this took.
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
        cost=cost + node_cost(asks[0].placement, cards),
    )


@dataclass(slots=True)
class _Search:
    """Depth first over the asks, best set of cards first."""

    cards: list[CardState]
    asks: list[Ask]
    barred: Mapping[str, str]
    steps: int = SEARCH_STEPS

    def place(self, depth: int) -> tuple[int, list[tuple[int, ...]]] | None:
        if depth == len(self.asks):
            return 0, []
        ask = self.asks[depth]
        fitting = serving(ask, self.cards, self.barred)
        for cost, columns in options(ask, self.cards, fitting):
            self.steps -= 1
            before = [self.cards[at] for at in columns]
            for at in columns:
                self.cards[at] = self.cards[at].less(share_of(ask, self.cards[at].kind))
            rest = self.place(depth + 1)
            for at, card in zip(columns, before, strict=True):
                self.cards[at] = card
            if rest is not None:
                return cost + rest[0], [columns, *rest[1]]
            if self.steps <= 0:
                return None
        return None
