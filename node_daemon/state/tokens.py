"""The device ids of ``gpu-fraction.dev/slot``: as many as containers may share the cards.

A token names no card. The number of tokens follows the cards; the healthy ones tell
the kubelet how many more containers fit, and each pod whether its own cards are healthy.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.node_daemon.state.allocation import Allocation, Token

PREFIX: Final = "gpu-fraction-slot-"

MAX_TOKENS: Final = 2000
"""The kubelet's work at its own restart grows with the square of the ids: measured 0.3 s at
1,928 ids, 12.5 s at 12,000, with admission blocked meanwhile."""


@dataclass(frozen=True, slots=True)
class TokenState:
    """One token and whether its holder, or a container to come, can rely on it."""

    token: Token
    healthy: bool


def token(index: int) -> Token:
    """The id of that position.

    Ids are unique among all resources of the node: the kubelet looks them up without the
    resource's name.
    """
    return Token(f"{PREFIX}{index:04d}")


def token_states(
    inventory: Inventory, allocations: Iterable[Allocation]
) -> tuple[TokenState, ...]:
    """Every token of the node.

    Tokens whose container sits on a sick or vanished card are unhealthy. Of the others, as many
    are healthy as healthy cards have slots: those in use first, since a free token loses
    nothing by being withdrawn.
    """
    well = {card.uuid for card in inventory.cards if card.healthy}
    total = min(MAX_TOKENS, sum(card.slots for card in inventory.cards))
    budget = min(MAX_TOKENS, sum(card.slots for card in inventory.cards if card.healthy))
    latest: dict[Token, Allocation] = {}
    for allocation in sorted(allocations, key=lambda a: a.sequence):
        if allocation.token.startswith(PREFIX):  # else a claim, left by another mode
            latest[allocation.token] = allocation
    sick = {
        t
        for t, a in latest.items()
        if a.binding is not None and any(s.uuid not in well for s in a.binding.shares)
    }
    names = sorted({token(i) for i in range(total)} | set(latest))
    in_use = [name for name in names if name in latest and name not in sick]
    free = [name for name in names if name not in latest]
    healthy = set(in_use) | set(free[: max(0, budget - len(in_use))])
    return tuple(TokenState(name, name in healthy) for name in names)
