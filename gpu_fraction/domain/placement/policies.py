"""What the policies prefer, as whole numbers; lower is better.

The same numbers order the cards of a node and the nodes of a cluster, so that the node that
scores best is the one whose best cards are best.
"""

from collections.abc import Sequence
from typing import Final

from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.placement.cards import CardState, Share
from gpu_fraction.domain.placement.fit import unenforced
from gpu_fraction.domain.request import Placement
from gpu_fraction.domain.units import MILLI

# Each step outweighs every difference below it; none of them is an amount.
LEFTOVER_MAX: Final = 2 * MILLI
"""What an untouched card has left: all of its compute and all of its memory."""
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


def left(card: CardState, share: Share) -> int:
    """What would be left of the card, 0 to ``LEFTOVER_MAX``: compute plus memory."""
    core = (card.free_core_milli - share.core_milli) * MILLI // max(card.kind.core_milli, 1)
    memory = (card.free_memory_mib - share.memory_mib) * MILLI // max(card.kind.memory_mib, 1)
    return core + memory


def card_cost(ask: Ask, card: CardState, share: Share) -> int:
    """What taking the share of this card costs."""
    cost = UNENFORCED if unenforced(ask, card.kind, share) else 0
    if ask.placement == "spread":
        return cost + SPREAD_WEIGHT * (LEFTOVER_MAX - left(card, share))
    return cost + left(card, share) + (OPENED if card.untouched else 0)


def node_cost(policy: Placement, cards: Sequence[CardState]) -> int:
    """What going to this node costs, whichever cards are taken there."""
    if policy != "spread":
        return IDLE_NODE if all(card.untouched for card in cards) else 0
    nothing = Share(0, 0)
    return LEFTOVER_MAX - sum(left(card, nothing) for card in cards) // max(len(cards), 1)
